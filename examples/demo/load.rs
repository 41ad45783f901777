//! The load: requests that start when they are due, however the earlier ones fare.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mainstay::random::{Random as _, Seeded};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{client::Client, script, tally::Tally};

/// Requests a second, for each client.
pub(crate) const RATE: f64 = 400.0;

/// How long the last requests may take after the end of the script; what is open by then has failed.
const GRACE: Duration = Duration::from_millis(1_500);

const _: () = assert!(script::END.as_millis() + GRACE.as_millis() < 29_000, "--help promises 29 seconds");

/// Sends both clients the same load until the script ends: arrivals are random, at [`RATE`] on average, and the same
/// in every run.
pub(crate) async fn send<P: Client, M: Client>(
    start: Instant,
    (plain, plain_tally): (Arc<P>, Arc<Tally>),
    (mainstay, mainstay_tally): (Arc<M>, Arc<Tally>),
) {
    let chance = Seeded::new(1);
    let mut planned = start;
    let mut requests = JoinSet::new();
    for turn in 0_u64.. {
        let unit = (chance.next() >> 11) as f64 / (1_u64 << 53) as f64;
        planned += Duration::from_secs_f64(-(1.0 - unit).ln() / RATE);
        if planned >= start + script::END {
            break;
        }
        sleep_until(planned.into()).await;
        let one = request(Arc::clone(&plain), Pending::new(&plain_tally, planned));
        let other = request(Arc::clone(&mainstay), Pending::new(&mainstay_tally, planned));
        // Whoever comes second finds the machine a little busier.
        if turn.is_multiple_of(2) {
            requests.spawn(one);
            requests.spawn(other);
        } else {
            requests.spawn(other);
            requests.spawn(one);
        }
        while requests.try_join_next().is_some() {}
    }
    let _ = timeout(GRACE, async { while requests.join_next().await.is_some() {} }).await;
    requests.shutdown().await;
}

async fn request<C: Client>(client: Arc<C>, mut pending: Pending) {
    pending.succeeded = client.send().await.is_ok();
}

/// A request under way. It is counted when it ends, in whatever way: one that is given up has failed.
struct Pending {
    tally: Arc<Tally>,
    planned: Instant,
    succeeded: bool,
}

impl Pending {
    fn new(tally: &Arc<Tally>, planned: Instant) -> Self {
        Self { tally: Arc::clone(tally), planned, succeeded: false }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.tally.record(self.planned, self.succeeded);
    }
}
