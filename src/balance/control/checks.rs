//! Active checks: asking the endpoints that are connected, each when its time comes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use futures::{Stream as _, stream::FuturesUnordered};

use super::{
    Control,
    watches::{Said, Watch, Watches},
};
use crate::{
    balance::check::Checker,
    clock,
    health::{CheckOptions, Checks, Finding, ServingStatus},
    random::Random,
};

/// Checks that are under way at the same time, at most.
const MOST: usize = 64;

/// What was found out of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Checked {
    /// A check has ended.
    Asked {
        id: u64,
        /// Of which connection.
        incarnation: u32,
        passed: bool,
    },
    /// It has said something of itself.
    Told(Said),
}

/// The checks of a fleet; nothing at all where nobody says how to check.
pub(super) struct Checking<S> {
    pub(super) checker: Option<Checker<S>>,
    pub(super) own: HashMap<u64, Own>,
    times: BinaryHeap<Reverse<(Instant, u64)>>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Checked> + Send>>>,
    pub(super) watches: Watches,
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Own {
    checks: Checks,
    pub(super) running: bool,
    /// When it is looked at next. What else is in the heap was superseded.
    at: Option<Instant>,
    pub(super) watch: Option<Watch>,
}

impl Own {
    /// Whether there is a time already when it is looked at next.
    pub(super) fn is_due(&self) -> bool {
        self.at.is_some()
    }

    /// Whether the endpoint is found to be well by its word, or else by checks, while the other of the two says that it is not.
    pub(super) fn is_contradicted(&self, finding: Finding, by_word: bool, options: &CheckOptions) -> bool {
        let other_fails = if by_word {
            self.checks.fails(options)
        } else {
            self.watch.as_ref().is_some_and(|watch| watch.said == ServingStatus::NotServing)
        };
        finding == Finding::Passes && other_fails
    }
}

impl<S> Checking<S> {
    pub(super) fn new(checker: Option<Checker<S>>) -> Self {
        Self {
            checker,
            own: HashMap::new(),
            times: BinaryHeap::new(),
            running: FuturesUnordered::new(),
            watches: Watches::default(),
        }
    }

    /// Checks an endpoint that has just been connected from now on, unless it is checked already; and listens to it.
    pub(super) fn watch(&mut self, id: u64, now: Instant, options: &CheckOptions, random: &dyn Random) {
        let Some(checker) = &self.checker else { return };
        let (asks, watches) = (checker.asks(), checker.watches());
        if watches {
            self.watches.begin(id, now);
        }
        let is_new = !self.own.contains_key(&id);
        self.own.entry(id).or_default();
        if is_new && asks {
            self.look(id, Checks::first(now, options, random));
        }
    }

    /// Looks at the endpoint at `at`, and not before.
    pub(super) fn look(&mut self, id: u64, at: Instant) {
        if let Some(own) = self.own.get_mut(&id) {
            own.at = Some(at);
            self.times.push(Reverse((at, id)));
        }
    }

    /// When the next check begins.
    pub(super) fn next(&self) -> Option<Instant> {
        let room = self.running.len() < MOST;
        let check = self.times.peek().filter(|_| room).map(|Reverse((at, _))| *at);
        check.into_iter().chain(self.watches.next()).min()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        if let Poll::Ready(Some(checked)) = Pin::new(&mut self.running).poll_next(cx) {
            return Poll::Ready(checked);
        }
        self.watches.poll(cx).map(Checked::Told)
    }

    /// What was begun will not end on this runtime: it is begun anew on the next.
    pub(super) fn park(&mut self, now: Instant) {
        self.running = FuturesUnordered::new();
        self.watches = Watches::default();
        for (id, own) in &mut self.own {
            if std::mem::take(&mut own.running) {
                own.at = Some(now);
                self.times.push(Reverse((now, *id)));
            }
            if own.watch.take().is_some() {
                self.watches.begin(*id, now);
            }
        }
    }

