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
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let (well, gone) = (listener.local_addr()?, std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
//! # let app = axum::Router::new().route("/1", axum::routing::get(async || "Grace"));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! use mainstay::resolve;
//! use reqwest::{Client, Method, Request};
//!
//! let make = || Client::builder().user_agent("mast").retry(reqwest::retry::never()).no_proxy();
//! let users = mainstay::reqwest::builder("users", "users.internal", make)?
//!     .resolve(resolve::fixed([well, gone])) // or resolve::dns("users.internal:8080")
//!     .build()?;
//! let request = Request::new(Method::GET, "http://users.internal/1".parse()?);
//! let response: reqwest::Response = users.send(request).await?;
//! assert_eq!(response.text().await?, "Grace");
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! | what | default | where |
//! |---|---|---|
//! | all attempts and waits of a request | 10 s, to the head | `ClientBuilder::deadline` |
//! | one attempt | what is left, at most 3 s, to the head; your client's timeout to the end | `ClientBuilder::attempt_limit` |
//! | attempts of an idempotent request | 3, with waits of up to 25 ms, 50 ms | `ClientBuilder::retry` |
//! | idempotent are | GET, HEAD, OPTIONS, TRACE, PUT, DELETE, and what has an `Idempotency-Key` | [`Description`] |
//! | extra load by retries | 20 % of the successes over 10 s, and one in 10 s | `ClientBuilder::budget` |
//! | sent again are | bodies made of bytes, of any length | [`Description`] |
//! | a failure is | an error, 5xx; 429, and 503 with `Retry-After`, ask for time | [`Classifier`] |
//! | written onto requests | `x-attempt-count`, from the second attempt on | [`Description`] |
//! | hedges, limit, rate, throttle, breaker, checks | none | the builder's methods of these names |
//! | connections, TLS, HTTP/2, redirects | as your `reqwest::Client` is set, for each endpoint | your function |
//!
//! `ClientBuilder` is [`client::ClientBuilder`](crate::client::ClientBuilder). Which endpoint is picked, and when one is set aside, is
//! [`BalanceOptions`](crate::balance::BalanceOptions).
//!
//! # Errors and events
//! A `reqwest::Error` arrives as it is, in a box: `error.downcast_ref::<reqwest::Error>()`. What mainstay refuses or cuts off is an
//! [`Error`](crate::Error), found by [`Error::find`](crate::Error::find); a request for another host is an
//! [`Unsendable`](crate::http::Unsendable). What changes is an [`Event`](crate::telemetry::Event) to whoever
//! [`observe`](crate::Client::observe)s, and to `tracing`.
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
//! # Do and don't
//! - Do turn reqwest's retries off, and set `no_proxy`, as above.
//! - Do write the logical name into URLs. Don't write an endpoint's address.
//! - Do set [`pool_max_idle_per_host`](::reqwest::ClientBuilder::pool_max_idle_per_host) with many endpoints: each has a pool.
//! - Don't send through the `reqwest::Client` itself (`client.get(url).send()`): that goes past everything here.
//! - Don't set a timeout in your client that is shorter than the attempt limit and expect another reason than reqwest's.
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
