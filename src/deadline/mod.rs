//! How long things may take: the whole request, and one attempt.
//!
//! **Problem.** A caller that waits for ever holds what it has for ever. **Idea.** The [total deadline](Deadline) is one
//! point in time for all attempts, waits and queues, inherited by every client that is called on the way. The
//! [attempt limit](AttemptLimit) cuts off one attempt early enough that another can still be made; what it cuts off counts
//! as a failure of the endpoint, and what the caller's deadline cuts off does not.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{Error, Reason, deadline::DeadlineLayer};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_millis(20)))
//!     .service(service_fn(|()| std::future::pending::<Result<(), tower::BoxError>>()));
//! let error = service.oneshot(()).await.unwrap_err();
//! assert_eq!(Error::find(&*error).map(Error::reason), Some(Reason::Deadline));
//! # }
//! ```
//!
//! **Order.** The deadline goes outside of retries, the attempt limit inside of them; a
//! [`Balance`](crate::balance::Balance) has an attempt limit of its own. What an attempt limit goes by besides its number, a
//! percentile of latency or what is left of the deadline, is an [`AttemptFit`]. If the inner service is ready in the same poll in
//! which the time is over, its answer wins.
//!
//! **Cost.** Nothing for a request that completes at once; one timer for one that is suspended, however many of these
//! layers there are.

mod fit;
mod future;
mod layer;
mod service;

pub use fit::AttemptFit;
pub use future::ResponseFuture;
pub use layer::{AttemptLimitLayer, DeadlineLayer};
pub use service::{AttemptLimit, Deadline};
