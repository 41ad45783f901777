//! A rate that more than one process shares.
//!
//! # Problem
//! An agreement says a thousand requests a second, and fifty processes have to keep to it together. A share for each is too
//! little where the load is uneven, and nobody knows how many they are.
//!
//! # Idea
//! A [`Quota`] is asked for each request, and says whether it may go, at once or after a while. With the feature `redis` there
//! is `Redis`, the same cell rate algorithm as in [`rate`](super::rate), run as a script in a Redis server: exact by
//! that server's clock, for all who use the same server and name.
//!
//! **When it is away** (no answer within [`timeout`](QuotaOptions::timeout), an error, or five requests in a row that were dropped
//! after more than a usual time without an answer), [`Away`] says what becomes of requests:
//! by default they pass, since a rate is a promise and no reason to be down. It is then left alone for
//! [`pause`](QuotaOptions::pause), and then one request asks whether it is back: an outage of it costs that one a timeout, once a
//! second, and not each request.
//!
//! # When to use it
//! For promises between organisations. Each request costs a round trip; within one process use [`rate`](super::rate).
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::limit::{quota::{Local, QuotaLayer, QuotaOptions}, rate::RateLimitOptions};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! // For a test; in production `Redis::new("redis://cache.internal/", "reports", rate)?`.
//! let quota = Local::new(RateLimitOptions::default().rate(1_000, Duration::from_secs(1)).burst(50))?;
//! let service = ServiceBuilder::new()
//!     .layer(QuotaLayer::new(quota, QuotaOptions::default())?)
//!     .service(service_fn(|page: u32| async move { Ok::<_, BoxError>(page) }));
//! assert_eq!(service.oneshot(7).await?, 7);
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! A boxed future, and whatever the quota costs to ask.

mod layer;
mod local;
mod options;
#[cfg(feature = "redis")]
mod redis;
mod service;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

use std::{future::Future, pin::Pin, time::Duration};

use tower::BoxError;

pub use layer::QuotaLayer;
pub use local::Local;
pub use options::{Away, QuotaOptions};
#[cfg(feature = "redis")]
pub use redis::Redis;
pub use service::{QuotaLimited, ResponseFuture};

/// What a quota says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granted {
    /// It may go after this time, 0 for now; that is taken.
    After(Duration),
    /// It may not; nothing was taken. The time after which it may make sense to ask again; `None` if it is more than is ever
    /// granted at once.
    NotYet(Option<Duration>),
}

/// What [`Quota::take`] gives.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Result<Granted, BoxError>> + Send + 'a>>;

/// A rate that may be shared with others, somewhere else.
pub trait Quota: Send + Sync + 'static {
    /// Takes `weight` for a request that may wait for `patience`.
    ///
    /// # Errors
    /// Whatever keeps it from being asked. It may have taken something all the same.
    fn take(&self, weight: u32, patience: Duration) -> Taking<'_>;
}
