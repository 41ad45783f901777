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

use super::Control;
use crate::{
    balance::check::Checker,
    clock,
    health::{CheckOptions, Checks},
    random::Random,
};

/// Checks that are under way at the same time, at most.
const MOST: usize = 64;

/// How a check has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    id: u64,
    /// Of which connection.
    incarnation: u32,
    passed: bool,
}

/// The checks of a fleet; nothing at all where nobody says how to check.
pub(super) struct Checking<S> {
    checker: Option<Checker<S>>,
    own: HashMap<u64, Own>,
    times: BinaryHeap<Reverse<(Instant, u64)>>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Checked> + Send>>>,
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
struct Own {
    checks: Checks,
    running: bool,
}

impl<S> Checking<S> {
    pub(super) fn new(checker: Option<Checker<S>>) -> Self {
        Self { checker, own: HashMap::new(), times: BinaryHeap::new(), running: FuturesUnordered::new() }
    }

    /// Checks an endpoint that has just been connected from now on, unless it is checked already.
    pub(super) fn watch(&mut self, id: u64, now: Instant, options: &CheckOptions, random: &dyn Random) {
        if self.checker.is_some() && !self.own.contains_key(&id) {
            self.own.insert(id, Own::default());
            self.times.push(Reverse((Checks::first(now, options, random), id)));
        }
    }

    /// When the next check begins.
    pub(super) fn next(&self) -> Option<Instant> {
        let room = self.running.len() < MOST;
        self.times.peek().filter(|_| room).map(|Reverse((at, _))| *at)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        match Pin::new(&mut self.running).poll_next(cx) {
            Poll::Ready(Some(checked)) => Poll::Ready(checked),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// What was begun will not end on this runtime: it is begun anew on the next.
    pub(super) fn park(&mut self, now: Instant) {
        self.running = FuturesUnordered::new();
        for (id, own) in &mut self.own {
            if std::mem::take(&mut own.running) {
                self.times.push(Reverse((now, *id)));
            }
        }
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// Begins the checks whose time has come.
    pub(super) fn start_checks(&mut self, now: Instant) {
        while self.checking.next().is_some_and(|at| at <= now) {
            let Some(Reverse((_, id))) = self.checking.times.pop() else { return };
            let slot = self.slots.get(&id).filter(|slot| slot.gone.is_none());
            let connected = slot.and_then(|slot| Some((slot, slot.service.as_ref()?)));
            let (Some((slot, service)), Some(checker)) = (connected, &self.checking.checker) else {
                // It is watched again when it is connected again.
                self.checking.own.remove(&id);
                continue;
            };
            let asking = checker.ask(service, slot.endpoint.clone());
            let (incarnation, timeout) = (slot.incarnation, self.fleet.options.load().health.checks.timeout);
            if let Some(own) = self.checking.own.get_mut(&id) {
                own.running = true;
            }
            self.checking.running.push(Box::pin(async move {
                let passed = matches!(tokio::time::timeout(timeout, asking).await, Ok(Ok(())));
                Checked { id, incarnation, passed }
            }));
        }
    }

    /// Notes how a check has ended.
    pub(super) fn checked(&mut self, checked: &Checked) {
        let Checked { id, incarnation, passed } = *checked;
        let Some(own) = self.checking.own.get_mut(&id) else { return };
        own.running = false;
        let Some(slot) = self.slots.get(&id).filter(|slot| slot.gone.is_none()) else {
            self.checking.own.remove(&id);
            return;
        };
        let (now, options, health) = (clock::now(), self.fleet.options.load(), &slot.member.health);
        let checks = &options.health.checks;
        // That a connection is gone is known by itself, and says nothing about the next one.
        let found = (slot.incarnation == incarnation)
            .then(|| own.checks.note(passed, health.counted(), checks))
            .flatten();
        let (ledger, random) = (&self.fleet.ledger, &*self.fleet.random);
        if let Some(moved) =
            found.and_then(|found| health.checked(found, now, &options.health, ledger, random))
        {
            self.fleet.changed(&slot.member, moved);
        }
        let at = own.checks.next(now, health.is_ejected(), checks, random);
        self.checking.times.push(Reverse((at, id)));
    }
}
