//! The plain client: hyper's own, round robin over the servers, with a timeout.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use crate::client::{Client, Failed, HEADER, Who};

const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Plain {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    addresses: Mutex<Arc<[SocketAddr]>>,
    turn: AtomicUsize,
    refused: AtomicU64,
}

impl Plain {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http =
            legacy::Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Self {
            http,
            addresses: Mutex::new(addresses.into()),
            turn: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn next(&self) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses[self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len()]
    }

    async fn get(&self, address: SocketAddr) -> Result<(), Failed> {
        let request = Request::get(format!("http://{address}/"))
            .header(HEADER, Who::Plain.header())
            .body(Empty::new())
            .map_err(|_| Failed)?;
        let response = self.http.request(request).await.map_err(|error| {
            if error.is_connect() {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Failed
        })?;
        let status = response.status();
        response.into_body().collect().await.map_err(|_| Failed)?;
        if status.is_success() { Ok(()) } else { Err(Failed) }
    }
}

impl Client for Plain {
    async fn send(&self) -> Result<(), Failed> {
        timeout(TIMEOUT, self.get(self.next())).await.map_err(|_| Failed)?
    }

    fn update(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }

    fn attempts_in_vain(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
