//! Which endpoint gets the request.

use std::time::Instant;

use super::{
    fleet::{Fleet, Stamp},
    lease::Lease,
    member::Member,
    options::{Load, Panic},
    snapshot::{Entry, Resolved, Snapshot},
};
use crate::{
    context::{self, Call},
    error::{Error, Reason},
    random::{Random, below, unit},
    sync::Ordering::Relaxed,
};

/// Draws before the whole pool is looked at. With half of it unusable, one pick in 256 gets there.
const DRAWS: usize = 4;
/// Draws by weight before a ramp is no longer held against an endpoint.
const RAMP_DRAWS: usize = 16;

/// By so much of a request must the second of two draws by weight be less loaded than the first: between none and one
/// request in flight at a light endpoint there is nothing, and each step is more than its share. With a half, shares stay
/// within 2 points from 5 in flight per endpoint on, and within 5 below; with 0.45 or 0.6 they do not.
const HANDICAP: f32 = 0.5;

/// What a pick comes to.
pub(crate) enum Picked<'a, S> {
    /// This endpoint, with a place in flight there.
    One(&'a Entry<S>, Lease),
    /// Nothing now; what is waited for may come.
    Wait,
    /// Nothing, and waiting will not help.
    Refuse(Error),
}

impl<S> Snapshot<S> {
    /// The usual pick: the first attempt of a request, no endpoint waits for a probe, and all weights are equal. `None`
    /// where that is not so, or where an endpoint was drawn that may not be used: then [`pick`](Self::pick) goes on.
    #[inline]
    pub(crate) fn pick_of_two(&self, now: Option<Stamp>, fleet: &Fleet) -> Option<&Entry<S>> {
        let pool = self.pool as u32;
        let limited = self.most != u32::MAX;
        if pool < 2 || !self.plain || limited || fleet.ledger.wants_probes() || context::has_tried() {
            return None;
        }
        let word = fleet.random.next();
        let first = below(word as u32, pool);
        let second = below((word >> 32) as u32, pool - 1);
        let (first, second) = (
            self.entries.get(first as usize)?,
            self.entries.get((second + u32::from(second >= first)) as usize)?,
        );
        if !(first.member.health.is_available() && second.member.health.is_available()) {
            return None;
        }
        // The draw has no order, so a tie for the first is a tie at random.
        Some(if self.is_lighter(second, first, now, fleet) { second } else { first })
    }

