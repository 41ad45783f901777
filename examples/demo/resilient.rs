//! mainstay's client, with its defaults.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use mainstay::{
    Invalid,
    resolve::{self, Feed},
    telemetry::Event,
};

use crate::client::{Client, Failed, HEADER, Who};

#[derive(Debug)]
pub(crate) struct Resilient {
    client: mainstay::hyper::Client,
    feed: Feed,
    events: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Resilient {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Result<Self, Invalid> {
        let (feed, fed) = resolve::channel();
        feed.set(addresses.iter().copied());
        let events = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = Arc::clone(&events);
        let client = mainstay::hyper::Client::builder("demo")
            .resolve(fed)
            .observe(move |_: &str, event: &Event| {
                let mut counts = counted.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.entry(event.kind().to_owned()).or_insert(0) += 1;
            })
            .build()?;
        Ok(Self { client, feed, events })
    }

    /// What the client thinks of each server, in a word: available, ejected, probing.
    pub(crate) fn states(&self) -> BTreeMap<SocketAddr, String> {
        let endpoints = self.client.status().balance.endpoints;
        let words = endpoints.iter().flat_map(|endpoint| {
            let sockets = endpoint.endpoint.address().sockets().first().copied();
            sockets.map(|address| (address, endpoint.word().to_owned()))
        });
        words.collect()
    }

    /// How often each kind of event has happened.
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client for Resilient {
    async fn send(&self) -> Result<(), Failed> {
        let request = Request::get("http://demo.internal/")
            .header(HEADER, Who::Mainstay.header())
            .body(Empty::<Bytes>::new())
            .map_err(|_| Failed)?;
        let response = self.client.send(request).await.map_err(|_| Failed)?;
        let status = response.status();
        response.into_body().collect().await.map_err(|_| Failed)?;
        if status.is_success() { Ok(()) } else { Err(Failed) }
    }

    fn update(&self, addresses: &[SocketAddr]) {
        self.feed.set(addresses.iter().copied());
    }

    fn attempts_in_vain(&self) -> u64 {
        // Connections are made off the way of requests: an attempt begins where one stands.
        0
    }
}
