//! So many requests in a time.
//!
//! # Problem
//! Somebody has agreed to a rate, or charges for more. A counter that is reset each second lets twice as many through around
//! the reset; a limit for each clone lets through as many times more as there are clones.
//!
//! # Idea
//! A [`Gcra`] (generic cell rate algorithm) is one word: the time at which it will be as if nothing had ever been admitted.
//! In *any* interval of length `t` at most `burst + rate x t` are admitted, exactly, by all clones together. What is too
//! much is refused with the time after which it makes sense to come back, or waits for its turn, up to its deadline.
//! Requests may weigh more than one.
//!
//! Exact are the times that are *granted*. Who waits for its turn uses it when its task runs: where the runtime stalls,
//! the turns that have come meanwhile are all used at one instant, up to as many as the rate brings in the stall. A promise
//! that must hold where requests leave, late tasks and all, wants no waiting ([`max_wait`](RateLimitOptions::max_wait) of
//! 0, the default); even then a request that was admitted may be delayed on its way.
//!
//! # When to use it
//! For a promise about a rate. Not to protect a server from more than it can do: it does as many of cheap requests as of dear
//! ones; that is what a [concurrency limit](super) is for.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::{Error, KeyOptions, Reason, limit::rate::{RateLimitLayer, RateLimitOptions}};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let options = RateLimitOptions::default().rate(100, Duration::from_secs(1)).burst(2);
//! let service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(options.clone())?.weigh(|pages: &u32| *pages))
//!     .service(service_fn(|pages: u32| async move { Ok::<_, BoxError>(pages) }));
//! assert_eq!(service.clone().oneshot(2).await?, 2);
//! let refused = service.oneshot(1).await.unwrap_err();
//! assert_eq!(Error::find(&*refused).map(Error::reason), Some(Reason::RateLimit));
//!
//! // One for each tenant, for a bounded number of them.
//! let tenants = RateLimitLayer::keyed(options, KeyOptions::default(), |(tenant, _): &(u32, String)| *tenant)?;
//! # let _ = tenants;
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! One clock read, one load and one compare-and-swap on a word that all requests share. One that waits takes the one timer of
//! its request, and no line: its turn is a time.
//!
//! A waiting request that is dropped gives its turn back if nobody has come after it; otherwise the turn is lost, since moving
//! the others up could let too many through at once.
//!
//! # Sources
//! GCRA: ITU-T I.371, Annex A. tower's `RateLimit` counts for each clone by itself (tower #794, #842).

mod gcra;
mod layer;
mod meters;
mod options;
mod service;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use gcra::{Gcra, NotYet, Reservation};
pub use layer::RateLimitLayer;
pub use meters::{Limits, One, PerKey, Weigh, Whole};
pub use options::RateLimitOptions;
pub use service::{RateLimit, ResponseFuture};

pub(crate) use meters::{Taken, Terms};
