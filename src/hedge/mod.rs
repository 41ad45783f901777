//! A second attempt beside the first, when that takes longer than almost all do.
//!
//! # Problem
//! One server in a hundred collects garbage just now, and the request that met it waits for that, though any other server
//! would have answered long ago. A retry comes too late: nothing has failed. To send everything twice helps, and doubles
//! the load.
//!
//! # Idea
//! When an attempt has lasted longer than a high percentile of recent latency, the same request goes to another endpoint. The
//! first success wins, and the others are cancelled. With the 99th percentile as the [delay](Delay) that is one request in a
//! hundred, and the slowest one.
//!
//! What keeps it from making things worse:
//!
//! - Only what may be processed twice is hedged, and only its first attempt: a retry is extra load by itself.
//! - Hedges have a share of their own, exactly, and draw on the [budget](crate::budget) of the retries besides. The delay is
//!   the percentile that leaves half of the share unused, so that it lasts through a bad minute.
//! - When everything becomes slow the percentile follows, and until then the share is a bound.
//! - Losers count as *at least* that slow ([`Survival`](crate::estimate::Survival)). Were they forgotten, the percentile would
//!   drift down, and hedges would bring about more hedges.
//! - None is sent while more than a share of the capacity is in use, where that is known, while requests wait, while servers
//!   turn requests away, or while a breaker is not closed. None waits for a place: one that cannot go out at once does not go.
//! - A server that keeps losing is not hidden by those who answer in its place: five losses in a row with no answer between
//!   are a failure to its health, as an attempt that its caller gave up after far too long is.
//!
//! A failure of one attempt waits for the other. A failure after which another attempt may help has the next sent at once,
//! without a wait; that is a retry that is early, and pays with the budget alone.
//!
//! # When to use it
//! For reads whose tail matters, on a fleet with room to spare. Not for what is slow because it is much work: it is as slow
//! elsewhere. Not at the brink: see `hedging_frontier` in the lab for how much load is too much.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::{describe::Idempotent, hedge::{Delay, HedgeLayer, HedgeOptions}};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let first_hangs = service_fn(|n: u32| async move {
//!     if CALLS.fetch_add(1, SeqCst) == 0 { std::future::pending::<()>().await }
//!     Ok::<_, tower::BoxError>(n)
//! });
//! let options = HedgeOptions::default().delay(Delay::Fixed(Duration::from_millis(50))).share(None);
//! let service = ServiceBuilder::new()
//!     .layer(HedgeLayer::new(options)?.describe(Idempotent))
//!     .service(first_hangs);
//! assert_eq!(service.oneshot(7).await?, 7);
//! assert_eq!(CALLS.load(SeqCst), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! For a request that is answered at once, its copy. For one that waits, a deposit, a load, and its time in the one timer
//! that a request has anyway. Twice a second somebody finds the delay anew, in some ten thousand loads. A hedge itself is
//! boxed.
//!
//! # Sources
//! J. Dean and L. A. Barroso, "The Tail at Scale" (2013): a hedge after 10 ms, 2 % more requests, p99.9 from 1,800 to 74 ms. Finagle's
//! `BackupRequestFilter` for the percentile by the share and the two budgets. gRFC A6 ([`HedgeOptions::grpc`]). A. Vulimiri et al., "Low
//! Latency via Redundancy" (2013): from a third of the capacity on, sending everything twice does harm. tower's `hedge` remembers only who
//! won, and has no bound.

mod layer;
#[cfg(all(test, mainstay_loom))]
mod model;
mod options;
mod pace;
mod race;
mod service;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use layer::HedgeLayer;
pub use options::{Delay, HedgeOptions};
pub use service::{Hedge, ResponseFuture};

pub(crate) use pace::{Due, Pace, Seen};
pub(crate) use race::{Arm, Course, Paid, Race, Trigger};
