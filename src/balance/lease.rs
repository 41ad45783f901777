//! One attempt at one endpoint, from the pick to its head.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    bell::Message,
    fleet::Stamp,
    member::{Member, era, operation_of},
    width::Reading,
};
use crate::{
    health,
    outcome::{Class, Verdict},
    report::Report,
    sync::{Mutex, Ordering::Relaxed, lock},
    telemetry::Counter,
    track::{Ends, Guard},
};

/// A failure counts as so many times the usual latency on top of what is expected of the endpoint: failures that are rare
/// and the same everywhere leave the estimates comparable.
const PENALTY: u32 = 4;
/// No penalty takes an estimate beyond this.
const PENALTY_CAP: f32 = 5e9;
/// What is usual before anything is known: what the failure took, and at least this.
const LEAST: Duration = Duration::from_millis(1);
/// What was cut off after this many times the recent 99th percentile would have been a failure.
const OVERLONG: u32 = 4;

/// A place in flight at an endpoint. It ends in one of three ways: with a head, without having been used, or cut off
/// (which dropping it means).
#[derive(Debug)]
pub(crate) struct Lease {
    member: Option<Arc<Member>>,
    /// In nanoseconds since the fleet's epoch; [`UNTIMED`] if nobody wants to know.
    started: u64,
    limit: Option<Duration>,
    /// The generation of the endpoint's health, and the operation.
    era: u32,
    incarnation: u32,
    special: Option<Special>,
}

/// What few attempts are.
#[derive(Debug)]
enum Special {
    /// One of an operation that has a health of its own.
    Operation,
    /// One that decides over the endpoint's return.
    Probe(health::Lease),
    /// One that decides over the return of its operation to the endpoint.
    OperationProbe(health::Lease),
}

impl Special {
    fn is_probe(&self) -> bool {
        !matches!(self, Self::Operation)
    }
}

const UNTIMED: u64 = u64::MAX;

impl Lease {
    /// Takes a place at `member`, over this connection; `limit` is how long the attempt may take.
    #[inline]
    pub(crate) fn begin(
        member: Arc<Member>,
        incarnation: u32,
        now: Option<Stamp>,
        limit: Option<Duration>,
        probe: Option<health::Lease>,
    ) -> Self {
        member.in_flight.fetch_add(1, Relaxed);
        let generation = member.health.generation();
        let started = now.map_or(UNTIMED, |now| now.nanos);
        let special = probe.map(Special::Probe);
        Self { member: Some(member), started, limit, era: generation, incarnation, special }
    }

    /// The same as an attempt of an operation, by its number.
    pub(crate) fn of_operation(mut self, operation: u16) -> Self {
        if operation != 0 {
            self.era = era(self.era, operation);
            self.special = Some(self.special.take().unwrap_or(Special::Operation));
        }
        self
    }

    /// The same as the attempt that decides over the return of its operation.
    pub(crate) fn probing_operation(mut self, right: health::Lease) -> Self {
        self.special = Some(Special::OperationProbe(right));
        self
    }

    /// The same, if fewer than `most` places are taken there.
    pub(crate) fn begin_within(
        most: u32,
        member: Arc<Member>,
        incarnation: u32,
        now: Option<Stamp>,
        limit: Option<Duration>,
    ) -> Option<Self> {
        let lease = Self::begin(member, incarnation, now, limit, None);
        // Two that take the last place at once may both give it back; both look again.
        let full = |member: &Arc<Member>| {
            let most = member.width.as_ref().map_or(most, |width| width.most().min(most));
            member.in_flight.load(Relaxed) > most
        };
        if lease.member.as_ref().is_some_and(full) {
            lease.unused();
            return None;
        }
        Some(lease)
    }

