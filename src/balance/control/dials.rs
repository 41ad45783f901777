//! Connections: made ahead of requests, a few at a time, again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tower::BoxError;

use super::{BATCH, Control, Slot, arm};
use crate::{
    clock,
    error::{Cause, Error, Reason},
    resolve::Effective,
    telemetry::Event,
};

impl<S> Slot<S> {
    fn wants_dial(&self) -> bool {
        self.gone.is_none() && self.service.is_none() && !self.dialing
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    pub(super) fn may_dial(&self) -> bool {
        self.dials.len() < self.fleet.options.load().dials as usize || !self.connector.dials()
    }

    /// Whether a dial can begin now.
    pub(super) fn has_dial_to_begin(&self) -> bool {
        let redials = || !self.redials.is_empty() && self.next_pace().is_none();
        self.may_dial() && (!self.queue.is_empty() || redials())
    }

    /// When the next redial that waits for its turn may begin.
    pub(super) fn next_redial(&self) -> Option<Instant> {
        if self.redials.is_empty() || !self.may_dial() { None } else { self.next_pace() }
    }

    fn next_pace(&self) -> Option<Instant> {
        self.pace.next(clock::now(), self.endpoints(), self.fleet.options.load().redial_spread)
    }

    /// How many endpoints there are, connected or not.
    pub(super) fn endpoints(&self) -> usize {
        match self.steady.effective() {
            Effective::Bound(set) => self.subsets.used().unwrap_or(set.len()),
            Effective::Pending | Effective::Absent => self.slots.len(),
        }
    }

    /// Has an endpoint redialled when its turn comes: those that have failed less often come first, so that one which is
    /// gone for a moment does not wait for all that are gone for good. What need not dial takes no turns.
    pub(super) fn queue_redial(&mut self, id: u64) {
        let Some(slot) = self.slots.get(&id) else { return };
        if self.connector.dials() {
            self.turns += 1;
            self.redials.insert((slot.failures, self.turns), id);
        } else {
            self.queue.push_back(id);
        }
    }

    /// The next endpoint to be dialled: one that was never connected before one that was.
    fn next_to_dial(&mut self) -> Option<u64> {
        if let Some(id) = self.queue.pop_front() {
            return Some(id);
        }
        let (now, endpoints) = (clock::now(), self.endpoints());
        let spread = self.fleet.options.load().redial_spread;
        while let Some(first) = self.redials.first_entry() {
            // One that is gone, or connected by now, takes no turn.
            if !self.slots.get(first.get()).is_some_and(Slot::wants_dial) {
                first.remove();
            } else if self.pace.next(now, endpoints, spread).is_some() {
                return None;
            } else {
                self.pace.began(now, endpoints, spread, &*self.fleet.random);
                return Some(first.remove());
            }
        }
        None
    }

    /// Connects what waits for it, as far as the number of dials and the pace of redials allow.
    pub(super) async fn start_dials(&mut self) {
        let mut done = 0;
        while self.may_dial() {
            done += 1;
            if done % BATCH == 0 {
                tokio::task::yield_now().await;
            }
            let Some(id) = self.next_to_dial() else { return };
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            if !slot.wants_dial() {
                continue;
            }
            slot.redial = None;
            match self.connector.connect(&slot.endpoint) {
                Ok(service) => self.connected(id, service),
                Err(dial) => {
                    slot.dialing = true;
                    let (limit, incarnation) = (self.fleet.options.load().connect_timeout, slot.incarnation);
                    let name = slot.member.name.clone();
                    slot.began = Some(clock::now());
                    self.dials.push(Box::pin(async move {
                        let dialed = tokio::time::timeout(limit, dial).await.unwrap_or_else(|_| {
                            Err(Error::new(Reason::Connect).with_endpoint(name).with_lasted(limit).into())
                        });
                        (id, incarnation, dialed)
                    }));
                }
            }
        }
    }

    pub(super) fn dialed(&mut self, id: u64, incarnation: u32, dialed: Result<S, BoxError>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.gone.is_some() || slot.incarnation != incarnation {
            return;
        }
        slot.dialing = false;
        let now = clock::now();
        let took = slot.began.take().map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        match dialed {
            Ok(service) => {
                self.pace.connected(took);
                self.fleet.tell(&Event::Connected { endpoint: slot.member.name.clone() });
                self.connected(id, service);
            }
            Err(error) => self.disconnected(id, error.into()),
        }
    }

    pub(super) fn connected(&mut self, id: u64, service: S) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.service = Some(Arc::new(service));
        slot.stands = Some((clock::now(), slot.member.health.totals().0));
        slot.cause = None;
        slot.member.reconnected();
        if std::mem::replace(&mut slot.ramps, true) {
            slot.member.start_ramp(clock::now(), &self.fleet);
        }
        slot.member.health.connect(true, &self.fleet.ledger);
        let checks = &self.fleet.options.load().health.checks;
        self.checking.watch(id, clock::now(), checks, &*self.fleet.random);
        self.dirty = true;
    }

    pub(super) fn broken(&mut self, id: u64, incarnation: u32, cause: Cause) {
        let current = self.slots.get(&id).is_some_and(|slot| {
            slot.incarnation == incarnation && slot.service.is_some() && slot.gone.is_none()
        });
        if current {
            self.disconnected(id, cause);
        }
    }

    /// Notes that the endpoint is not connected, and when it will be tried again.
    pub(super) fn disconnected(&mut self, id: u64, cause: Cause) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.service = None;
        slot.incarnation += 1;
        slot.member.health.connect(false, &self.fleet.ledger);
        self.checking.unwatch(id);
        let (now, options) = (clock::now(), self.fleet.options.load());
        self.pace.failed(now);
        // A connection that breaks as soon as it stands is no better than one that could not be made.
        let proven = slot.stands.take().is_some_and(|(since, successes)| {
            slot.member.health.totals().0 > successes
                || now.saturating_duration_since(since) >= options.connect_timeout.max(slot.waited)
        });
        if proven {
            (slot.failures, slot.waited) = (0, Duration::ZERO);
        }
        slot.failures = slot.failures.saturating_add(1);
        let wait = options.redial.delay(slot.failures, slot.waited, &*self.fleet.random);
        slot.waited = wait;
        let at = now + wait;
        slot.redial = Some(at);
        slot.cause = Some(cause.clone());
        arm(&mut self.timers, slot, at);
        self.dirty = true;
        self.fleet.tell(&Event::Disconnected { endpoint: slot.member.name.clone(), redial: wait, cause });
        if let Some(resolver) = &mut self.resolver {
            resolver.refresh();
        }
    }
}
