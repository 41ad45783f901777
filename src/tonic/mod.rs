//! Generated tonic clients over the instances behind a name.
//!
//! # Problem
//! A tonic channel is one connection, and always looks ready: while its server is gone it takes calls and fails them. Its own
//! balancer sees no load and no health, so it picks at random, the dead included.
//!
//! # Idea
//! One channel for each endpoint, made of *your* [`Endpoint`](::tonic::transport::Endpoint), under mainstay's client. The URI
//! of that endpoint is the logical name: it is what `:authority` says and what the certificate of a TLS server must be for,
//! whichever address is dialled. Connections are made ahead of calls, with backoff; one that is lost is noticed by the
//! calls it fails, which go elsewhere unsent, and is made again behind their back. What a call was worth is read from its
//! `grpc-status`, in the headers or at the end of the stream ([`grpc`](crate::grpc)).
//!
//! ```
//! use mainstay::{describe, resolve, tonic::Client};
//!
//! # // What `tonic-build` generates of a service `greeter.Greeter`, as far as it matters here.
//! # struct GreeterClient<T>(T);
//! # impl<T> GreeterClient<T>
//! # where
//! #     T: tonic::client::GrpcService<tonic::body::Body>,
//! #     T::Error: Into<tower::BoxError>,
//! # {
//! #     fn new(inner: T) -> Self { Self(inner) }
//! # }
//! # fn main() -> Result<(), tower::BoxError> {
//! let client = Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal")?)
//!     .resolve(resolve::dns("greeter.internal:50051"))
//!     .idempotent_methods(["greeter.Greeter/SayHello"])
//!     .build()?;
//! let greeter = GreeterClient::new(client.clone()); // the generated client
//! # let _ = greeter;
//! # Ok(())
//! # }
//! ```
//!
//! # What a call is given, and what comes of it
//!
//! - **Deadline**: the client's (10 s), what is inherited, and what the call was given by `Request::set_timeout`: the
//!   earliest stands for all its attempts, and what is left goes out as `grpc-timeout`.
//! - **Retries**: calls of the methods that were said to be idempotent, and of any method what was never processed: a
//!   connection that could not be made, REFUSED_STREAM, a refusal by mainstay's `server` layer. A copy of up to 64 KiB of
//!   what is sent is kept for that, of streams too. Once the head is there the answer is the caller's: a stream that breaks off is not
//!   begun again, but its endpoint is held to account. Unary failures arrive as a head, and are repeated.
//! - **Errors**: what mainstay refuses is a [`Status`](::tonic::Status) of the code in the table. The
//!   [`Error`](crate::Error) is found in it by [`Error::find`](crate::Error::find), and `grpc-retry-pushback-ms` in its metadata says when to
//!   come back, where that is known. Statuses of servers arrive as they are.
//!
//! | reason | code |
//! |---|---|
//! | `Deadline` | DEADLINE_EXCEEDED |
//! | `Limit`, `QueueFull`, `RateLimit`, `Throttled`, `NotReady`, `BackingOff` | RESOURCE_EXHAUSTED |
//! | `Unresolved`, `Absent`, `NoEndpoint`, `Connect`, `Breaker`, `AttemptTimeout`, `Stalled` | UNAVAILABLE |
//! | `Closed` | CANCELLED |
//! | `NoRuntime` | INTERNAL |
//! | none: the connection broke, before the answer or in the middle of it | UNAVAILABLE |
//!
//! # Defaults
//!
//! | what | default | where |
//! |---|---|---|
//! | all attempts and waits of a call | 10 s, or what the call or the service config says | [`ClientBuilder::deadline`] |
//! | one attempt, to its head | what is left, at most 3 s | [`ClientBuilder::attempt_limit`] |
//! | attempts of a method that may be repeated | 3, with waits of up to 25 ms, 50 ms | [`ClientBuilder::retry`] |
//! | methods that may be repeated | none | [`ClientBuilder::idempotent_methods`], [`Client::idempotent`] |
//! | extra load by retries | 20 % of the successes over 10 s, and one in 10 s | [`ClientBuilder::budget`] |
//! | bytes of what is sent kept for that | 64 KiB | [`ClientBuilder::replayed_body`] |
//! | a failure is | a status that is the server's fault; RESOURCE_EXHAUSTED asks for time | [`grpc::Classifier`](crate::grpc::Classifier) |
//! | picked is | the best of four by calls in flight x mean latency | [`ClientBuilder::balance`] |
//! | a stream | as long as it likes | [`ClientBuilder::body`] |
//! | hedges, limit, rate, throttle, breaker, checks, watch | none | the builder's methods of these names |
//! | connections | one for an endpoint, as your `Endpoint` is set | [`endpoint`], [`Connector`] |
//!
//! What changes (an endpoint set aside or back, a connection lost, an empty budget) is an [`Event`](crate::telemetry::Event) to
//! whoever [`observe`](Client::observe)s, and to `tracing`.
//!
//! # Service config
//! What a gRPC [`ServiceConfig`](crate::grpc::ServiceConfig) says is done from [`ClientBuilder::service_config`] or
//! [`Client::update_config`] on, method by method:
//!
//! - `timeout` stands in place of the client's deadline; the earlier of it, a view's deadline and the call's own is kept.
//! - `retryPolicy` and `hedgingPolicy` stand in place of the client's retries and hedges. Whoever wrote the document knows that
//!   its methods may be repeated, so they are, after those codes and no others; a caller's word that they must not be
//!   ([`Client::not_idempotent`]) is above it. A connection that breaks, and an attempt limit, count as UNAVAILABLE; so
//!   does, for a hedged method, each end without an answer. A method of which the document says neither is repeated as the
//!   client is set to.
//! - `retryThrottling` makes the budget, [`Budget::grpc`](crate::budget::Budget::grpc), unless one is shared. Without it the client's own budget bounds
//!   retries and hedges, where gRPC would have no bound.
//! - `loadBalancingConfig` sets the balancing options, as [`LoadBalancing`](crate::grpc::LoadBalancing) says.
//! - `healthCheckConfig` has each endpoint listened to, as [`watch`](ClientBuilder::watch) does, for the service that it names. gRPC keeps an
//!   endpoint out for as long as it says that it does not serve, and until it has said that it does; here requests
//!   [are the better witness](crate::health).
//! - `waitForReady` is read and changes nothing: calls always wait for an endpoint, within the bounds of the options.
//!
//! Interceptors go around the client (`GreeterClient::with_interceptor(client, ..)`) and run once for a call, not once for
//! an attempt. [`Endpoint::timeout`](::tonic::transport::Endpoint::timeout) bounds an attempt, as
//! [`attempt_limit`](ClientBuilder::attempt_limit) does.
//!
//! A config that DNS keeps in a TXT record is handed on by
//! [`Dns::service_configs`](crate::resolve::Dns::service_configs), which is off by default as in gRPC. The first look-up is
//! made by the first call, when the client is there to take it:
//!
//! ```
//! use std::sync::{Arc, OnceLock};
//! use mainstay::{grpc::ServiceConfig, resolve::{self, ServiceConfigs}, tonic::Client};
//!
//! # fn main() -> Result<(), tower::BoxError> {
//! let client = Arc::new(OnceLock::<Client>::new());
//! let taken = client.clone();
//! let configs = ServiceConfigs::new(move |json: Option<&str>| {
//!     let Some((client, json)) = taken.get().zip(json) else { return };
//!     if let Err(error) = ServiceConfig::parse(json).and_then(|config| client.update_config(&config)) {
//!         eprintln!("the service config stays as it was: {error}");
//!     }
//! });
//! let greeters = Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal")?)
//!     .resolve(resolve::dns("greeter.internal:50051").service_configs(configs))
//!     .build()?;
//! let _ = client.set(greeters);
//! # Ok(())
//! # }
//! ```
//!
//! # When to use it
//! For any tonic client of more than one server, and of one that is restarted now and then. Not over `Channel::balance_list`: two
//! balancers see half each.
//!
//! # Do and don't
//! - Do name the methods that may be repeated: gRPC has no GET, so none is without.
//! - Do hold streams only as long as they are needed: each counts as in flight, and picks go by that.
//! - Don't set the attempt limit to the deadline: a server that hangs then costs all of it.
//! - Don't write a retry interceptor or a `tower::retry` above: it multiplies, past the budget.
//! - Don't read `Status::code` for what was refused here: `Error::find` says which of the reasons of a code it was.
//!
//! # TLS
//! It is tonic's: turn one of its `tls-*` features on, and give the endpoint a `tls_config`. The name that is asked for and
//! verified is the host of the endpoint's URI.
//!
//! # Cost
//! tonic's channel has a queue and a task of its own. On top, each call boxes its body once more.

mod body;
mod channel;
mod client;
mod policy;
mod status;
mod transport;
mod watch;

pub use body::AnswerBody;
pub use channel::{Connecting, Connector, endpoint};
pub use client::{CallFuture, Client, ClientBuilder};
pub use transport::{Transport, TransportFuture};