    /// The next endpoint whose time has come.
    fn due(&mut self, now: Instant) -> Option<u64> {
        while self.running.len() < MOST {
            let Reverse((at, id)) = *self.times.peek().filter(|Reverse((at, _))| *at <= now)?;
            self.times.pop();
            if let Some(own) = self.own.get_mut(&id).filter(|own| own.at == Some(at)) {
                own.at = None;
                return Some(id);
            }
        }
        None
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// Begins the checks whose time has come.
    pub(super) fn start_checks(&mut self, now: Instant) {
        self.begin_watches();
        while let Some(id) = self.checking.due(now) {
            let slot = self.slots.get(&id).filter(|slot| slot.gone.is_none());
            let connected = slot.and_then(|slot| Some((slot, slot.service.as_ref()?)));
            let (Some((slot, service)), Some(checker)) = (connected, &self.checking.checker) else {
                // It is watched again when it is connected again.
                self.checking.own.remove(&id);
                continue;
            };
            if let Some(asking) = checker.ask(service.clone(), slot.endpoint.clone()) {
                let (incarnation, timeout) =
                    (slot.incarnation, self.fleet.options.load().health.checks.timeout);
                if let Some(own) = self.checking.own.get_mut(&id) {
                    own.running = true;
                }
                self.checking.running.push(Box::pin(async move {
                    let passed = matches!(tokio::time::timeout(timeout, asking).await, Ok(Ok(())));
                    Checked::Asked { id, incarnation, passed }
                }));
            }
            self.repeat_word(id, now);
        }
    }

    /// Options were replaced: no check is waited for longer than they say.
    pub(super) fn hasten_checks(&mut self, now: Instant) {
        let (options, random) = (self.fleet.options.load_full(), &*self.fleet.random);
        let asks = self.checking.checker.as_ref().is_some_and(Checker::asks);
        let sooner = |(id, own): (&u64, &Own)| {
            // Where nobody asks it is the word of the endpoint that is repeated.
            let word = own.watch.as_ref().filter(|_| !asks).map(Watch::checks);
            let (at, is_ejected) = (own.at?, self.slots.get(id)?.member.health.is_ejected());
            let checks = word.unwrap_or(&own.checks);
            Some((*id, checks.hastened(at, now, is_ejected, &options.health.checks, random)?))
        };
        let sooner: Vec<(u64, Instant)> = self.checking.own.iter().filter_map(sooner).collect();
        for (id, at) in sooner {
            self.checking.look(id, at);
        }
    }

    /// Notes what was found out.
    pub(super) fn checked(&mut self, checked: &Checked) {
        match *checked {
            Checked::Asked { id, incarnation, passed } => self.asked(id, incarnation, passed),
            Checked::Told(said) => self.told(said),
        }
    }

    /// Notes how a check has ended.
    fn asked(&mut self, id: u64, incarnation: u32, passed: bool) {
        let Some(own) = self.checking.own.get_mut(&id) else { return };
        own.running = false;
        let Some(slot) = self.slots.get(&id).filter(|slot| slot.gone.is_none()) else {
            self.checking.own.remove(&id);
            return;
        };
        let (now, options) = (clock::now(), self.fleet.options.load_full());
        let checks = &options.health.checks;
        // That a connection is gone is known by itself, and says nothing about the next one.
        let found = (slot.incarnation == incarnation)
            .then(|| own.checks.note(passed, slot.member.health.counted(), checks))
            .flatten()
            .filter(|found| !own.is_contradicted(*found, false, checks));
        self.find(id, found, now);
        let at = self.checking.own.get(&id).zip(self.slots.get(&id)).map(|(own, slot)| {
            own.checks.next(now, slot.member.health.is_ejected(), checks, &*self.fleet.random)
        });
        if let Some(at) = at {
            self.checking.look(id, at);
        }
    }

    /// Does what checks of an endpoint, or its own word, have come to.
    pub(super) fn find(&mut self, id: u64, found: Option<Finding>, now: Instant) {
        let Some((slot, found)) = self.slots.get(&id).zip(found) else { return };
        let (options, health) = (self.fleet.options.load(), &slot.member.health);
        let (ledger, random) = (&self.fleet.ledger, &*self.fleet.random);
        if let Some(moved) = health.checked(found, now, &options.health, ledger, random) {
            self.fleet.changed(&slot.member, moved);
        }
    }
}
