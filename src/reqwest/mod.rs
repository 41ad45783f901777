//! Your own `reqwest::Client` over the instances behind a name: requests and responses stay reqwest's.
//!
//! # Problem
//! reqwest looks a name up, dials one of its addresses, and stays with that connection: it neither spreads requests over the
//! instances nor notices a bad one. Writing an instance's address into the URL breaks the `Host` header and the name that
//! TLS asks for.
//!
//! # Idea
//! One `reqwest::Client` for each endpoint, made by *your* function, in which the one name that is served means that endpoint:
//! [`resolve_to_addrs`](::reqwest::ClientBuilder::resolve_to_addrs). The URL stays as it was written, and with it `Host`, the
//! name in TLS, cookies and redirects.
//!
//! ```
//! use mainstay::resolve;
//! use reqwest::{Client, Method, Request};
//!
//! # async fn example() -> Result<(), tower::BoxError> {
//! let users = mainstay::reqwest::builder("users", "users.internal", || Client::builder().user_agent("mast"))?
//!     .resolve(resolve::dns("users.internal:8080"))
//!     .build()?;
//! let request = Request::new(Method::GET, "http://users.internal/1".parse()?);
//! let response: reqwest::Response = users.send(request).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **Requests** are for the host that is served; one for another is refused as [`Unsendable`](crate::http::Unsendable). Build
//!   them with any `reqwest::Client`: `client.post(url).json(&user).build()?`.
//! - **Ports** are the endpoint's. If the URL names another one it is taken out of the URL and written into `Host`, so the server
//!   sees what you wrote. Leave it out of URLs where redirects lead to other hosts: reqwest would take that `Host` along.
//! - **Redirects** are followed by reqwest, as your client is set: those to the same host stay with the endpoint, those to
//!   others are looked up as ever, outside of this client's care.
//! - **Retries** of reqwest's own stay what your client says, and are seen by nobody here: set
//!   [`retry(reqwest::retry::never())`](::reqwest::ClientBuilder::retry).
//! - **Proxies** are asked instead of endpoints: set [`no_proxy`](::reqwest::ClientBuilder::no_proxy) where the environment
//!   names one.
//! - **Timeouts** of your client bound each attempt, to the end of its body; mainstay's deadline and attempt limit end with the head.
//! - **Bodies**: those made of bytes are sent again, streams are sent once. A response is in flight until its body ends or is
//!   dropped, and a body that breaks off is a failure of its endpoint.
//! - **The word on one request** that the extensions of an `http::Request` carry has no place in a `reqwest::Request`, whose
//!   extensions are hidden. Use a view ([`Client::idempotent`](crate::Client::idempotent)), or the header `Idempotency-Key`.
//!
//! # When to use it
//! When you have a `reqwest::Client` that does what you want: TLS, cookies, compression, JSON. Without one, `mainstay::hyper` connects
//! ahead of requests, and bounds the connections.
//!
//! # Cost
//! A pool of connections for each endpoint; two boxes and a lock that nobody meets at for each response, to follow its body.

mod classify;
mod connect;
mod describe;
mod follow;
mod transport;

pub use classify::Classifier;
pub use connect::{Connect, builder};
pub use describe::Description;
pub use follow::{Follow, FollowFuture};
pub use transport::{Transport, TransportFuture};
