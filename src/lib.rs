//! Client-side resilience as tower layers: discovery, balancing, health, deadlines, retries and budgets, around your
//! own client.

pub mod backoff;
pub mod budget;
pub mod clock;
pub mod context;
pub mod describe;
pub mod endpoint;
pub mod error;
pub mod estimate;
pub mod health;
mod invalid;
pub mod limit;
pub mod outcome;
pub mod random;
pub mod resolve;

mod sync;
pub mod telemetry;
pub mod track;

pub use describe::Describe;
pub use endpoint::Endpoint;
pub use error::{Error, Reason};
pub use invalid::{Invalid, Problem, Ratio};
pub use outcome::{Classify, Outcome, Verdict};
pub use track::Track;
