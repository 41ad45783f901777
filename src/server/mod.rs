//! The server's half, small: what a client said of a request is read, passed on and acted upon.
//!
//! # Problem
//! A client knows how long it will wait, which attempt this is, and how much the work matters. A server that does not look
//! works for callers that are gone, lets the clients it calls itself wait longer than anybody waits for it, and turns work away without
//! a word, so that the one who sent it cannot know whether it may be sent elsewhere.
//!
//! # Idea
//! [`ServerLayer`] stands before the handlers of HTTP and gRPC alike. It reads deadline, attempt and criticality from the headers
//! and runs the handler within them ([`context::scope`](crate::context::scope)): every mainstay client that the handler calls
//! keeps within that deadline. What has no time left, and what a [limit](ServerOptions::limit) has no place for, is refused before
//! the handler is called, in words that say so: [`UNPROCESSED`](crate::http::UNPROCESSED) beside a status that asks for time.
//! A mainstay client sends it elsewhere, whatever it is, and leaves this server alone for a moment.
//!
//! | refused | HTTP | gRPC |
//! |---|---|---|
//! | the time is over | 504 | DEADLINE_EXCEEDED |
//! | over the limit | 503 with `Retry-After` | RESOURCE_EXHAUSTED with `grpc-retry-pushback-ms` |
//!
//! ```
//! use std::convert::Infallible;
//! use http::{Request, Response};
//! use mainstay::{context, limit::ConcurrencyLimitOptions, server::{ServerLayer, ServerOptions}};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let layer = ServerLayer::new(ServerOptions::default().limit(ConcurrencyLimitOptions::default().limit(100)))?;
//! let service = ServiceBuilder::new().layer(layer).service(service_fn(|_: Request<String>| async {
//!     assert!(context::inherited().deadline().is_some()); // every client called here keeps within it
//!     Ok::<_, Infallible>(Response::new(String::new()))
//! }));
//!
//! let ask = |left: &str| Request::post("/users.Users/Get")
//!     .header("content-type", "application/grpc")
//!     .header("grpc-timeout", left)
//!     .body(String::new());
//! assert_eq!(service.clone().oneshot(ask("200m")?).await?.headers().get("grpc-status"), None);
//! assert_eq!(service.oneshot(ask("0m")?).await?.headers()["grpc-status"], "4"); // the handler was not called
//! # Ok(())
//! # }
//! ```
//!
//! # Load
//! A client sees how long a server takes, and not how busy it is. With [`report_load`](ServerOptions::report_load) every answer says so,
//! in ORCA's words, which mainstay, gRPC and Envoy read: over HTTP in the header `endpoint-load-metrics` as text, over gRPC in the
//! trailer `endpoint-load-metrics-bin`. A [`LoadRecorder`] holds what you measure, requests and errors per second are measured here, and a
//! handler says what its request cost by a [`LoadReport`](crate::grpc::LoadReport) among the extensions of its response, which stands in
//! place of what the server says in general. A report that the handler writes by itself is left alone.
//!
//! [`in_flight_header`](ServerOptions::in_flight_header) is for balancers that go by a plain number: how many other requests there are,
//! waiting ones and those whose body is still sent included.
//!
//! ```
//! use mainstay::{grpc::LoadReport, server::{LoadRecorder, ServerLayer, ServerOptions}};
//! # use std::convert::Infallible;
//! # use http::{HeaderName, Request, Response};
//! # use tower::{Layer as _, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let load = LoadRecorder::new(); // your metrics task writes it
//! load.update(|report| report.cpu = 0.35);
//! let options = ServerOptions::default()
//!     .report_load(load)
//!     .in_flight_header(HeaderName::from_static("x-in-flight"));
//! let service = ServerLayer::new(options)?.layer(service_fn(|_: Request<()>| async {
//!     let mut response = Response::new(String::new());
//!     let mut cost = LoadReport::default();
//!     cost.request_cost.insert("rows".into(), 70.0);
//!     response.extensions_mut().insert(cost);
//!     Ok::<_, Infallible>(response)
//! }));
//! let answer = service.oneshot(Request::new(())).await?;
//! assert_eq!(answer.headers()["x-in-flight"], "0");
//! assert_eq!(answer.headers()["endpoint-load-metrics"], "TEXT cpu_utilization=0.35,request_cost.rows=70,named_metrics.in_flight=0");
//! # Ok(())
//! # }
//! ```
//!
//! With axum it is a layer of the router, `Router::new().route(..).layer(layer)`; with tonic one of the server,
//! `Server::builder().layer(layer)`.
//!
//! # When to use it
//! On every server whose callers use mainstay, or send `grpc-timeout`. At the edge, where callers are strangers, take their word
//! on criticality from nobody: `ServerOptions::default().criticality_header(None)`.
//!
//! # What it does not do
//! It does not end a handler whose time runs out on the way: the clients in it do, and tonic's server does. A place in the limit
//! is kept until the head of the response.
//!
//! # Cost
//! Three look-ups in the headers and one clock read; of a limit what [`limit`](crate::limit) says. No allocation. Where the load is told, two
//! counters that all requests write, two clock reads more, and what it takes to write the report.

mod body;
mod future;
mod incoming;
mod layer;
mod load;
mod meter;
mod options;
mod refusal;

pub use body::Reported;
pub use future::ResponseFuture;
pub use layer::{Server, ServerLayer};
pub use load::{LoadRecorder, LoadReporter, Measured, Reporter};
pub use options::ServerOptions;
