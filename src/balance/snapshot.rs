//! The immutable picture of the fleet that picks read.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    distribution::Sticky,
    groups::{self, LevelState, Seen},
    member::Member,
    options::{BalanceOptions, Load},
    order::{ByKey, Order, Table},
    pool::{Pool, Pools},
};
use crate::{Endpoint, error::Cause, sync::Ordering::Relaxed};

/// An endpoint with the service that reaches it.
pub(crate) struct Entry<S> {
    pub(crate) member: Arc<Member>,
    pub(crate) service: Arc<S>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Its weight as the registry says, relative to the mean of all that picks draw from together, without the ramp.
    pub(crate) weight: f32,
    /// How much of the endpoint is this client's, where a subset has a part of it; else 1.
    pub(crate) part: f32,
    /// The number of the connection.
    pub(crate) incarnation: u32,
}

impl<S> Entry<S> {
    /// A weight that can be computed with: no registry's number makes it nothing or infinite.
    pub(crate) fn relative(weight: f64) -> f32 {
        weight.clamp(1e-12, 1e12) as f32
    }

    /// Makes weights relative to the mean of these.
    fn level(entries: &mut [Self]) {
        let weight = |entry: &Self| entry.endpoint.weight() / 1e6 * f64::from(entry.part);
        let mean = entries.iter().map(weight).sum::<f64>() / entries.len().max(1) as f64;
        for entry in entries {
            entry.weight = Self::relative(weight(entry) / mean);
        }
    }
}

impl<S> Clone for Entry<S> {
    fn clone(&self) -> Self {
        Self {
            member: self.member.clone(),
            service: self.service.clone(),
            endpoint: self.endpoint.clone(),
            ..*self
        }
    }
}

/// An endpoint that no connection stands to.
#[derive(Clone, Debug)]
pub(crate) struct Unconnected {
    pub(crate) member: Arc<Member>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) part: f32,
    /// When it will be tried again; `None` while it is being tried.
    pub(crate) redial: Option<Instant>,
    /// Why it is not connected.
    pub(crate) cause: Option<Cause>,
}

impl Unconnected {
    /// Whether it is being connected for the first time, which says nothing yet, and may be used then; what could not be connected
    /// is away as others are.
    pub(crate) fn is_coming(&self) -> bool {
        self.cause.is_none() && self.member.health.is_usable_in_panic()
    }
}

/// Whether the name is resolved, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// Not yet.
    Pending,
    /// To this many endpoints, connected or not.
    To(usize),
    /// The name does not exist.
    Absent,
}

/// What a pick needs to know, all of one moment.
pub(crate) struct Snapshot<S> {
    pub(crate) generation: u64,
    pub(crate) resolved: Resolved,
    /// The endpoints that have a service: pool after pool, then those that are in none.
    pub(crate) entries: Box<[Entry<S>]>,
    /// What picks draw from; empty where there are several.
    pub(crate) pool: Pool,
    /// What picks draw from, where priorities or zones are told apart.
    pub(crate) pools: Option<Box<Pools>>,
    /// The priorities, the first of which is used first.
    pub(crate) levels: Vec<LevelState>,
    /// How well the own zone does beside the others, from 0 to 1.
    fit: f64,
    /// Where the endpoints are, by address and by instance, if requests may ask for one.
    pub(crate) names: HashMap<Box<str>, u32>,
    pub(crate) load: Load,
    /// Whether more is looked at than is usual: what servers say, or which endpoints are hot.
    pub(crate) looks_closer: bool,
    /// How many ticks old an answer is at most for its endpoint to be drawn; 0 where any is drawn.
    pub(crate) fresh: u32,
    /// How many endpoints are drawn for a request.
    pub(crate) choices: u32,
    /// Requests that may be in flight at one endpoint.
    pub(crate) most: u32,
    /// Whether attempts are timed: something goes by time.
    pub(crate) timed: bool,
    pub(crate) attempt_limit: Option<Duration>,
    pub(crate) options: Arc<BalanceOptions>,
    /// What is not connected, and, for the status only, why the last look-up failed.
    pub(crate) unconnected: Vec<Unconnected>,
    pub(crate) failure: Option<Cause>,
}

