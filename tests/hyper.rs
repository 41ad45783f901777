//! `mainstay::hyper::Client` against servers on loopback sockets.
#![allow(missing_docs)]

#[path = "hyper/bodies.rs"]
mod bodies;
#[path = "hyper/client.rs"]
mod client;
#[path = "hyper/failures.rs"]
mod failures;
#[path = "hyper/half_open.rs"]
mod half_open;
#[path = "hyper/killed.rs"]
mod killed;
#[path = "hyper/server.rs"]
mod server;
