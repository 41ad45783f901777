//! Client-side resilience as tower layers: discovery, balancing, health, deadlines, retries and budgets, around your
//! own client.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod balance;
pub mod budget;
pub mod client;
pub mod clock;
pub mod context;
pub mod deadline;
pub mod describe;
pub mod endpoint;
pub mod error;
pub mod estimate;
pub mod health;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
mod invalid;
pub mod limit;
pub mod outcome;
pub mod random;
pub mod resolve;
pub mod retry;

mod sync;
pub mod telemetry;
pub mod track;

pub use client::Client;
pub use describe::Describe;
pub use endpoint::Endpoint;
pub use error::{Error, Reason};
pub use invalid::{Invalid, Problem, Ratio};
pub use outcome::{Classify, Outcome, Verdict};
pub use track::Track;
