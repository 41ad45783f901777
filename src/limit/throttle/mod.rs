//! Keeps back what the servers would turn away.
//!
//! # Problem
//! To refuse a request costs a server something, and a server that is asked for many times more than it can do spends itself
//! on refusals.
//!
//! # Idea
//! The client notes which share of its requests the servers turn away for load (answers that ask to be left alone, and
//! attempts that their limit cut off), and refuses a part of the next ones itself, with
//! [`Reason::Throttled`](crate::Reason::Throttled). By Google's formula it goes on sending `K` times what is accepted:
//!
//! ```text
//! refused share = max(0, (requests - K x accepts) / (requests + 1))
//! ```
//!
//! so that the servers see at most `K` requests for each that they can do, and their recovery is noticed by what still goes.
//! Finagle's nack admission does the same by the share of accepts among what was sent. The least important requests, by the
//! [criticality](crate::describe::Criticality) that they inherit, are refused first.
//!
//! Failures are no sign of overload: what breaks is not what is busy; a [`breaker`](crate::breaker) is for that.
//!
//! # When to use it
//! Where many clients share servers that say "too much", in answers that somebody understands: a
//! [`classify`](ThrottleLayer::classify) of this layer or of one further in. Without one, a service's own errors are failures and
//! no sign of overload, and nothing is ever kept back. Outside of retries: what is refused here is final.
//!
//! # Example
//! ```
//! use mainstay::{Verdict, limit::throttle::{ThrottleLayer, ThrottleOptions}};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let throttle = ThrottleLayer::new(ThrottleOptions::default())?.classify(|answer: Result<&u16, &BoxError>| match answer {
//!     Ok(429) => Verdict::back_off(None),
//!     Ok(_) => Verdict::success(),
//!     Err(_) => Verdict::failure(),
//! });
//! let service = ServiceBuilder::new()
//!     .layer(throttle.clone())
//!     .service(service_fn(|status: u16| async move { Ok::<_, BoxError>(status) }));
//! for _ in 0..100 {
//!     let _ = service.clone().oneshot(429).await;
//! }
//! assert!(throttle.throttle().probability(mainstay::clock::now()) > 0.9);
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! While nothing is turned away: a load, two clock reads, and a compare-and-swap on a word of the thread's own. In trouble a
//! request sums some tens of words for each stripe of threads, under a short lock.
//!
//! # Sources
//! *Site Reliability Engineering*, chapter 21, equation 1, with its window of two minutes; Finagle's `NackAdmissionFilter`, with a sliding window in
//! the place of its moving average.

mod layer;
mod options;
mod service;
mod sums;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use layer::ThrottleLayer;
pub use options::{Formula, ThrottleOptions};
pub use service::{ResponseFuture, Throttled};
pub use sums::{Answer, Throttle};
