//! hyper's own pooled client, with nothing around it: what one would use without this crate.
//!
//! Why not our transport: what it costs is part of what mainstay costs, and a floor made of it would hide that. The row
//! `transport` shows it, for those who ask.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::service_fn;

use crate::case::{Case, PATH, Request, Servers};

pub(crate) type Legacy = Client<HttpConnector, Full<Bytes>>;

/// To the two servers in turn: as many of them, and as many connections, as the others have.
pub(crate) fn case() -> Case {
    Case::new("bare", async |servers: Servers| {
        let (client, turn) = (client(), Arc::new(AtomicUsize::new(0)));
        let uris = servers.map(|server| uri(&server.to_string()));
        service_fn(move |mut request: Request| {
            *request.uri_mut() = uris[turn.fetch_add(1, Ordering::Relaxed) % uris.len()].clone();
            client.request(request)
        })
    })
}

pub(crate) fn client() -> Legacy {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// What is asked for at `server`: this client dials what the URI says.
pub(crate) fn uri(server: &str) -> Uri {
    format!("http://{server}{PATH}").parse().expect("a URI")
}
