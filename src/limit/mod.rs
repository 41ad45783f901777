//! At most so many requests at a time.
//!
//! # Problem
//! A server that is given more requests than it can work on at once answers all of them late. A caller that queues
//! without bound turns that into latency and memory of its own.
//!
//! # Idea
//! A [`Gate`] counts who is in. Others wait in line: bounded in number, first come first served, each only until its
//! deadline or for at most a set time. Beyond that they are refused at once with
//! [`Reason::Limit`](crate::Reason::Limit), and nothing was sent.
//!
//! The place is taken inside the response future, not in `poll_ready`. A handle that is ready and not called holds
//! nothing, and shedding load by readiness cannot strand a place on a handle that went idle. A waiting request that is
//! dropped passes its turn on.
//!
//! # When to use it
//! Where you know how much a server, a pool or a disk can do at once. Not to bound a rate: a limit of 10 is a hundred
//! requests a second or a hundred thousand, as latency has it.
//!
//! # Example
//! ```
//! use mainstay::limit::{ConcurrencyLimitLayer, ConcurrencyLimitOptions};
//! use tower::{BoxError, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let limit = ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().limit(10))?.label("reports");
//! let mut reports = ServiceBuilder::new()
//!     .layer(limit.clone())
//!     .service(service_fn(|page: u32| async move { Ok::<_, BoxError>(page) }));
//! assert_eq!(reports.ready().await?.call(7).await?, 7);
//! limit.update(&ConcurrencyLimitOptions::default().limit(20))?; // while it runs
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! A request that need not wait: one atomic operation to enter and one to leave, on one word that all requests of the
//! limit share, besides a clone of the inner service and of two handles. No lock, no allocation, no clock read unless
//! there is a deadline. One that waits takes a lock, a node of a tree, and the one timer of its request.
//!
//! A place is held until the response future is done, or dropped. It does not cover a body that is still streaming.

mod future;
mod gate;
mod layer;
mod options;
mod service;

#[cfg(all(test, mainstay_loom))]
mod model;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use future::ResponseFuture;
pub use gate::{Entry, Gate, Permit, Ticket};
pub use layer::ConcurrencyLimitLayer;
pub use options::ConcurrencyLimitOptions;
pub use service::ConcurrencyLimit;
