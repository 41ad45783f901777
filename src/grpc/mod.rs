//! gRPC: what the layers may know of a call, and what its status says about its endpoint, for any gRPC client over the
//! types of the `http` crate. `mainstay::tonic` is made of them.
//!
//! # Problem
//! To HTTP every gRPC call is a POST that is answered with 200. Whether it may be repeated, and whether it went well, is
//! said elsewhere: by the one who knows the method, and by a trailer that comes when everything else is over.
//!
//! # Idea
//! - [`Description`] knows the methods that may be processed twice, copies calls, and writes `grpc-timeout` and
//!   `grpc-previous-rpc-attempts`.
//! - [`Classifier`] gives the verdict at the head where the status is there, and leaves it open where it is not.
//! - [`BodyTrack`] gives it at the end, by the trailers: streams count in flight until then, and one that ends with
//!   UNAVAILABLE, or without a status, is a failure of its endpoint.
//! - [`HealthCheck`] asks an endpoint whether it is well, for [active checks](crate::health::Checks).
//! - [`HealthWatch`] listens to what an endpoint says of its health, for
//!   [`ClientBuilder::watch`](crate::client::ClientBuilder::watch).
//! - [`LoadReport`] reads and writes what servers say of their load; the balancer
//!   [goes by it](crate::balance::BalanceOptions::reports) in headers and trailers, over HTTP with [`LoadReports`].
//! - [`ServiceConfig`] is gRPC's own document on timeouts, retries and hedges, method by method.
//!
//! What came after the head is not repeated: the head was handed on (gRFC A6 commits there as well). Servers send a
//! failure of a unary call as headers only, so those are.
//!
//! # When to use it
//! Under a transport of your own that speaks gRPC; see [`ClientBuilder`](crate::client::ClientBuilder). With tonic, use
//! `mainstay::tonic`.
//!
//! ```
//! use http::{Request, Response};
//! use mainstay::{Classify, Describe, Verdict, grpc};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = grpc::DescriptionOptions::default().idempotent(["users.Users/Get"]);
//! let description = grpc::Description::new(options)?;
//! assert!(description.is_idempotent(&Request::post("http://users/users.Users/Get").body(())?));
//!
//! let unavailable = Response::builder().header(grpc::STATUS, "14").body(())?;
//! assert_eq!(grpc::Classifier.classify(Ok(&unavailable)), Verdict::failure());
//! # Ok(())
//! # }
//! ```
//!
//! # Cost
//! A look-up of one header at the head and one at the end; `grpc-timeout` is a short allocation for each attempt.
//!
//! # Sources
//! gRPC's PROTOCOL-HTTP2 and http-grpc-status-mapping; gRFC A6 for pushback and previous attempts.

mod base64;
mod classify;
mod config;
mod describe;
mod health;
mod health_watch;
mod load_report;
mod protobuf;
mod reported;
mod status;
mod timeout;

pub use classify::{BodyTrack, Classifier};
pub use config::{Attempts, Codes, LoadBalancing, MethodPolicy, RetryThrottling, ServiceConfig};

pub use describe::{Description, DescriptionOptions, PREVIOUS_ATTEMPTS};
pub use health::{HealthCheck, Question};
pub use health_watch::HealthWatch;
pub use load_report::{LOAD_METRICS, LOAD_METRICS_BIN, LoadReport};
pub use reported::{IN_FLIGHT, LoadReports};
pub use status::{PUSHBACK, STATUS};
pub use timeout::{TIMEOUT, read_timeout};

#[cfg(feature = "server")]
pub(crate) use status::judge;
#[cfg(feature = "tonic")]
pub(crate) use {config::Methods, status::pushed_back};