    /// Picks for `call`, leaving out the endpoints in `out`, which have refused or are not ready.
    pub(crate) fn pick(&self, call: &Call, out: &[u64], fleet: &Fleet) -> Picked<'_, S> {
        // The clock is not read where nothing goes by time.
        let now = self.timed.then(|| fleet.now());
        // After a probe that failed the request is owed an endpoint that is known to be good.
        if call.repeatable
            && !call.probe
            && fleet.ledger.wants_probes()
            && let Some((entry, lease)) = self.probe(call, out, fleet)
        {
            return Picked::One(entry, lease);
        }
        loop {
            let entry = match self.draw(now, call, out, fleet) {
                Some(entry) => entry,
                None => match self.scan(now, call, out, fleet) {
                    Some(entry) => entry,
                    None => return self.nothing(out, fleet),
                },
            };
            let (member, incarnation) = (entry.member.clone(), entry.incarnation);
            if let Some(lease) = Lease::begin_within(self.most, member, incarnation, now, self.attempt_limit)
            {
                return Picked::One(entry, lease);
            }
        }
    }

    /// Two choices.
    #[inline]
    fn draw(&self, now: Option<Stamp>, call: &Call, out: &[u64], fleet: &Fleet) -> Option<&Entry<S>> {
        let (pool, random) = (self.pool as u32, &*fleet.random);
        if pool == 0 {
            return None;
        }
        let anew = call.is_untried() && out.is_empty();
        let fits = |entry: &Entry<S>| {
            let member = &entry.member;
            self.allows(member)
                && self.has_room(member)
                && (anew || (!call.has_tried(member.id) && !out.contains(&member.id)))
        };
        if pool == 1 {
            return Some(&self.entries[0]).filter(|entry| fits(entry));
        }
        for _ in 0..DRAWS {
            let (first, second) = if self.plain {
                // Two distinct ones.
                let word = random.next();
                let first = below(word as u32, pool);
                let second = below((word >> 32) as u32, pool - 1);
                (first as usize, (second + u32::from(second >= first)) as usize)
            } else {
                (self.by_weight(now, random), self.by_weight(now, random))
            };
            let (first, second) = (&self.entries[first], &self.entries[second]);
            match (fits(first), fits(second)) {
                // The draw has no order, so a tie for the first is a tie at random.
                (true, true) => {
                    return Some(if self.is_lighter(second, first, now, fleet) { second } else { first });
                }
                (true, false) => return Some(first),
                (false, true) => return Some(second),
                (false, false) => {}
            }
        }
        None
    }

    /// Draws one index by weight and ramp.
    fn by_weight(&self, now: Option<Stamp>, random: &dyn Random) -> usize {
        let mut index = 0;
        for _ in 0..RAMP_DRAWS {
            let word = random.next();
            index = match &self.alias {
                Some(alias) => alias.draw(word),
                None => below(word as u32, self.pool as u32) as usize,
            };
            if !self.ramping {
                return index;
            }
            let share = self.ramp(&self.entries[index], now);
            if share.is_none_or(|share| unit(random.next()) < share) {
                return index;
            }
        }
        index
    }

    /// Whether `a` is less loaded than `b`, which was drawn first.
    #[inline(always)]
    fn is_lighter(&self, a: &Entry<S>, b: &Entry<S>, now: Option<Stamp>, fleet: &Fleet) -> bool {
        // Signed, because that is one instruction to convert.
        let count = |entry: &Entry<S>| entry.member.in_flight.load(Relaxed) as i32 as f32;
        let (mut a_count, mut b_count) = (count(a), count(b));
        if !self.plain {
            // Only what is in flight goes by weight: where nothing is, the draw has given each its share already.
            a_count = (a_count + HANDICAP) / self.weight(a, now);
            b_count /= self.weight(b, now);
        }
        let (a_count, b_count) = (a_count + 1.0, b_count + 1.0);
        if let (Load::PeakEwma { .. }, Some(now)) = (self.load, now) {
            let at = fleet.decay.at_nanos(now.nanos);
            // Without a history an endpoint is taken for as fast as the other.
            if let (Some(a_cost), Some(b_cost)) = (a.member.latency.value(at), b.member.latency.value(at)) {
                return a_count * a_cost < b_count * b_cost;
            }
        }
        a_count < b_count
    }

    fn weight(&self, entry: &Entry<S>, now: Option<Stamp>) -> f32 {
        self.ramp(entry, now).map_or(entry.weight, |share| entry.weight * share as f32)
    }

    /// The share of its weight that the endpoint has, while it works up to all of it.
    fn ramp(&self, entry: &Entry<S>, now: Option<Stamp>) -> Option<f64> {
        let (share, _) = entry.member.ramp(now?.at, &self.options.slow_start)?;
        Some(share)
    }

    #[inline]
    fn allows(&self, member: &Member) -> bool {
        member.health.is_available() || (self.panic && member.health.is_usable_in_panic())
    }

    #[inline]
    fn has_room(&self, member: &Member) -> bool {
        self.most == u32::MAX || member.in_flight.load(Relaxed) < self.most
    }

    /// Looks at every endpoint: first for one that was not tried, then for any available one, then, where that is the
    /// policy, for any that may be used at all.
    #[cold]
    fn scan(&self, now: Option<Stamp>, call: &Call, out: &[u64], fleet: &Fleet) -> Option<&Entry<S>> {
        let count = self.entries.len();
        if count == 0 {
            return None;
        }
        let start = below(fleet.random.next() as u32, count as u32) as usize;
        // None is available at all, and the snapshot that says so is not there yet.
        let fail_open = self.options.panic == Panic::FailOpen
            && !self.entries.iter().any(|entry| entry.member.health.is_available());
        let usable =
            |member: &Member| self.allows(member) || (fail_open && member.health.is_usable_in_panic());
        let tiers: [&dyn Fn(&Member) -> bool; 3] = [
            &|member| self.allows(member) && !call.has_tried(member.id),
            &|member| self.allows(member),
            &usable,
        ];
        for tier in tiers {
            let mut best: Option<&Entry<S>> = None;
            for offset in 0..count {
                let entry = &self.entries[(start + offset) % count];
                if out.contains(&entry.member.id) || !self.has_room(&entry.member) || !tier(&entry.member) {
                    continue;
                }
                if best.is_none_or(|best| self.is_lighter(entry, best, now, fleet)) {
                    best = Some(entry);
                }
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }

    /// Offers the request to an endpoint that waits for one that decides.
    #[cold]
    fn probe(&self, call: &Call, out: &[u64], fleet: &Fleet) -> Option<(&Entry<S>, Lease)> {
        let now = context::now();
        let health = &self.options.health;
        let untried = |entry: &&Entry<S>| {
            let member = &entry.member;
            self.has_room(member) && !out.contains(&member.id) && !call.has_tried(member.id)
        };
        for entry in self.entries.iter().filter(untried) {
            if let Some(right) = entry.member.health.lease(now, health, &fleet.ledger) {
                let limit =
                    self.attempt_limit.map_or(health.probe_limit, |limit| limit.min(health.probe_limit));
                let (member, stamp) = (entry.member.clone(), Some(fleet.stamp(now)));
                return Some((
                    entry,
                    Lease::begin(member, entry.incarnation, stamp, Some(limit), Some(right)),
                ));
            }
        }
        None
    }

    /// Why nothing was picked, and whether waiting helps.
    #[cold]
    fn nothing(&self, out: &[u64], fleet: &Fleet) -> Picked<'_, S> {
        let now = context::now();
        let refuse = |reason| Error::new(reason).with_client(fleet.label.clone());
        match self.resolved {
            Resolved::Pending => return Picked::Wait,
            Resolved::Absent | Resolved::To(0) => return Picked::Refuse(refuse(Reason::Absent)),
            Resolved::To(_) if self.entries.is_empty() => return Picked::Wait,
            Resolved::To(_) => {}
        }
        let mut nearest: Option<Instant> = None;
        for entry in &self.entries {
            let member = &entry.member;
            if out.contains(&member.id) || self.allows(member) || !self.has_room(member) {
                // It is only not ready, or full, or became available just now.
                return Picked::Wait;
            }
            match entry.member.health.backing_off() {
                Some(until) => nearest = Some(nearest.map_or(until, |nearest| nearest.min(until))),
                None => return Picked::Refuse(refuse(Reason::NoEndpoint)),
            }
        }
        let wait = nearest.map_or_else(Default::default, |until| until.saturating_duration_since(now));
        Picked::Refuse(refuse(Reason::BackingOff).with_retry_after(wait))
    }
}
