//! Client-side resilience as tower layers: discovery, balancing, health, deadlines, retries and budgets, around your
//! own client.
//!
//! # Problem
//! A name stands for many instances, and at any moment some of them are slow, dead, overloaded, redeployed or gone. A
//! client that sends to them in turn makes each of their troubles its caller's. The parts that help (a balancer, a
//! timeout, a retry) make new troubles where they do not know of each other: a fast failure looks like a fast server,
//! and three tries for each request bury a fleet that was only busy.
//!
//! # Idea
//! One client holds all of it together. Each answer is judged once, and that one verdict moves the load estimate, the
//! health of the endpoint, the retry and its budget alike. The endpoint is picked when the request is sent, each attempt
//! anew. The deadline is one point in time for everything, and there is one timer for it. The way of a request that goes
//! well is made of atomics: no lock, no channel, no task, no allocation but the copy that a retry may need.
//!
//! # Four levels of use
//! Each is built from the next one down, and adds nothing that is not reachable there.
//!
//! **1. A whole client** over hyper, with the feature `hyper`: a name, and the rest is defaults. See `mainstay::hyper::Client`.
//!
#![cfg_attr(feature = "hyper", doc = "```")]
#![cfg_attr(not(feature = "hyper"), doc = "```ignore")]
//! # use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let port = listener.local_addr()?.port();
//! # tokio::spawn(async move {
//! #     let (mut stream, _) = listener.accept().await?;
//! #     stream.read(&mut [0; 1024]).await?;
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await
//! # });
//! # let name = format!("127.0.0.1:{port}");
//! use http_body_util::Empty;
//!
//! // `name` is a host and a port: "users.internal:8080".
//! let users = mainstay::hyper::Client::builder("users").resolve(mainstay::resolve::dns(name)).build()?;
//! let request = http::Request::get("http://users.internal/1").body(Empty::<bytes::Bytes>::new())?;
//! assert_eq!(users.send(request).await?.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! **2. Your own transport** under the same client: any service that can be cloned, and a word on what it carries. See
//! [`client`].
//!
//! ```
//! use mainstay::{Client, Endpoint, describe::Idempotent, resolve};
//! use tower::{BoxError, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let squares = Client::builder("squares")
//!     .resolve(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
//!     .connect(|_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, BoxError>(n * n) }))
//!     .describe(Idempotent)
//!     .build()?;
//! assert_eq!(squares.send(12).await?, 144);
//! # Ok(())
//! # }
//! ```
//!
//! **3. Only the parts**, as layers in any tower stack. See [`deadline`], [`retry`], [`breaker`], [`limit`] and
//! [`balance`].
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{Endpoint, balance::Balance, deadline::DeadlineLayer, describe::Idempotent, resolve};
//! use mainstay::retry::{RetryLayer, RetryPolicy};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let balance = Balance::new(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]), |_: &Endpoint| {
//!     service_fn(|word: String| async move { Ok::<_, BoxError>(word.len()) })
//! });
//! let lengths = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(1)))
//!     .layer(RetryLayer::new(RetryPolicy::default())?.describe(Idempotent))
//!     .service(balance);
//! assert_eq!(lengths.oneshot("mast".to_owned()).await?, 4);
//! # Ok(())
//! # }
//! ```
//!
//! In another task write `tokio::spawn(lengths.oneshot(word))`, or `ready().await?.call(word)` in the task: an `async` block that
//! awaits `oneshot` of layers whose error is a `BoxError` meets a limit of the compiler there ("implementation of `From` is not
//! general enough"), tower's own layers as much as these.
//!
//! **4. Only an algorithm**, a plain type that takes the time as an argument: no tower, no runtime. See [`estimate`],
//! [`budget`], [`backoff`], [`breaker`] and [`health`].
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{Outcome, clock, estimate::SuccessRate};
//!
//! let now = clock::now();
//! let rate = SuccessRate::over(Duration::from_secs(30), now);
//! rate.record(now, Outcome::Success);
//! rate.record(now, Outcome::Failure);
//! assert_eq!(rate.rate(now), Some(0.5));
//! ```
//!
//! # Where things are
//!
//! | to | look into |
//! |---|---|
//! | build a client, ask it what it knows, change its options | [`client`]; over HTTP `hyper` or `reqwest`; over gRPC `tonic` |
//! | tell where the instances are | [`resolve`], [`endpoint`]; in etcd and ZooKeeper `registry` |
//! | be found: tell a registry where this instance is | `announce` |
//! | choose between them, and set bad ones aside | [`balance`], [`health`] |
//! | bound time, tries and extra load | [`deadline`], [`retry`], [`hedge`], [`budget`], [`backoff`] |
//! | stop calling what fails | [`breaker`] |
//! | bound what runs at a time, or goes in a time; throttle, shed | [`limit`], [`limit::rate`], [`limit::throttle`], [`limit::quota`] |
//! | say what a request is and what an answer means | [`describe`], [`outcome`], [`track`]; for HTTP `http`, for gRPC `grpc` |
//! | pass a deadline from a server on to its clients | `server`, [`context`] |
//! | be told what happens | [`telemetry`] |
//! | read what was refused, and why | [`error`] |
//! | test with a set clock and set chance | [`clock`], [`random`] |
//! | try a policy in an outage | `testing` |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `http` | off | the module `http`: description, classification and replayable bodies for the types of the `http` crate |
//! | `grpc` | off | the module `grpc`: the same for gRPC calls, with their status in headers or trailers; implies `http` |
//! | `tonic` | off | the module `tonic`: what generated tonic clients run on; implies `grpc` |
//! | `reqwest` | off | the module `reqwest`: your own `reqwest::Client` for each endpoint; implies `http` |
//! | `server` | off | the module `server`: a layer that reads what clients say of a request and refuses what is late or too much; implies `grpc` |
//! | `dns` | off | names through DNS itself, with the records' own times, and SRV: `resolve::dns`, `resolve::srv`; implied by `hyper`, `reqwest` and `tonic` |
//! | `file` | off | endpoints from files (`resolve::file`), and the last good ones kept in one (`ResolveExt::saved`) |
//! | `etcd` | off | endpoints from etcd (`resolve::etcd`), and `announce` there; TLS with the feature `tls` |
//! | `zookeeper` | off | endpoints from ZooKeeper (`resolve::zookeeper`): serversets, Nerve; and `announce` there |
//! | `kubernetes`, `consul`, `eureka` | off | services in these registries, over HTTP: the functions of these names in `resolve`; tested against stand-ins only |
//! | `redis` | off | `limit::quota::Redis`: a rate that a fleet of processes shares |
//! | `testing` | off | the module `testing`: a virtual fleet on tokio's paused clock, and a layer that makes trouble |
//! | `hyper` | off | the module `hyper`: a pooled HTTP/1.1 and HTTP/2 transport, and the client over it; implies `http` |
//! | `tls` | off | TLS in `hyper`, by rustls with ring, and to etcd if that is on; implies `hyper` |