impl<S> Snapshot<S> {
    /// Nothing is known yet.
    pub(crate) fn empty(options: Arc<BalanceOptions>) -> Self {
        Self {
            generation: 0,
            resolved: Resolved::Pending,
            entries: Box::new([]),
            pool: Pool::default(),
            pools: None,
            levels: Vec::new(),
            fit: 1.0,
            names: HashMap::new(),
            most: options.most(),
            timed: true,
            load: options.load,
            looks_closer: options.looks_closer(),
            fresh: options.fresh(),
            choices: options.choices,
            attempt_limit: options.attempt_limit,
            options,
            unconnected: Vec::new(),
            failure: None,
        }
    }

    /// A picture of `entries`, and of those that are not connected, at `now`, which takes the place of `before`; `fit` is how
    /// well the own zone does. Returns also when the last ramp ends.
    pub(crate) fn of(
        resolved: Resolved,
        entries: Vec<Entry<S>>,
        unconnected: Vec<Unconnected>,
        options: Arc<BalanceOptions>,
        before: &Self,
        fit: f64,
        now: Instant,
    ) -> (Self, Option<Instant>) {
        let everything = seen(&entries, &unconnected);
        let divided = groups::divide(&everything, &options, fit, now);
        let tables = if options.distribution.goes_by_key() {
            before.tables(&everything, &divided.of, divided.groups.len(), &options)
        } else {
            Vec::new()
        };
        let several = divided.groups.len() > 1;
        let mut parts: Vec<Vec<Entry<S>>> = divided.groups.iter().map(|_| Vec::new()).collect();
        if several {
            for (entry, group) in entries.into_iter().zip(&divided.of) {
                parts[*group].push(entry);
            }
        } else if let Some(part) = parts.first_mut() {
            *part = entries;
        }
        let (mut ordered, mut apart, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        let mut ramp_ends: Option<Instant> = None;
        for (group, part) in divided.groups.iter().zip(parts) {
            let start = ordered.len();
            let (available, aside): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|entry| entry.member.health.is_available());
            ordered.extend(available);
            if group.panic {
                ordered.extend(aside);
            } else {
                apart.extend(aside);
            }
            if several {
                Entry::level(&mut ordered[start..]);
            }
            let (pool, ends) = Pool::of(start, &ordered[start..], group, &options, now);
            ramp_ends = ramp_ends.max(ends);
            pools.push(pool);
        }
        ordered.extend(apart);
        if !tables.is_empty() {
            let places = (0..).zip(&ordered);
            let index: HashMap<u64, u32> = places.map(|(place, entry)| (entry.member.id, place)).collect();
            for (pool, table) in pools.iter_mut().zip(tables) {
                pool.order = Order::ByKey(ByKey::new(table, &index, options.distribution.bound()));
            }
        }
        let names = if options.sticky == Sticky::Off { HashMap::new() } else { names(&ordered) };
        let shares: Vec<f64> = divided.groups.iter().map(|group| group.share).collect();
        let (pool, pools) = match pools.pop() {
            Some(only) if pools.is_empty() => (only, None),
            Some(last) => {
                pools.push(last);
                (Pool::default(), Some(Box::new(Pools::new(pools, &shares))))
            }
            None => (Pool::default(), None),
        };
        let snapshot = Self {
            generation: before.generation + 1,
            resolved,
            entries: ordered.into(),
            pool,
            pools,
            levels: divided.levels,
            fit,
            names,
            most: options.most(),
            timed: ramp_ends.is_some() || options.goes_by_time(),
            load: options.load,
            looks_closer: options.looks_closer(),
            fresh: options.fresh(),
            choices: options.choices,
            attempt_limit: options.attempt_limit,
            options,
            unconnected,
            failure: None,
        };
        (snapshot, ramp_ends)
    }

    /// The same picture under other options.
    pub(crate) fn with_options(&self, options: Arc<BalanceOptions>, now: Instant) -> Self {
        let (entries, unconnected) = (self.entries.to_vec(), self.unconnected.clone());
        let (mut snapshot, _) = Self::of(self.resolved, entries, unconnected, options, self, self.fit, now);
        snapshot.failure = self.failure.clone();
        snapshot
    }

    /// Tells endpoints where they stand in it, where somebody goes by that.
    pub(crate) fn tell_places(&self) {
        if self.fresh != 0 {
            for (place, entry) in (0..).zip(&self.entries) {
                entry.member.place.store(place, Relaxed);
            }
        }
    }

