//! Which endpoint gets the request.

use std::time::Instant;

use super::{
    choice::{Look, distinct, lightest},
    estimator::At,
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

/// Endpoints drawn before the whole pool is looked at. With half of it unusable, one pick in 256 gets there.
const DRAWS: u32 = 8;
/// Draws by weight before a ramp is no longer held against an endpoint.
const RAMP_DRAWS: usize = 16;

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
    /// where that is not so, or where none that was drawn may be used: then [`pick`](Self::pick) goes on.
    #[inline]
    pub(crate) fn pick_of_few(&self, now: Option<Stamp>, fleet: &Fleet) -> Option<&Entry<S>> {
        let pool = self.pool as u32;
        let limited = self.most != u32::MAX;
        if pool < 2 || !self.plain || limited || fleet.ledger.wants_probes() || context::has_tried() {
            return None;
        }
        self.best_of_few(now, fleet, |entry| self.allows(&entry.member))
    }

    /// Draws a few, and takes the least loaded of those that fit; `None` if none does.
    #[inline]
    fn best_of_few(
        &self,
        now: Option<Stamp>,
        fleet: &Fleet,
        fits: impl Fn(&Entry<S>) -> bool,
    ) -> Option<&Entry<S>> {
        match self.choices.min(self.pool as u32) {
            0 => None,
            1 => self.best_of::<1>(now, fleet, fits),
            2 => self.best_of::<2>(now, fleet, fits),
            3 => self.best_of::<3>(now, fleet, fits),
            4 => self.best_of::<4>(now, fleet, fits),
            5 => self.best_of::<5>(now, fleet, fits),
            6 => self.best_of::<6>(now, fleet, fits),
            7 => self.best_of::<7>(now, fleet, fits),
            _ => self.best_of::<8>(now, fleet, fits),
        }
    }

    fn best_of<const D: usize>(
        &self,
        now: Option<Stamp>,
        fleet: &Fleet,
        fits: impl Fn(&Entry<S>) -> bool,
    ) -> Option<&Entry<S>> {
        let random = &*fleet.random;
        let (mut drawn, explores) = distinct::<D>(self.pool as u32, random);
        if !self.plain {
            drawn = std::array::from_fn(|_| self.by_weight(now, random) as u32);
        }
        let at = self.at(now, fleet);
        let looks: [Look; D] = std::array::from_fn(|draw| match self.entries.get(drawn[draw] as usize) {
            Some(entry) if fits(entry) => self.look(drawn[draw], entry, now, at),
            _ => Look::away(drawn[draw]),
        });
        // Draws have no order, so a tie for the first is a tie at random.
        let best = lightest(&looks, explores)?;
        self.entries.get(best.index as usize)
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

    /// The least loaded of a few.
    fn draw(&self, now: Option<Stamp>, call: &Call, out: &[u64], fleet: &Fleet) -> Option<&Entry<S>> {
        let anew = call.is_untried() && out.is_empty();
        let fits = |entry: &Entry<S>| {
            let member = &entry.member;
            self.allows(member)
                && self.has_room(member)
                && (anew || (!call.has_tried(member.id) && !out.contains(&member.id)))
        };
        (0..DRAWS.div_ceil(self.choices)).find_map(|_| self.best_of_few(now, fleet, fits))
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

    /// When latency estimates are read, if the load goes by them.
    #[inline]
    fn at(&self, now: Option<Stamp>, fleet: &Fleet) -> Option<At> {
        now.filter(|_| self.load != Load::InFlight).map(|now| fleet.estimator.at(now.nanos))
    }

    /// What is to be seen of an entry.
    #[inline(always)]
    fn look(&self, index: u32, entry: &Entry<S>, now: Option<Stamp>, at: Option<At>) -> Look {
        let member = &entry.member;
        // Signed, because that is one instruction to convert.
        let in_flight = member.in_flight.load(Relaxed) as i32 as f32;
        let by_share = if self.plain { 1.0 } else { 1.0 / self.weight(entry, now) };
        let (mean, weight, is_silent) = at
            .and_then(|at| member.latency.known(at))
            .map_or((0.0, 0.0, false), |known| (known.mean, known.weight, known.is_silent));
        Look { index, in_flight, by_share, mean, weight, is_silent }
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
        if self.most == u32::MAX {
            return true;
        }
        let in_flight = member.in_flight.load(Relaxed);
        in_flight < self.most && member.width.as_ref().is_none_or(|width| in_flight < width.most())
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
        let at = self.at(now, fleet);
        // What runs beside another attempt goes elsewhere, or nowhere.
        let tiers = if call.hedge { &tiers[..1] } else { &tiers[..] };
        for tier in tiers {
            let looks: Vec<Look> = (0..count)
                .map(|offset| (start + offset) % count)
                .filter_map(|index| {
                    let entry = &self.entries[index];
                    let fits = !out.contains(&entry.member.id)
                        && self.has_room(&entry.member)
                        && tier(&entry.member);
                    fits.then(|| self.look(index as u32, entry, now, at))
                })
                .collect();
            if let Some(best) = lightest(&looks, false) {
                return self.entries.get(best.index as usize);
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
        if context::call().is_some_and(|call| call.hedge) {
            return Picked::Refuse(refuse(Reason::NoEndpoint));
        }
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