    #[inline]
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.member.as_ref()
    }

    /// The number of the connection.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    #[inline]
    pub(crate) fn is_probe(&self) -> bool {
        self.special.as_ref().is_some_and(Special::is_probe)
    }

    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.started != UNTIMED
    }

    /// When the attempt has lasted as long as it may.
    pub(crate) fn expires(&self) -> Option<Instant> {
        let fleet = &self.member.as_ref()?.fleet;
        let limit = self.limit.filter(|_| self.is_timed())?;
        Some(fleet.epoch + Duration::from_nanos(self.started) + limit)
    }

    /// When the attempt began, if it is timed.
    pub(crate) fn began(&self) -> Option<Instant> {
        let fleet = &self.member.as_ref().filter(|_| self.is_timed())?.fleet;
        Some(fleet.epoch + Duration::from_nanos(self.started))
    }

    /// How long the attempt has lasted at `now`; nothing if it is not timed.
    pub(crate) fn lasted(&self, now: Instant) -> Duration {
        match &self.member {
            Some(member) => self.elapsed(Some(member.fleet.stamp(now))),
            None => Duration::ZERO,
        }
    }

    fn elapsed(&self, now: Option<Stamp>) -> Duration {
        let nanos = now.filter(|_| self.is_timed()).map_or(0, |now| now.nanos.saturating_sub(self.started));
        Duration::from_nanos(nanos)
    }

    /// The head has arrived, or the attempt has failed. What is left of it, if `tracked`, is in the guard.
    #[inline]
    pub(crate) fn head(&mut self, now: Option<Stamp>, verdict: Verdict, tracked: bool) -> Option<Guard> {
        let member = self.member.take()?;
        if let (Some(width), Some(now)) = (&member.width, now) {
            width.head(&member, verdict.class(), self.elapsed(Some(now)), now.nanos);
        }
        if !verdict.is_success() {
            self.bad_head(&member, now, verdict);
        } else if let Some(now) = now {
            let (fleet, elapsed) = (&*member.fleet, now.nanos.saturating_sub(self.started));
            member.took(fleet.estimator.at(now.nanos), elapsed);
            if fleet.statistics.load(Relaxed) {
                fleet.latency(&member, now, elapsed);
            }
            if fleet.notes_answers.load(Relaxed) {
                fleet.answered.note(member.place.load(Relaxed), now.nanos);
            }
            if let Some(special) = self.special.take()
                && let Some(guard) = self.special_head(special, &member, now, verdict, tracked)
            {
                return Some(guard);
            }
        }
        if tracked {
            member.fleet.count(Counter::BodiesBegun);
            let reading = now.and_then(|now| Reading::guard(&member, now.at, verdict));
            let guard = Guard::new(member, verdict).in_generation(self.era);
            return Some(match reading {
                Some(reading) => guard.and(reading),
                None => guard,
            });
        }
        member.release();
        if let (true, Some(now)) = (verdict.is_success(), now) {
            member.succeeded(now.nanos);
        }
        None
    }

    /// A good head of an attempt that is not like most. What is left of it, if only its end proves anything.
    #[cold]
    #[inline(never)]
    fn special_head(
        &mut self,
        special: Special,
        member: &Arc<Member>,
        now: Stamp,
        verdict: Verdict,
        tracked: bool,
    ) -> Option<Guard> {
        let operation = operation_of(self.era);
        if special.is_probe() {
            if tracked && verdict.is_provisional() {
                member.fleet.count(Counter::BodiesBegun);
                let undecided = Undecided::new(Arc::clone(member), special);
                return Some(Guard::new(Arc::new(undecided), verdict).in_generation(self.era));
            }
            settle(member, special, operation, Class::Success, now.at);
            // What began as the probe goes on as an attempt of the state that it has brought about.
            self.era = era(member.health.generation(), operation);
        }
        if !tracked && operation != 0 {
            member.operation_succeeded(operation, now.nanos);
        }
        None
    }

    #[cold]
    fn bad_head(&mut self, member: &Arc<Member>, now: Option<Stamp>, verdict: Verdict) {
        let (fleet, elapsed) = (&member.fleet, self.elapsed(now));
        let now = now.map_or_else(crate::context::now, |now| now.at);
        let began = self.began_at(member);
        let proves = matches!(self.special, Some(Special::OperationProbe(_)));
        if let Some(special) = self.special.take() {
            settle(member, special, operation_of(self.era), verdict.class(), now);
        }
        match verdict.class() {
            Class::Failure => {
                fleet.cut(fleet.stamp(now), elapsed.as_nanos() as u64);
                // That an operation still fails where it is set aside says nothing about others.
                if !proves {
                    penalise(member, now, elapsed);
                }
                member.failed(now, self.era, began);
            }
            Class::BackOff => {
                member.took_at_least(fleet.at(now), elapsed);
                member.back_off(now, verdict);
            }
            Class::Inconclusive | Class::Success => {
                member.took_at_least(fleet.at(now), elapsed);
            }
        }
    }

    /// The same once the attempt has let go of `member`.
    fn began_at(&self, member: &Member) -> Option<Instant> {
        self.is_timed().then(|| member.fleet.epoch + Duration::from_nanos(self.started))
    }

    /// The endpoint was picked and not used: it was not ready, or refused.
    pub(crate) fn unused(self) {
        if let Some(member) = self.give_up_probe() {
            member.release();
        }
    }

    /// The same for one who waits and whose turn it is: of the place that it did not use it need not be told, or it would
    /// wake itself for ever. Those behind it do not look for one. Others whose turn it is may have thought that it was taken:
    /// they are woken when this one has done waiting.
    pub(crate) fn unused_untold(self) {
        if let Some(member) = self.give_up_probe() {
            member.release_untold();
        }
    }

    fn give_up_probe(mut self) -> Option<Arc<Member>> {
        let member = self.member.take();
        if let (Some(member), Some(special)) = (&member, self.special.take()) {
            let (fleet, now) = (&member.fleet, crate::context::now());
            let is_due = match special {
                Special::Operation => false,
                Special::Probe(probe) => member.health.forgo(probe, now, &fleet.ledger),
                Special::OperationProbe(probe) => {
                    let operation = fleet.operations.get(operation_of(self.era));
                    operation.is_some_and(|operation| operation.forgo(member.id, probe, now))
                }
            };
            if is_due {
                fleet.bell.ring(Message::Changed(member.clone()));
            }
        }
        member
    }

    /// Its own limit cuts it off: that is a sign of overload, besides the failure that its head will be.
    pub(crate) fn timed_out(&self, now: Stamp) {
        if let Some(member) = &self.member
            && let Some(width) = &member.width
        {
            width.timed_out(member, now.nanos);
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
        let (elapsed, nanos) = (self.elapsed(Some(fleet.stamp(now))), fleet.stamp(now).nanos);
        if let Some(width) = &member.width {
            width.given_up(&member, elapsed, nanos);
        }
        if self.is_timed() {
            fleet.cut(fleet.stamp(now), elapsed.as_nanos() as u64);
        }
        // To be beaten by a hedge once says little, and always something else.
        let beaten = crate::context::call().is_some_and(|call| call.superseded && !call.hedge);
        let overlong = self.limit.is_some_and(|limit| elapsed >= limit)
            || fleet.p99(now).is_some_and(|p99| elapsed > p99 * OVERLONG)
            || (beaten && member.is_beaten());
        let began = self.began_at(&member);
        let proves = matches!(self.special, Some(Special::OperationProbe(_)));
        if let Some(special) = self.special.take() {
            let shown = if overlong { Class::Failure } else { Class::Inconclusive };
            settle(&member, special, operation_of(self.era), shown, now);
        }
        if overlong {
            if !proves {
                penalise(&member, now, elapsed);
            }
            member.failed(now, self.era, began);
        } else {
            member.cancelled.fetch_add(1, Relaxed);
            if beaten {
                // How long it would have taken nobody knows, and hedges always end it soon: an endpoint that takes ten times as
                // long would look only twice as slow, and go on to cost a hedge for each request that it is given.
                penalise(&member, now, elapsed);
            } else {
                member.took_at_least(fleet.at(now), elapsed);
            }
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
    probe: Mutex<Option<Special>>,
}

impl Undecided {
    fn new(member: Arc<Member>, probe: Special) -> Self {
        Self { member, probe: Mutex::new(Some(probe)) }
    }
}

impl Ends for Undecided {
    fn wants_report(&self) -> bool {
        self.member.wants_report()
    }

    fn reported(&self, report: Report) {
        self.member.reported(report);
    }

    fn endpoint(&self) -> Option<&Arc<str>> {
        Some(&self.member.name)
    }

    fn ended(self: Arc<Self>, head: Verdict, end: Option<Verdict>) {
        self.ended_in(0, head, end);
    }

    fn ended_in(self: Arc<Self>, own: u32, head: Verdict, end: Option<Verdict>) {
        let (verdict, probe) = (end.unwrap_or(head), lock(&self.probe).take());
        if let Some(probe) = probe {
            settle(&self.member, probe, operation_of(own), verdict.class(), crate::context::now());
        }
        match verdict.class() {
            // The ejection has counted it.
            Class::Failure => {
                self.member.fleet.count(Counter::BodiesEnded);
                self.member.release();
                self.member.health.failed_otherwise();
            }
            _ => {
                let now = era(self.member.health.generation(), operation_of(own));
                self.member.clone().ended_in(now, head, end);
            }
        }
    }
}

/// Says what a probe has shown, to whom it concerns.
fn settle(member: &Arc<Member>, special: Special, operation: u16, shown: Class, now: Instant) {
    let fleet = &member.fleet;
    let options = fleet.options.load();
    match special {
        Special::Operation => {}
        Special::Probe(probe) => {
            let moved =
                member.health.settle(probe, shown, now, &options.health, &fleet.ledger, &*fleet.random);
            if let Some(moved) = moved {
                fleet.changed(member, moved);
            }
        }
        Special::OperationProbe(probe) => {
            let Some(operation) = fleet.operations.get(operation) else { return };
            let moved = operation.settle(member.id, probe, shown, now, &options.health, &*fleet.random);
            if let Some(moved) = moved {
                fleet.operation_changed(member, &operation, moved);
            }
        }
    }
}

fn penalise(member: &Member, now: Instant, elapsed: Duration) {
    let fleet = &member.fleet;
    let typical = fleet.typical(now).unwrap_or(elapsed.max(LEAST));
    member.took_for_nothing(fleet.at(now), elapsed, typical * PENALTY, PENALTY_CAP);
}