#![forbid(unsafe_code)]

mod alarm;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
pub mod announce;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod client;
pub mod clock;
pub mod context;
pub mod deadline;
pub mod describe;
pub mod endpoint;
pub mod error;
pub mod estimate;
mod gated;
#[cfg(feature = "grpc")]
pub mod grpc;
mod hash;
pub mod health;
pub mod hedge;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
mod invalid;
mod keyed;
pub mod limit;
pub mod outcome;
pub mod random;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
pub mod registry;
pub mod report;
#[cfg(feature = "reqwest")]
pub mod reqwest;
pub mod resolve;
pub mod retry;
#[cfg(feature = "server")]
pub mod server;
mod sync;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tonic")]
pub mod tonic;
pub mod track;

pub use client::Client;
pub use describe::Describe;
pub use endpoint::Endpoint;
pub use error::{Error, Reason};
pub use invalid::{Invalid, Problem, Ratio};
pub use keyed::KeyOptions;
pub use outcome::{Classify, Outcome, Verdict};
pub use track::Track;

/// The examples of the README, held to compile and run.
#[cfg(all(
    doctest,
    feature = "hyper",
    feature = "reqwest",
    feature = "server",
    feature = "tonic",
    feature = "testing"
))]
#[doc = include_str!("../README.md")]
pub struct ReadMe;

/// The example of the page on other layers, held to compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/INTERPLAY.md")]
pub struct Interplay;

/// The recipes of the cookbook, held to compile and run.
#[cfg(all(
    doctest,
    feature = "file",
    feature = "hyper",
    feature = "redis",
    feature = "reqwest",
    feature = "server",
    feature = "tonic"
))]
#[doc = include_str!("../docs/COOKBOOK.md")]
pub struct Cookbook;
