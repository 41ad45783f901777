//! Client-side resilience as tower layers: discovery, balancing, health, deadlines, retries and budgets, around your
//! own client.

#![forbid(unsafe_code)]

pub mod clock;
mod invalid;
pub mod outcome;
pub mod random;

mod sync;

pub use invalid::{Invalid, Problem, Ratio};
pub use outcome::Outcome;
