//! HTTP over hyper: the client with everything in it, and the transport below it.
//!
//! # Problem
//! hyper sends a request on a connection. Its pooled client looks a name up, dials one address of it, and stays there: requests are
//! not spread over the instances, a bad one is not noticed, and nothing is tried again elsewhere.
//!
//! # Idea
//! [`Client`] is mainstay's client over one pool of connections for each endpoint. [`Connector`] makes a [`Transport`] to an
//! endpoint, and answers when a connection stands, so that a balancer gives a
//! request only to an endpoint that can be reached. The transport always dials its endpoint, whatever the URI says; the
//! URI and the `Host` header say what the server is asked for, and reach it as the caller wrote them.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let (well, gone) = (listener.local_addr()?, std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
//! # let app = axum::Router::new().route("/1", axum::routing::get(async || "Grace"));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http_body_util::{BodyExt as _, Empty};
//! use mainstay::{hyper::Client, resolve};
//!
//! // Of these two one answers; with `resolve::dns("users.internal:8080")` DNS says who they are.
//! let users = Client::builder("users").resolve(resolve::fixed([well, gone])).build()?;
//! let read = users.method("read").deadline(Duration::from_millis(500)); // a view: wishes of its own, all else shared
//! let request = http::Request::get("http://users.internal/1").body(Empty::<Bytes>::new())?;
//! let response = read.send(request).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "Grace");
//! assert_eq!(users.status().failures, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! | what | default | where |
//! |---|---|---|
//! | all attempts and waits of a request | 10 s | [`ClientBuilder::deadline`] |
//! | one attempt, to its head | what is left, at most 3 s | [`ClientBuilder::attempt_limit`] |
//! | attempts of an idempotent request | 3, with waits of up to 25 ms, 50 ms | [`ClientBuilder::retry`] |
//! | idempotent are | GET, HEAD, OPTIONS, TRACE, PUT, DELETE, and what has an `Idempotency-Key` | [`Client::idempotent`], `http::Idempotent` |
//! | extra load by retries | 20 % of the successes over 10 s, and one in 10 s | [`ClientBuilder::budget`] |
//! | bytes of a request's body kept for that | 64 KiB | [`ClientBuilder::replayed_body`] |
//! | a failure is | an error, 5xx; 429, and 503 with `Retry-After`, ask for time | [`ClientBuilder::classify`] |
//! | picked is | the best of four by requests in flight x mean latency | [`ClientBuilder::balance`] |
//! | set aside is | who fails five in a row, 6 of the last 20, or a fifth of 30 s: for 5 s, and longer each time | [`HealthOptions`](crate::health::HealthOptions) |
//! | the body of a response | as long as it likes | [`ClientBuilder::body`] |
//! | written onto requests | `x-attempt-count`, from the second attempt on | [`ClientBuilder::description`] |
//! | hedges, limit, rate, throttle, breaker, checks | none | the builder's methods of these names |
//! | connections | HTTP/1.1, 100 for an endpoint | [`ConnectorOptions`] |
//!
//! # Errors and events
//! What the transport says arrives as it is: an error of hyper, or an answer of whatever status. What mainstay refuses or cuts off is an
//! [`Error`](crate::Error), found by [`Error::find`](crate::Error::find): its reason, whether anything was
//! sent, and when to come back. A request that the transport cannot send is an [`Unsendable`](crate::http::Unsendable). What
//! changes (an endpoint set aside or back, a connection lost, an empty budget) is an [`Event`](crate::telemetry::Event) to whoever
//! [`observe`](Client::observe)s, and to `tracing`.
//!
//! # Do and don't
//! - Do make one client for a name and clone it. Don't make one for each request.
//! - Do read a response's body to its end, or drop it: until then the request is in flight, and under HTTP/1.1 has a connection.
//! - Do keep [`idle_connection`](ConnectorOptions::idle_connection) below what the servers keep. Don't raise it to save dials.
//! - Don't set the attempt limit to the deadline: a server that hangs then costs all of it.
//! - Don't follow redirects, keep cookies or decompress here: that is for the client above, or for `mainstay::reqwest`.
//!
//! `docs/COOKBOOK.md` has recipes, whole.
//!
//! # The transport alone
//!
//! Any place that takes a `MakeService` of endpoints takes a `Connector`. The caller bounds how long a connect may take.
//! Connectors and transports are called within a tokio runtime that has I/O and time.
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use http_body_util::Empty;
//! use mainstay::{Endpoint, hyper::{Connector, ConnectorOptions}};
//! use tower::{BoxError, Service as _, ServiceExt as _};
//!
//! async fn ask(endpoint: Endpoint) -> Result<http::StatusCode, BoxError> {
//!     let options = ConnectorOptions::default().connections_per_endpoint(10);
//!     let mut connector = Connector::<Empty<Bytes>>::new(options)?;
//!     let transport = connector.call(Arc::new(endpoint)).await?;
//!     let request = http::Request::get("http://users.internal/1").body(Empty::new())?;
//!     Ok(transport.oneshot(request).await?.status())
//! }
//! ```
//!
//! # TLS
//! With the feature `tls`, and `ConnectorOptions::tls`: the one logical server that all endpoints must prove to be, by the roots of
//! Mozilla, of the machine, or of your own `rustls::ClientConfig`, which may hold a client certificate as well. With
//! [`Protocol::Negotiated`] HTTP/2 is spoken where the endpoint wants it. A request for `http` over TLS, or for `https`
//! without, is refused with [`Unsendable::Scheme`](crate::http::Unsendable).
//!
//! # Why not the pooled client of hyper-util
//!
//! It keeps a pool for each authority and dials in the background when a request finds no idle connection, so the number
//! of connections to one endpoint has no bound; and a connection made in advance cannot be handed to it. Here an endpoint
//! has one pool, a connection is made only when every other one is in use, and what hyper hands back unsent is known to be
//! unsent.
//!
//! # What is kept of each connection
//!
//! HTTP/1.1 connections are closed after a time without a request, HTTP/2 connections are asked whether they still live, and
//! the system is told to ask on behalf of all: a connection whose other end is gone without a word is found in seconds.
//! [`ConnectorOptions`] has the times. HTTP/2 has one connection for an endpoint, and a second beside it when four fifths of the streams are
//! open that the server allows; that one is closed when the load is gone. Where connections have a [`max_age`](ConnectorOptions::max_age), those
//! that are older do what they have and are closed.
//!
//! # What it costs
//!
//! One boxed future per request; under HTTP/1.1 a task that waits for the connection to become idle again when the
//! response has a body; under HTTP/2 two more allocations, by which a stream counts as open until its body was read. The
//! `http` benchmark has it beside hyper's own pooled client.

mod body;
mod client;
mod connector;
mod dial;
mod http1;
mod http2;
mod options;
mod stream;
mod streams;
#[cfg(all(test, not(mainstay_loom)))]
#[path = "streams_tests.rs"]
mod streams_tests;
mod target;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod transport;

pub use body::{Body, BodyError};
pub use client::{Client, ClientBuilder, ClientFuture};
pub use connector::{Connecting, Connector};
pub use options::{ConnectorOptions, Protocol};
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use transport::{Transport, TransportFuture};
