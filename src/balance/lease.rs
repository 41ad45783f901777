//! One attempt at one endpoint, from the pick to its head.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{bell::Message, member::Member};
use crate::{
    health,
    outcome::{Class, Verdict},
    sync::{Mutex, Ordering::Relaxed, lock},
    telemetry::Counter,
    track::{Ends, Guard},
};

/// A failure counts as an attempt that took this many times the usual latency longer than is expected of the endpoint.
///
/// So what fails looks slower with each failure, whatever it answered how fast; failures that are rare and the same
/// everywhere leave the estimates comparable.
const PENALTY: f32 = 4.0;
/// No penalty takes an estimate beyond this.
const PENALTY_CAP: f32 = 5e9;
/// What is usual before anything is known.
const UNKNOWN: Duration = Duration::from_millis(50);
/// What was cut off after this many times the recent 99th percentile would have been a failure.
const OVERLONG: u32 = 4;

/// A place in flight at an endpoint. It ends in one of three ways: with a head, without having been used, or cut off
/// (which dropping it means).
#[derive(Debug)]
pub(crate) struct Lease {
    member: Option<Arc<Member>>,
    started: Instant,
    generation: u32,
    limit: Option<Duration>,
    probe: Option<health::Lease>,
}

impl Lease {
    /// Takes a place at `member`; `limit` is how long the attempt may take.
    #[inline]
    pub(crate) fn begin(
        member: Arc<Member>,
        now: Instant,
        limit: Option<Duration>,
        probe: Option<health::Lease>,
    ) -> Self {
        member.in_flight.fetch_add(1, Relaxed);
        let generation = member.health.generation();
        Self { member: Some(member), started: now, generation, limit, probe }
    }

    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.member.as_ref()
    }

    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// When the attempt has lasted as long as it may.
    #[inline]
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.limit.map(|limit| self.started + limit)
    }

    /// How long the attempt has lasted at `now`.
    pub(crate) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// The head has arrived, or the attempt has failed. What is left of it, if `tracked`, is in the guard.
    #[inline]
    pub(crate) fn head(mut self, now: Instant, verdict: Verdict, tracked: bool) -> Option<Guard> {
        let member = self.member.take()?;
        let elapsed = now.saturating_duration_since(self.started);
        if verdict.is_success() {
            let fleet = &member.fleet;
            member.latency.observe(fleet.decay.at(now), elapsed);
            member.recent.record(now, elapsed);
            fleet.latency(now, elapsed);
            if let Some(probe) = self.probe.take() {
                if tracked && verdict.is_provisional() {
                    return Some(Guard::new(Arc::new(Undecided::new(member, probe)), verdict));
                }
                settle(&member, probe, Class::Success, now);
                // What began as the probe goes on as an attempt of the state that it has brought about.
                self.generation = member.health.generation();
            }
            if tracked {
                return Some(Guard::new(member, verdict).in_generation(self.generation));
            }
            member.release();
            member.succeeded(now);
            return None;
        }
        self.bad_head(&member, now, elapsed, verdict);
        if tracked {
            return Some(Guard::new(member, verdict).in_generation(self.generation));
        }
        member.release();
        None
    }

    #[cold]
    fn bad_head(&mut self, member: &Arc<Member>, now: Instant, elapsed: Duration, verdict: Verdict) {
        let fleet = &member.fleet;
        if let Some(probe) = self.probe.take() {
            settle(member, probe, verdict.class(), now);
        }
        match verdict.class() {
            Class::Failure => {
                penalise(member, now, elapsed);
                member.failed(now, self.generation);
            }
            Class::BackOff => {
                member.latency.observe_at_least(fleet.decay.at(now), elapsed);
                let asked = match verdict.may_repeat() {
                    crate::outcome::Again::After(after) => Some(after),
                    _ => None,
                };
                let options = fleet.options.load();
                if let Some(moved) = member.health.back_off(asked, now, &options.health, &fleet.ledger) {
                    fleet.changed(member, moved);
                }
            }
            Class::Inconclusive | Class::Success => {
                member.latency.observe_at_least(fleet.decay.at(now), elapsed);
            }
        }
    }

    /// The endpoint was picked and not used: it was not ready, or refused.
    pub(crate) fn unused(mut self) {
        if let Some(member) = self.member.take() {
            member.release();
            if let Some(probe) = self.probe.take()
                && member.health.forgo(probe, crate::context::now(), &member.fleet.ledger)
            {
                member.fleet.bell.ring(Message::Changed(member.clone()));
            }
        }
    }

    /// The caller gave up, or its deadline passed, before there was a head.
    pub(crate) fn cut_off(mut self, now: Instant) {
        self.cut(now);
    }

    fn cut(&mut self, now: Instant) {
        let Some(member) = self.member.take() else { return };
        member.release();
        let fleet = &member.fleet;
        fleet.count(Counter::Cancelled);
        member.cancelled.fetch_add(1, Relaxed);
        let elapsed = self.lasted(now);
        let overlong = self.limit.is_some_and(|limit| elapsed >= limit)
            || fleet.p99(now).is_some_and(|p99| elapsed > p99 * OVERLONG);
        if let Some(probe) = self.probe.take() {
            settle(&member, probe, if overlong { Class::Failure } else { Class::Inconclusive }, now);
        }
        if overlong {
            penalise(&member, now, elapsed);
            member.failed(now, self.generation);
        } else {
            member.latency.observe_at_least(fleet.decay.at(now), elapsed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.member.is_some() {
            self.cut(crate::context::now());
        }
    }
}

/// A probe whose head proved nothing: its end decides.
struct Undecided {
    member: Arc<Member>,
    probe: Mutex<Option<health::Lease>>,
}

impl Undecided {
    fn new(member: Arc<Member>, probe: health::Lease) -> Self {
        Self { member, probe: Mutex::new(Some(probe)) }
    }
}

impl Ends for Undecided {
    fn ended(self: Arc<Self>, head: Verdict, end: Option<Verdict>) {
        let (verdict, probe) = (end.unwrap_or(head), lock(&self.probe).take());
        if let Some(probe) = probe {
            settle(&self.member, probe, verdict.class(), crate::context::now());
        }
        let generation = self.member.health.generation();
        match verdict.class() {
            // The ejection has counted it.
            Class::Failure => {
                self.member.release();
                self.member.failures.fetch_add(1, Relaxed);
            }
            _ => self.member.clone().ended_in(generation, head, end),
        }
    }
}

fn settle(member: &Arc<Member>, probe: health::Lease, shown: Class, now: Instant) {
    let fleet = &member.fleet;
    let options = fleet.options.load();
    let moved = member.health.settle(probe, shown, now, &options.health, &fleet.ledger, &*fleet.random);
    if let Some(moved) = moved {
        fleet.changed(member, moved);
    }
}

fn penalise(member: &Member, now: Instant, elapsed: Duration) {
    let fleet = &member.fleet;
    let at = fleet.decay.at(now);
    let typical = fleet.typical(now).unwrap_or(UNKNOWN).as_nanos() as f32;
    let expected = member.latency.value(at).unwrap_or(typical);
    let penalty = (expected + PENALTY * typical).min(PENALTY_CAP);
    member.latency.observe(at, elapsed.max(Duration::from_nanos(penalty as u64)));
}
