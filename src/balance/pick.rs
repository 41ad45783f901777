//! Which endpoint gets the request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    choice::{EXPLORE, Look, distinct, lightest},
    distribution::Sticky,
    estimator::At,
    fleet::{Fleet, Stamp},
    lease::Lease,
    member::Member,
    options::{Load, Panic},
    order::{ByKey, Order},
    pool::Pool,
    snapshot::{Entry, Resolved, Snapshot, Unconnected},
    stride::Stride,
    told::slowed,
};
use crate::{
    context::{self, Call},
    error::{Error, Reason},
    hash::mix,
    health::Operation,
    random::{Random, below, unit},
    sync::Ordering::Relaxed,
};

/// Endpoints drawn before the whole pool is looked at. With half of it unusable, one pick in 256 gets there.
const DRAWS: u32 = 8;
/// Draws by weight before a ramp is no longer held against an endpoint.
const RAMP_DRAWS: usize = 16;

/// Turns that are asked for before a draw by weight takes their place.
const TURNS: u32 = 64;
/// Endpoints that a key looks at, the same ones again and again included, before the least loaded is taken.
const STEPS: usize = 4_096;

/// What a request wants of a pick, where that is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: Option<u64>,
    pub(crate) host: Option<&'a str>,
    /// The number of its operation; 0 where none has a health of its own.
    pub(crate) operation: u16,
    /// The operation, if some endpoint is without it.
    pub(crate) kept: Option<Arc<Operation>>,
}

impl Wanted<'_> {
    /// Whether the request is kept from `member`, because of its operation.
    #[inline]
    pub(crate) fn is_kept_from(&self, member: &Member) -> bool {
        self.kept.as_ref().is_some_and(|operation| operation.is_away(member.id))
    }
}

/// What naming an endpoint comes to.
enum Named<'a, S> {
    Is(&'a Entry<S>),
    /// None is named that counts.
    No,
    /// It must be that one, which is full or not ready, or not known yet.
    Busy,
    /// It must be that one, which may not be used or is not there.
    Away,
}

/// What a pick comes to.
pub(crate) enum Picked<'a, S> {
    /// This endpoint, with a place in flight there.
    One(&'a Entry<S>, Lease),
    /// Nothing now; what is waited for may come.
    Wait,
    /// Nothing, and waiting will not help.
    Refuse(Error),
}

/// Calls a method for as many endpoints as are drawn: the number is known when it is compiled.
macro_rules! of_choices {
    ($choices:expr, $own:ident.$method:ident($($argument:expr),*)) => {
        match $choices {
            0 => None,
            1 => $own.$method::<1>($($argument),*),
            2 => $own.$method::<2>($($argument),*),
            3 => $own.$method::<3>($($argument),*),
            4 => $own.$method::<4>($($argument),*),
            5 => $own.$method::<5>($($argument),*),
            6 => $own.$method::<6>($($argument),*),
            7 => $own.$method::<7>($($argument),*),
            _ => $own.$method::<8>($($argument),*),
        }
    };
}

/// What is to be seen of an entry.
#[inline(always)]
fn look<S>(index: u32, entry: &Entry<S>, by_share: f32, at: Option<At>) -> Look {
    let member = &entry.member;
    // Signed, because that is one instruction to convert.
    let in_flight = member.in_flight.load(Relaxed) as i32 as f32;
    let (mean, weight, is_silent) = at
        .and_then(|at| member.known(at))
        .map_or((0.0, 0.0, false), |known| (known.mean, known.weight, known.is_silent));
    Look { index, in_flight, by_share, mean, weight, is_silent }
}

impl<S> Snapshot<S> {
    /// The usual pick: the first attempt of a request, no endpoint waits for a probe, and all weights are equal. `None`
    /// where that is not so, or where none that was drawn may be used: then [`pick`](Self::pick) goes on.
    ///
    /// A function of its own, in which all that the draws need has a register.
    #[inline(never)]
    pub(crate) fn pick_of_few(&self, now: Option<Stamp>, fleet: &Fleet) -> Option<&Entry<S>> {
        let limited = self.most != u32::MAX;
        if limited || fleet.ledger.wants_probes() || context::has_tried() {
            return None;
        }
        if !self.pool.usual || self.pool.len < 2 {
            return self.pick_of_pools(now, fleet);
        }
        if self.looks_closer {
            return self.close_pick(&self.pool, now, fleet);
        }
        // The only pool begins where the entries do.
        of_choices!(self.choices.min(self.pool.len), self.usual_of(&self.entries, &self.pool, now, fleet))
    }

