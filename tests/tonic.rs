//! `mainstay::tonic::Client` under a generated client, against tonic's own servers.
#![allow(missing_docs)]

#[path = "wrap/greeter.rs"]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod greeter;
#[path = "tonic/calls.rs"]
mod calls;
#[path = "tonic/config.rs"]
mod config;
#[path = "tonic/failures.rs"]
mod failures;
#[path = "tonic/half_open.rs"]
mod half_open;
#[path = "tonic/health.rs"]
mod health;
#[path = "tonic/server.rs"]
mod server;
#[path = "tonic/watch.rs"]
mod watch;
