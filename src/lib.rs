//! Client-side resilience as tower layers: discovery, balancing, health, deadlines, retries and budgets, around your
//! own client.

pub mod clock;
pub mod context;
pub mod describe;
pub mod endpoint;
pub mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
mod invalid;
pub mod outcome;
pub mod random;

mod sync;
pub mod track;

pub use describe::Describe;
pub use endpoint::Endpoint;
pub use error::{Error, Reason};
pub use invalid::{Invalid, Problem, Ratio};
pub use outcome::{Classify, Outcome, Verdict};
pub use track::Track;
