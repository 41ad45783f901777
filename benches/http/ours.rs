//! The client of this crate with its defaults, and its transport alone.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use mainstay::{
    Endpoint,
    hyper::{Client, Connector, Transport},
    resolve,
};
use tower::{Service as _, service_fn};

use crate::case::{Case, Request, Servers};

pub(crate) fn case() -> Case {
    Case::new("mainstay", async |servers: Servers| {
        Client::builder("users").resolve(resolve::fixed(servers)).build().expect("sound options")
    })
}

/// Nothing but the transport, to the first server.
pub(crate) fn transport() -> Case {
    Case::new("transport", async |servers: Servers| {
        let mut connector = Connector::<Full<Bytes>>::default();
        let transport: Transport<Full<Bytes>> =
            connector.call(Arc::new(Endpoint::new(servers[0]))).await.expect("a connection");
        service_fn(move |request: Request| transport.clone().call(request))
    })
    .hidden()
}
