//! What the clients of one process tell each other of the endpoints that they have in common.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use super::member::Member;
use crate::{
    clock,
    endpoint::Identity,
    health::{Transition, Trip},
    sync::{Mutex, lock},
};

/// Has several clients of one process tell each other when an endpoint that they have in common is dead, or asks to be left
/// alone; handed to the builder of each.
///
/// Endpoints are the same by their identity, and by the name of the [transport](Self::over): what is dead over one may be well
/// over another. What is told is evidence, and no verdict:
///
/// | one client | the others |
/// |---|---|
/// | ejects it for too many failures in a row | put it in probation: the next request that may safely be repeated decides, and without one it returns after as long as the ejection lasts, at most [`probe_wait`](crate::health::HealthOptions::probe_wait) |
/// | is asked to leave it alone | leave it alone for as long, at most [`back_off`](crate::health::HealthOptions::back_off) |
///
/// A client believes none of it where a request of its own has succeeded within the last tenth to fifth of
/// [`window`](crate::health::HealthOptions::window), or when it has the endpoint set aside anyway. Suspicion is a judgement: the cap of ejections holds for
/// it. It holds also for what only others were asked to leave alone, together with all that is out, whatever for: so nobody is left with
/// nothing by what servers have said to somebody else. A client whose every request fails by its own fault costs another at most one probe,
/// or a second of rest, for each of its own
/// ejections, and only at endpoints that the other has not just had an answer from.
///
/// Not shared: judgements (rates, comparison, checks), what somebody does by hand, connections, latencies, the way back, and what
/// was only heard.
///
/// It holds no client and no endpoint: both end with their last user.
///
/// ```
/// # use mainstay::{Endpoint, balance::{Balance, SharedHealth}, resolve};
/// # use tower::{BoxError, service_fn};
/// let shared = SharedHealth::new();
/// let client = |shared: &SharedHealth| {
///     Balance::builder(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
///         .connect(|_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, BoxError>(n) }))
///         .share_health(shared.over("http/2"))
///         .build()
/// };
/// let (orders, billing) = (client(&shared)?, client(&shared)?);
/// # Ok::<_, mainstay::Invalid>(())
/// ```
#[derive(Clone)]
pub struct SharedHealth {
    listeners: Arc<Mutex<Listeners>>,
    transport: Arc<str>,
}

type Key = (Arc<str>, Identity);

#[derive(Default)]
struct Listeners {
    members: HashMap<Key, Vec<Weak<Member>>>,
    /// How many there were when those that are gone were last swept out.
    swept: usize,
}

impl Listeners {
    fn sweep(&mut self) {
        self.members.retain(|_, members| {
            members.retain(|member| member.strong_count() > 0);
            !members.is_empty()
        });
        self.swept = self.members.len();
    }
}

impl SharedHealth {
    /// Nobody shares anything yet.
    pub fn new() -> Self {
        Self { listeners: Arc::default(), transport: "".into() }
    }

    /// The same for clients that reach their endpoints in this way \[""\].
    #[must_use]
    pub fn over(&self, transport: impl Into<Arc<str>>) -> Self {
        Self { listeners: self.listeners.clone(), transport: transport.into() }
    }

    /// How many endpoints somebody listens for.
    pub fn endpoints(&self) -> usize {
        let mut listeners = lock(&self.listeners);
        listeners.sweep();
        listeners.members.len()
    }

    fn key(&self, member: &Member) -> Key {
        (self.transport.clone(), member.endpoint().identity().clone())
    }

    /// Has `member` be told from now on, as long as it is there.
    pub(super) fn join(&self, member: &Arc<Member>) {
        let key = self.key(member);
        let mut listeners = lock(&self.listeners);
        // What clients that have ended leave behind is swept out at a cost that each newcomer bears a little of.
        if listeners.members.len() >= (listeners.swept * 2).max(64) {
            listeners.sweep();
        }
        let members = listeners.members.entry(key).or_default();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// Tells the others what has happened to `member` by what its own requests have shown.
    #[cold]
    pub(super) fn tell(&self, member: &Member, transition: Transition) {
        let (suspect, lasts) = match transition {
            Transition::Ejected { why: Trip::Consecutive, lasts } => (true, lasts),
            Transition::BackingOff { lasts } => (false, lasts),
            _ => return,
        };
        let others: Vec<_> = {
            let listeners = lock(&self.listeners);
            let members = listeners.members.get(&self.key(member)).into_iter().flatten();
            members.filter_map(Weak::upgrade).filter(|other| !std::ptr::eq(&**other, member)).collect()
        };
        // Outside of the lock: it may call observers.
        others.iter().for_each(|other| other.heard(suspect, lasts));
    }
}

impl Default for SharedHealth {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SharedHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedHealth").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Member {
    /// Another client finds the same endpoint dead, or was asked to leave it alone for so long.
    fn heard(self: &Arc<Self>, suspect: bool, lasts: Duration) {
        let (fleet, now) = (&self.fleet, clock::now());
        let options = fleet.options.load_full();
        let moved = if suspect {
            self.health.suspect(lasts, now, &options.health, &fleet.ledger)
        } else {
            self.health.heed(lasts, now, &options.health, &fleet.ledger)
        };
        if let Some(moved) = moved {
            fleet.changed(self, moved);
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::{Endpoint, balance::Balance, resolve};

    #[tokio::test(start_paused = true)]
    async fn what_clients_that_have_ended_leave_behind_does_not_add_up() {
        let shared = SharedHealth::new();
        for number in 0..300 {
            let client = Balance::builder(resolve::fixed([format!("10.0.0.1:{}", 1_000 + number)]))
                .connect(|_: &Endpoint| service_fn(|()| async { Ok::<_, BoxError>(()) }))
                .share_health(shared.clone())
                .build()
                .unwrap();
            client.send(()).await.unwrap();
            client.close(Duration::from_secs(1)).await;
        }
        assert!(lock(&shared.listeners).members.len() <= 64);
    }
}
