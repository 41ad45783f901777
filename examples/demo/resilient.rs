//! The client this crate is about, with its defaults.
//!
//! STAND-IN: for the time being this only exercises the demo; `mainstay::hyper::Client` takes its place.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::client::{Client, Failed, HEADER, Who};

#[derive(Debug)]
pub(crate) struct Resilient {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    addresses: Mutex<Arc<[SocketAddr]>>,
    turn: AtomicUsize,
    refused: AtomicU64,
    failures: AtomicU64,
}

impl Resilient {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
            addresses: Mutex::new(addresses.into()),
            turn: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// What the client thinks of each server, in a word: available, ejected, probing.
    pub(crate) fn states(&self) -> BTreeMap<SocketAddr, String> {
        let addresses = Arc::clone(&self.addresses.lock().unwrap_or_else(PoisonError::into_inner));
        addresses.iter().map(|address| (*address, "available".to_owned())).collect()
    }

    /// How often each kind of event has happened.
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("failure".to_owned(), self.failures.load(Ordering::Relaxed))])
    }

    async fn get(&self, address: SocketAddr) -> Result<(), Failed> {
        let request = Request::get(format!("http://{address}/"))
            .header(HEADER, Who::Mainstay.header())
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

impl Client for Resilient {
    async fn send(&self) -> Result<(), Failed> {
        let address = {
            let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses[self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len()]
        };
        let result = self.get(address).await;
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn update(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }

    fn attempts_in_vain(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
