//! Clients that others wrote, run on the balancer: a generated tonic client and a `reqwest::Client`.

#[path = "wrap/generated.rs"]
mod generated;
#[path = "wrap/greeter.rs"]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod greeter;
#[path = "wrap/greeter_server.rs"]
mod greeter_server;
#[path = "wrap/grpc.rs"]
mod grpc;
#[path = "wrap/rest.rs"]
mod rest;