    /// The usual pick where it looks at more than is usual.
    #[inline(never)]
    fn close_pick(&self, pool: &Pool, now: Option<Stamp>, fleet: &Fleet) -> Option<&Entry<S>> {
        let fits = |entry: &Entry<S>| entry.member.is_allowed(pool.panic);
        of_choices!(self.choices.min(pool.len), self.best_of(pool, now, fleet, &fits, self.fresh))
    }

    /// The usual pick where there are several pools.
    #[inline(never)]
    fn pick_of_pools(&self, now: Option<Stamp>, fleet: &Fleet) -> Option<&Entry<S>> {
        let pools = self.pools.as_ref().filter(|pools| pools.usual)?;
        let pool = pools.draw(fleet.random.next() as u32)?;
        if self.looks_closer {
            return self.close_pick(pool, now, fleet);
        }
        of_choices!(self.choices.min(pool.len), self.usual_of(self.entries_of(pool), pool, now, fleet))
    }

    /// Draws a few of `pool`, which `entries` begin with and which are all alike, and takes the least loaded of those that
    /// may be used; `None` if none may.
    #[inline]
    fn usual_of<'a, const D: usize>(
        &'a self,
        entries: &'a [Entry<S>],
        pool: &Pool,
        now: Option<Stamp>,
        fleet: &Fleet,
    ) -> Option<&'a Entry<S>> {
        let (drawn, explores) = distinct::<D>(pool.len, &*fleet.random);
        let at = self.at(now, fleet);
        let looks: [Look; D] = std::array::from_fn(|draw| match entries.get(drawn[draw] as usize) {
            Some(entry) if entry.member.is_allowed(pool.panic) => look(drawn[draw], entry, 1.0, at),
            _ => Look::away(drawn[draw]),
        });
        // Draws have no order, so a tie for the first is a tie at random.
        let best = lightest(&looks, explores)?;
        entries.get(best.index as usize)
    }

    /// The same of those that fit, by weight where weights differ; else those first that have answered within so many ticks.
    fn best_of<const D: usize>(
        &self,
        pool: &Pool,
        now: Option<Stamp>,
        fleet: &Fleet,
        fits: &dyn Fn(&Entry<S>) -> bool,
        fresh: u32,
    ) -> Option<&Entry<S>> {
        let (random, entries) = (&*fleet.random, self.entries_of(pool));
        let (mut drawn, mut explores) = distinct::<D>(pool.len, random);
        if !pool.plain {
            drawn = std::array::from_fn(|_| self.by_weight(pool, now, random) as u32);
        } else if fresh != 0
            && let Some(now) = now
        {
            let word = random.next();
            if explores {
                explores = word.is_multiple_of(EXPLORE);
            } else {
                fleet.answered.draw(word, now, fresh, pool, &mut drawn);
            }
        }
        let at = self.at(now, fleet);
        let mut looks: [Look; D] = std::array::from_fn(|draw| match entries.get(drawn[draw] as usize) {
            Some(entry) if fits(entry) => self.look(drawn[draw], entry, now, at, explores && draw == 0),
            _ => Look::away(drawn[draw]),
        });
        self.guess(&mut looks[usize::from(explores)..], entries);
        let best = self.best(&looks, explores, fleet)?;
        if self.fresh != 0 {
            fleet.answered.take(pool.start + best.index);
        }
        entries.get(best.index as usize)
    }

    /// Picks for `call`, which wants this, leaving out the endpoints in `out`, which have refused or are not ready.
    pub(crate) fn pick(&self, call: &Call, wanted: &Wanted<'_>, out: &[u64], fleet: &Fleet) -> Picked<'_, S> {
        // The clock is not read where nothing goes by time.
        let now = self.timed.then(|| fleet.now());
        // After a probe that failed the request is owed an endpoint that is known to be good.
        if call.repeatable
            && !call.probe
            && fleet.ledger.wants_probes()
            && let Some((entry, lease)) = self.probe(call, wanted, out, fleet)
        {
            return Picked::One(entry, lease.of_operation(wanted.operation));
        }
        if call.repeatable
            && !call.probe
            && let Some(operation) = &wanted.kept
            && operation.wants_probes()
            && let Some((entry, lease)) = self.operation_probe(call, wanted, operation, out, fleet)
        {
            return Picked::One(entry, lease);
        }
        loop {
            let found = match self.named(call, wanted, out) {
                Named::Is(entry) => Some(entry),
                Named::No => {
                    let pool = self.pool_for(call, wanted, fleet);
                    let drawn = self.draw(pool, now, call, wanted, out, fleet);
                    drawn.or_else(|| self.scan(pool, now, call, wanted, out, fleet))
                }
                Named::Busy => return Picked::Wait,
                Named::Away => {
                    let error = Error::new(Reason::NoEndpoint).with_client(fleet.label.clone());
                    return Picked::Refuse(error);
                }
            };
            let Some(entry) = found else { return self.nothing(out, fleet) };
            let (member, incarnation) = (entry.member.clone(), entry.incarnation);
            if let Some(lease) = Lease::begin_within(self.most, member, incarnation, now, self.attempt_limit)
            {
                return Picked::One(entry, lease.of_operation(wanted.operation));
            }
        }
    }

    /// The pool that this attempt goes to. What has failed in one zone is tried in another: the zone may be cut off.
    fn pool_for(&self, call: &Call, wanted: &Wanted<'_>, fleet: &Fleet) -> &Pool {
        let Some(pools) = &self.pools else { return &self.pool };
        let word = wanted.key.map_or_else(|| fleet.random.next(), mix);
        let pool = pools.draw(word as u32).unwrap_or(&self.pool);
        if call.is_untried() {
            return pool;
        }
        let fresh = |pool: &Pool| {
            pool.len > 0 && !self.entries_of(pool).iter().any(|entry| call.has_tried(entry.member.id))
        };
        if fresh(pool) {
            pool
        } else {
            pools.another(pool, fleet.random.next() as u32, fresh).unwrap_or(pool)
        }
    }

    /// The next of the pool by its rule: the least loaded of a few, whose turn it is, or whom the key prefers.
    fn draw(
        &self,
        pool: &Pool,
        now: Option<Stamp>,
        call: &Call,
        wanted: &Wanted<'_>,
        out: &[u64],
        fleet: &Fleet,
    ) -> Option<&Entry<S>> {
        let anew = call.is_untried() && out.is_empty();
        let fits = |entry: &Entry<S>| {
            let member = &entry.member;
            member.is_allowed(pool.panic)
                && self.has_room(member)
                && (anew || (!call.has_tried(member.id) && !out.contains(&member.id)))
                && !wanted.is_kept_from(member)
        };
        match (&pool.order, wanted.key) {
            (Order::InTurn(stride), _) => self.in_turn(pool, stride.as_ref(), now, fleet, fits),
            (Order::ByKey(by_key), Some(key)) => self.by_key(pool, by_key, key, fits),
            (Order::LeastLoaded | Order::ByKey(_), _) => {
                // Where those that have answered last do not fit, they would come first again.
                let last = (self.fresh != 0).then_some(self.fresh);
                let any = (0..DRAWS.div_ceil(self.choices)).map(|_| 0);
                last.into_iter().chain(any).find_map(|fresh| {
                    of_choices!(self.choices.min(pool.len), self.best_of(pool, now, fleet, &fits, fresh))
                })
            }
        }
    }

    /// Whose turn it is of those that fit. Where the weights pass over very many, a draw by weight gives the same shares.
    fn in_turn(
        &self,
        pool: &Pool,
        stride: Option<&Stride>,
        now: Option<Stamp>,
        fleet: &Fleet,
        fits: impl Fn(&Entry<S>) -> bool,
    ) -> Option<&Entry<S>> {
        let (entries, random) = (self.entries_of(pool), &*fleet.random);
        let whole = |entry: &&Entry<S>| {
            !pool.ramping || self.ramp(entry, now).is_none_or(|share| unit(random.next()) < share)
        };
        let turns = (0..TURNS).filter_map(|_| {
            let turn = fleet.turn();
            let place = stride.map_or_else(
                || turn.checked_rem(entries.len() as u64).map(|place| place as usize),
                |stride| stride.at(turn),
            );
            entries.get(place?).filter(whole)
        });
        turns
            .chain((0..DRAWS).filter_map(|_| entries.get(self.by_weight(pool, now, random))))
            .find(|entry| fits(entry))
    }

    /// Whom the key prefers of those that fit and are not over their bound.
    fn by_key(
        &self,
        pool: &Pool,
        by_key: &ByKey,
        key: u64,
        fits: impl Fn(&Entry<S>) -> bool,
    ) -> Option<&Entry<S>> {
        let mut slots = None;
        by_key.prefer(key).take(STEPS).find_map(|(place, share)| {
            let entry = self.entries.get(place?).filter(|entry| fits(entry))?;
            let in_flight = entry.member.in_flight.load(Relaxed);
            // Everybody may have one; only with more is it worth counting what the others have.
            let within = in_flight == 0 || {
                let slots = slots.get_or_insert_with(|| by_key.slots(self.entries_of(pool), key));
                slots.as_ref().is_none_or(|slots| in_flight < slots(share))
            };
            within.then_some(entry)
        })
    }

    /// The endpoint that the request names.
    fn named(&self, call: &Call, wanted: &Wanted<'_>, out: &[u64]) -> Named<'_, S> {
        let Some(host) = wanted.host else { return Named::No };
        let required = self.options.sticky == Sticky::Require;
        let mut busy = false;
        for name in host.split(',') {
            let place = self.names.get(name.trim()).map(|place| *place as usize);
            let Some(entry) = place.and_then(|place| self.entries.get(place)) else { continue };
            let member = &entry.member;
            // What runs beside another attempt goes elsewhere, or nowhere.
            let again = required && !call.hedge;
            let may = member.health.is_available()
                && (again || !call.has_tried(member.id))
                && (required || !wanted.is_kept_from(member));
            if may && self.has_room(member) && !out.contains(&member.id) {
                return Named::Is(entry);
            }
            busy |= may;
        }
        match (required, busy) {
            (false, _) => Named::No,
            (true, true) => Named::Busy,
            // Nobody knows yet.
            (true, false) if self.resolved == Resolved::Pending || self.is_coming(host) => Named::Busy,
            (true, false) => Named::Away,
        }
    }

    /// Whether an endpoint of these names is being connected for the first time.
    #[cold]
    fn is_coming(&self, names: &str) -> bool {
        self.unconnected.iter().filter(|one| one.is_coming()).any(|one| {
            let (address, instance) = (one.endpoint.address().to_string(), one.endpoint.instance());
            names.split(',').map(str::trim).any(|name| name == address || Some(name) == instance)
        })
    }

    /// Draws one place in the pool by weight and ramp.
    #[inline(never)]
    fn by_weight(&self, pool: &Pool, now: Option<Stamp>, random: &dyn Random) -> usize {
        let entries = self.entries_of(pool);
        let mut index = 0;
        for _ in 0..RAMP_DRAWS {
            let word = random.next();
            index = match &pool.alias {
                Some(alias) => alias.draw(word),
                None => below(word as u32, pool.len) as usize,
            };
            if !pool.ramping {
                return index;
            }
            let share = entries.get(index).and_then(|entry| self.ramp(entry, now));
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

    /// What is to be seen of an entry, whatever its weight, and whatever its server says: but for a pick that `explores` an idle
    /// one which nobody knows anything new of. It is heard of again only if it is asked.
    fn look(&self, index: u32, entry: &Entry<S>, now: Option<Stamp>, at: Option<At>, explores: bool) -> Look {
        let mut look = look(index, entry, self.by_share(entry, now), at);
        // Without latencies nobody knows when that was.
        if explores && look.in_flight == 0.0 && (look.is_silent || self.load == Load::InFlight) {
            return look;
        }
        if let Some(told) = entry.member.told.others().filter(|_| self.options.reports) {
            let (told, slowed) = (told as f32, slowed(told));
            match self.load {
                Load::InFlight => look.in_flight += told,
                Load::HotCold { .. } => {
                    (look.mean, look.in_flight) = (look.mean * slowed, look.in_flight + told);
                }
                // It is compared by what it takes now; and where many are, one more makes less of a difference, as far as it is
                // known what it takes: else the one with the most would be given all of a burst.
                Load::Latency { .. } | Load::Quantile { .. } | Load::PeakEwma { .. } => {
                    look.mean *= slowed;
                    look.crowd(slowed);
                }
            }
        }
        look
    }

    /// Takes those whose servers say nothing for the mean of those that do: that nobody is there is not what they have said. In a
    /// fleet of which a part reports they would get everything where what others have in flight counts whole, and little where
    /// it makes one more count for less.
    fn guess(&self, looks: &mut [Look], entries: &[Entry<S>]) {
        if !self.options.reports {
            return;
        }
        let told = |look: &Look| entries.get(look.index as usize)?.member.told.others();
        let known = || looks.iter().filter(|look| look.in_flight.is_finite()).filter_map(told);
        let (count, sum) =
            known().fold((0_u32, 0.0_f32), |(count, sum), told| (count + 1, sum + told as f32));
        if count == 0 {
            return;
        }
        let mean = sum / count as f32;
        for look in looks.iter_mut().filter(|look| told(look).is_none()) {
            match self.load {
                Load::InFlight | Load::HotCold { .. } => look.in_flight += mean,
                Load::Latency { .. } | Load::Quantile { .. } | Load::PeakEwma { .. } => {
                    look.crowd(slowed(mean as u32))
                }
            }
        }
    }

    /// The one to take of those that were looked at.
    fn best<'a>(&self, looks: &'a [Look], explores: bool, fleet: &Fleet) -> Option<&'a Look> {
        match self.load {
            Load::HotCold { cold, .. } => fleet.heat.choose(looks, cold.get() as f32, explores),
            _ => lightest(looks, explores),
        }
    }

    /// The mean share of the traffic by the endpoint's own: 1 where all are alike.
    fn by_share(&self, entry: &Entry<S>, now: Option<Stamp>) -> f32 {
        let ramp = self.ramp(entry, now).map_or(1.0, |share| share as f32);
        1.0 / (entry.weight * ramp)
    }

    /// The share of its weight that the endpoint has, while it works up to all of it.
    fn ramp(&self, entry: &Entry<S>, now: Option<Stamp>) -> Option<f64> {
        let (share, _) = entry.member.ramp(now?.at, &self.options.slow_start)?;
        Some(share)
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
    /// policy, for any that may be used at all; each time at those of the pool that was drawn first, then from the nearest
    /// on.
    #[cold]
    fn scan(
        &self,
        pool: &Pool,
        now: Option<Stamp>,
        call: &Call,
        wanted: &Wanted<'_>,
        out: &[u64],
        fleet: &Fleet,
    ) -> Option<&Entry<S>> {
        // None is available at all, and the snapshot that says so is not there yet.
        let fail_open = self.options.panic == Panic::FailOpen
            && !self.entries.iter().any(|entry| entry.member.health.is_available());
        let word = fleet.random.next() as u32;
        let find = |fits: &dyn Fn(&Member, bool) -> bool| {
            let drawn = std::iter::once((self.entries_of(pool), pool.panic));
            drawn.chain(self.parts()).find_map(|(entries, panic)| {
                let fits = |member: &Member| fits(member, panic) && !out.contains(&member.id);
                self.lightest_of(entries, word, now, fleet, &fits)
            })
        };
        let well = |member: &Member, panic| member.is_allowed(panic) && !wanted.is_kept_from(member);
        let fresh = find(&|member, panic| well(member, panic) && !call.has_tried(member.id));
        if call.hedge {
            // What runs beside another attempt goes elsewhere, or nowhere.
            return fresh;
        }
        fresh
            .or_else(|| find(&well))
            // What is well for other operations is better than nothing, if it was not tried.
            .or_else(|| find(&|member, panic| member.is_allowed(panic) && !call.has_tried(member.id)))
            .or_else(|| find(&|member, panic| member.is_allowed(panic)))
            .or_else(|| find(&|member, _| fail_open && member.health.is_usable_in_panic()))
    }

    /// The least loaded of all of these that fit; `word` decides where to begin, and so who gets a tie.
    fn lightest_of<'a>(
        &self,
        entries: &'a [Entry<S>],
        word: u32,
        now: Option<Stamp>,
        fleet: &Fleet,
        fits: &dyn Fn(&Member) -> bool,
    ) -> Option<&'a Entry<S>> {
        let (count, at) = (entries.len(), self.at(now, fleet));
        let start = below(word, count as u32) as usize;
        let mut looks: Vec<Look> = (0..count)
            .map(|offset| (start + offset) % count)
            .filter_map(|index| {
                let entry = entries.get(index)?;
                let fits = self.has_room(&entry.member) && fits(&entry.member);
                fits.then(|| self.look(index as u32, entry, now, at, false))
            })
            .collect();
        self.guess(&mut looks, entries);
        entries.get(self.best(&looks, false, fleet)?.index as usize)
    }

    /// Offers the request to an endpoint that waits for one that decides.
    #[cold]
    fn probe(
        &self,
        call: &Call,
        wanted: &Wanted<'_>,
        out: &[u64],
        fleet: &Fleet,
    ) -> Option<(&Entry<S>, Lease)> {
        let now = context::now();
        let health = &self.options.health;
        // A request that belongs somewhere probes nobody but that.
        let home = self.home(wanted);
        let untried = |entry: &&Entry<S>| {
            let member = &entry.member;
            home.is_none_or(|home| std::ptr::eq(home, *entry))
                && self.has_room(member)
                && !out.contains(&member.id)
                && !call.has_tried(member.id)
                // What fails there anyway proves nothing.
                && !wanted.is_kept_from(member)
        };
        for entry in self.entries.iter().filter(untried) {
            if let Some(right) = entry.member.health.lease(now, health, &fleet.ledger) {
                let limit = self.probe_limit();
                let (member, stamp) = (entry.member.clone(), Some(fleet.stamp(now)));
                return Some((
                    entry,
                    Lease::begin(member, entry.incarnation, stamp, Some(limit), Some(right)),
                ));
            }
        }
        None
    }

    /// Offers the request to an endpoint that waits for one of its operation that decides.
    #[cold]
    fn operation_probe(
        &self,
        call: &Call,
        wanted: &Wanted<'_>,
        operation: &Operation,
        out: &[u64],
        fleet: &Fleet,
    ) -> Option<(&Entry<S>, Lease)> {
        let now = context::now();
        let home = self.home(wanted);
        let untried = |entry: &&Entry<S>| {
            let member = &entry.member;
            home.is_none_or(|home| std::ptr::eq(home, *entry))
                && member.health.is_available()
                && self.has_room(member)
                && !out.contains(&member.id)
                && !call.has_tried(member.id)
        };
        self.entries.iter().filter(untried).find_map(|entry| {
            let right = operation.lease(entry.member.id, now, &self.options.health)?;
            let (member, stamp) = (entry.member.clone(), Some(fleet.stamp(now)));
            let lease = Lease::begin(member, entry.incarnation, stamp, Some(self.probe_limit()), None);
            Some((entry, lease.of_operation(wanted.operation).probing_operation(right)))
        })
    }

    /// How long an attempt may take that decides over a return.
    fn probe_limit(&self) -> Duration {
        let own = self.options.health.probe_limit;
        self.attempt_limit.map_or(own, |limit| limit.min(own))
    }

    /// Where a request belongs, whether that is available or not.
    fn home(&self, wanted: &Wanted<'_>) -> Option<&Entry<S>> {
        let named = wanted.host.and_then(|host| self.names.get(host.split(',').next()?.trim()));
        if let Some(place) = named {
            return self.entries.get(*place as usize);
        }
        let key = wanted.key?;
        let pool = match &self.pools {
            None => &self.pool,
            Some(pools) => pools.draw(mix(key) as u32)?,
        };
        match &pool.order {
            Order::ByKey(by_key) => self.entries.get(by_key.prefer(key).next()?.0?),
            Order::LeastLoaded | Order::InTurn(_) => None,
        }
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
        let all = || {
            self.parts().flat_map(|(entries, panic)| entries.iter().map(move |entry| (&entry.member, panic)))
        };
        // Whatever has become of the others, this one may be used as soon as it is ready, or has room, or it became available
        // just now; or its time is over, and the background task, whose timer knows whole milliseconds only, is about to see that.
        let fail_open = self.options.panic == Panic::FailOpen;
        let may_come = |member: &Member, panic| {
            out.contains(&member.id)
                || member.is_allowed(panic || fail_open)
                || member.health.backing_off().is_some_and(|until| until <= now)
        };
        if all().any(|(member, panic)| may_come(member, panic))
            || self.unconnected.iter().any(Unconnected::is_coming)
        {
            return Picked::Wait;
        }
        let mut nearest: Option<Instant> = None;
        for (member, _) in all() {
            match member.health.backing_off() {
                Some(until) => nearest = Some(nearest.map_or(until, |nearest| nearest.min(until))),
                None => return Picked::Refuse(refuse(Reason::NoEndpoint)),
            }
        }
        let wait = nearest.map_or_else(Default::default, |until| until.saturating_duration_since(now));
        Picked::Refuse(refuse(Reason::BackingOff).with_retry_after(wait))
    }
}
