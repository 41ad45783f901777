//! The `server` layer: by itself on a paused clock, on axum's servers before `hyper::Client`, on tonic's before `tonic::Client`.
#![allow(missing_docs)]

#[path = "server/alone.rs"]
mod alone;
#[path = "server/axum.rs"]
mod axum;
#[path = "wrap/greeter.rs"]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod greeter;
#[path = "server/load.rs"]
mod load;
#[path = "server/tonic.rs"]
mod tonic;
