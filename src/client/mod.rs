//! The whole stack behind one handle.
//!
//! A [`Client`] is deadline, rate limit and throttle, retry with a budget, concurrency limit, breaker, and balancer, in this
//! order, with one set of options that are checked together; rate, throttle, limit and breaker are off unless asked for. It adds
//! nothing that the layers do not have: it saves writing them down, and what it costs to stack them.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{Client, Endpoint, describe::Idempotent, resolve};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let squares = Client::builder("squares")
//!     .resolve(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
//!     .connect(|_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, tower::BoxError>(n * n) }))
//!     .describe(Idempotent)
//!     .build()?;
//! assert_eq!(squares.send(12).await?, 144);
//!
//! // A view: the same endpoints, health and budget, other wishes.
//! let quick = squares.method("square").deadline(Duration::from_millis(200));
//! assert_eq!(quick.send(3).await?, 9);
//! println!("{}", squares.explain());
//! # Ok(())
//! # }
//! ```

mod admission;
mod attempt;
mod builder;
mod explain;
mod future;
mod hands;
mod hedged;
mod options;
mod service;
mod status;
mod terms;

pub use builder::ClientBuilder;
pub use explain::{Explanation, Origin, Setting, WorstCase};
pub use future::ResponseFuture;
pub use options::ClientOptions;
pub use service::Client;
pub use status::{ClientStatus, Latency};

#[cfg(feature = "tonic")]
pub(crate) use terms::Terms;
