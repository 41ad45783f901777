//! Servers that were not written in Rust: nginx, HAProxy, and the gRPC library for Python. Where one is not installed its tests say so
//! and pass, except where `CI` is set.
#![allow(missing_docs)]

#[path = "wrap/greeter.rs"]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod greeter;
#[path = "peers/grpcio.rs"]
mod grpcio;
#[path = "peers/grpcio_client.rs"]
mod grpcio_client;
#[path = "peers/haproxy.rs"]
mod haproxy;
#[path = "peers/load.rs"]
mod load;
#[path = "peers/nginx.rs"]
mod nginx;
#[path = "peers/process.rs"]
mod process;