    /// The table of each group, those of this picture where they still hold.
    fn tables(
        &self,
        seen: &[Seen<'_>],
        groups_of: &[usize],
        groups: usize,
        options: &BalanceOptions,
    ) -> Vec<Arc<Table>> {
        let mut parts: Vec<Vec<(u64, &str, f64)>> = vec![Vec::new(); groups];
        for (one, group) in seen.iter().zip(groups_of) {
            // As the registry says: a part of an endpoint has all of its keys that this client has.
            parts[*group].push((one.member.id, &one.member.name, one.endpoint.weight()));
        }
        let before = || {
            self.all_pools().iter().filter_map(|pool| match &pool.order {
                Order::ByKey(by_key) => Some(&by_key.table),
                _ => None,
            })
        };
        parts.into_iter().map(|part| Table::of(options.distribution, part, before())).collect()
    }

    /// Whether what a request is decides where it goes.
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.options.distribution.goes_by_key()
            || self.options.sticky != Sticky::Off
            || self.options.health.per_operation.is_some()
    }

    /// Whether what was measured since would give a zone another share, by more than a hundredth.
    pub(crate) fn has_drifted(&self, fit: f64, now: Instant) -> bool {
        let divided = groups::divide(&seen(&self.entries, &self.unconnected), &self.options, fit, now);
        let shares = |levels: &[LevelState]| -> Vec<f64> {
            levels.iter().flat_map(|level| &level.zones).map(|zone| zone.share).collect()
        };
        let (before, after) = (shares(&self.levels), shares(&divided.levels));
        before.len() != after.len() || before.iter().zip(&after).any(|(a, b)| (a - b).abs() > DRIFT)
    }

    /// What picks draw from, the nearest first.
    pub(crate) fn all_pools(&self) -> &[Pool] {
        self.pools.as_ref().map_or(std::slice::from_ref(&self.pool), |pools| &pools.pools)
    }

    /// The entries of a pool.
    #[inline]
    pub(crate) fn entries_of(&self, pool: &Pool) -> &[Entry<S>] {
        self.entries.get(pool.start as usize..(pool.start + pool.len) as usize).unwrap_or_default()
    }

    /// The entries that are in no pool.
    fn apart(&self) -> &[Entry<S>] {
        let pooled: u32 = self.all_pools().iter().map(|pool| pool.len).sum();
        self.entries.get(pooled as usize..).unwrap_or_default()
    }

    /// All entries, pool by pool, then those in none, and whether ejections are set aside there.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&[Entry<S>], bool)> {
        let pools = self.all_pools().iter().map(|pool| (self.entries_of(pool), pool.panic));
        pools.chain(std::iter::once((self.apart(), false)))
    }

    /// Whether ejections are set aside somewhere.
    pub(crate) fn panics(&self) -> bool {
        self.all_pools().iter().any(|pool| pool.panic)
    }

    /// Whether the name stands for nothing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.resolved, Resolved::Absent | Resolved::To(0))
    }

    /// Whether this connection of this endpoint is part of it.
    pub(crate) fn has(&self, id: u64, incarnation: u32) -> bool {
        self.entries.iter().any(|entry| entry.member.id == id && entry.incarnation == incarnation)
    }

    /// Whether some endpoint may be given requests now.
    pub(crate) fn has_available(&self) -> bool {
        self.parts().any(|(entries, panic)| entries.iter().any(|entry| entry.member.is_allowed(panic)))
    }
}

/// A change of a zone's share that is worth a new picture.
const DRIFT: f64 = 0.01;

/// Where each endpoint is, by its address and by its instance.
fn names<S>(entries: &[Entry<S>]) -> HashMap<Box<str>, u32> {
    let mut names = HashMap::new();
    for (place, entry) in (0..).zip(entries) {
        names.insert(entry.endpoint.address().to_string().into(), place);
        if let Some(instance) = entry.endpoint.instance() {
            names.insert(instance.into(), place);
        }
    }
    names
}

/// All endpoints as the division sees them: those with a service first.
fn seen<'a, S>(entries: &'a [Entry<S>], unconnected: &'a [Unconnected]) -> Vec<Seen<'a>> {
    let connected = entries.iter().map(|entry| Seen {
        member: &entry.member,
        endpoint: &entry.endpoint,
        weight: entry.endpoint.weight() / 1e6 * f64::from(entry.part),
        connected: true,
        known: true,
    });
    let others = unconnected.iter().map(|one| Seen {
        member: &one.member,
        endpoint: &one.endpoint,
        weight: one.endpoint.weight() / 1e6 * f64::from(one.part),
        connected: false,
        known: one.cause.is_some(),
    });
    connected.chain(others).collect()
}
