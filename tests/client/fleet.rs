//! Clients of the stage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use mainstay::{
    Ratio,
    backoff::Backoff,
    budget::BudgetOptions,
    client::ClientBuilder,
    describe::Idempotent,
    random::Seeded,
    resolve::{Resolution, Resolve},
    retry::RetryPolicy,
};

pub(crate) use crate::stage::{Conn, Gate, Heard, Mode, Reply, Stage, fed, ms, now, reason, secs, settle};

pub(crate) type Client = mainstay::Client<Conn, u32>;

/// A client for requests that may be repeated.
pub(crate) fn builder(stage: &Stage, resolver: impl Resolve) -> ClientBuilder<Conn, u32> {
    Client::builder("users")
        .resolve(resolver)
        .connect(stage.connect())
        .describe(Idempotent)
        .random(Seeded::new(7))
}

pub(crate) fn client(stage: &Stage, resolver: impl Resolve) -> Client {
    builder(stage, resolver).build().unwrap()
}

/// A budget of nothing but a reserve.
pub(crate) fn reserve(reserve: u32) -> BudgetOptions {
    BudgetOptions::default().share(Ratio::ZERO).reserve(reserve)
}

/// So many attempts, with the same wait before each.
pub(crate) fn every(wait: Duration, attempts: u32) -> RetryPolicy {
    RetryPolicy::default()
        .max_attempts(attempts)
        .backoff(Backoff::fixed(wait).jitter(mainstay::backoff::Jitter::None))
}

pub(crate) fn at_once(attempts: u32) -> RetryPolicy {
    every(Duration::ZERO, attempts)
}

/// Sends so many requests, some of them at a time; returns how many failed.
pub(crate) async fn load(client: &Client, concurrency: usize, requests: u32) -> usize {
    let sent = stream::iter(0..requests).map(|number| client.send(number)).buffer_unordered(concurrency);
    sent.filter(|reply| std::future::ready(reply.is_err())).count().await
}

/// Has this server fail until it is ejected.
pub(crate) async fn eject(stage: &Stage, client: &Client, name: &str) {
    stage.server(name).set(Mode::Fail(ms(1)));
    let once = client.clone().max_attempts(1);
    for _ in 0..2_000 {
        load(&once, 8, 16).await;
        if client.status().balance.endpoints.iter().any(|row| &*row.name == name && row.word() == "ejected") {
            return settle().await;
        }
    }
    panic!("{name} is never ejected: {:?}", client.status());
}

/// Resolves to one endpoint, and tells when it is dropped.
pub(crate) struct Told(Option<Resolution>, Arc<AtomicBool>);

impl Resolve for Told {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.0.take().map_or(Poll::Pending, |resolution| Poll::Ready(Some(resolution)))
    }

    fn describe(&self) -> String {
        "told".to_owned()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.1.store(true, SeqCst);
    }
}

pub(crate) fn told() -> (Told, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Told(Some(Resolution::bound(["a:1"])), dropped.clone()), dropped)
}
