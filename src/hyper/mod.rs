//! The transport over hyper: one pool of connections for each endpoint.
//!
//! [`Connector`] makes a [`Transport`] to an endpoint, and answers when a connection stands, so that a balancer gives a
//! request only to an endpoint that can be reached. The transport always dials its endpoint, whatever the URI says; the
//! URI and the `Host` header say what the server is asked for, and reach it as the caller wrote them.
//!
//! # Use
//!
//! Any place that takes a `MakeService` of endpoints takes a `Connector`. The caller bounds how long a connect may take.
//! Connectors and transports are called within a tokio runtime that has I/O and time.
//!
//! # TLS
//! With the feature `tls`, and `ConnectorOptions::tls`: the one logical server that all endpoints must prove to be, by the roots of
//! Mozilla, of the machine, or of your own `rustls::ClientConfig`, which may hold a client certificate as well. With
//! [`Protocol::Negotiated`] HTTP/2 is spoken where the endpoint wants it. A request for `http` over TLS, or for `https`
//! without, is refused with [`Unsendable::Scheme`](crate::http::Unsendable).
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
//! response has a body; under HTTP/2 two more allocations, by which a stream counts as open until its body was read.

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
