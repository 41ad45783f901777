//! Retries that cannot make things worse.
//!
//! **Problem.** One more try saves a request that met a bad instance, and buries a fleet that is overloaded. **Idea.**
//! Only what was never processed, or may be processed twice, is sent again; to another endpoint first; after a jittered
//! wait; while there is time for it; and within one [budget](crate::budget) that is filled by successes, so that retries
//! are a small share of what goes well and nothing where nothing does.
//!
//! ```
//! use mainstay::{budget::{Budget, BudgetOptions}, describe::Idempotent, retry::{RetryLayer, RetryPolicy}};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let flaky = service_fn(|n: u32| async move { if n == 2 { Ok::<_, tower::BoxError>(n) } else { Err("odd".into()) } });
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::default())?.budget(Budget::new(BudgetOptions::default())?).describe(Idempotent))
//!     .service(flaky);
//! assert_eq!(service.oneshot(2).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! **When not.** Below another retry layer of the same call: the inner one then steps aside by itself.
//!
//! **Cost.** On success a budget deposit and the copy of the request; see the `overhead` benchmark.
//!
//! **Sources.** Finagle's retry budget, gRPC A6 (transparent retries, pushback), the SRE book's chapter on overload.

mod decide;
mod layer;
mod oneshot;
mod policy;
mod service;
mod session;

pub use layer::RetryLayer;
pub use policy::RetryPolicy;
pub use service::{ResponseFuture, Retry};

pub(crate) use session::{Env, Parts, Session, Underway, Wishes, stamp, unjudged};
