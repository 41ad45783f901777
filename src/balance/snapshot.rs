//! The immutable picture of the fleet that picks read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    alias::Alias,
    member::Member,
    options::{BalanceOptions, Load, Panic},
};
use crate::error::Cause;

/// An endpoint with the service that reaches it.
pub(crate) struct Entry<S> {
    pub(crate) member: Arc<Member>,
    pub(crate) service: Arc<S>,
    /// Its weight as the registry says, relative to the mean of all, without the ramp.
    pub(crate) weight: f32,
    /// The number of the connection.
    pub(crate) incarnation: u32,
}

impl<S> Entry<S> {
    /// A weight that can be computed with: no registry's number makes it nothing or infinite.
    pub(crate) fn relative(weight: f64) -> f32 {
        weight.clamp(1e-12, 1e12) as f32
    }
}

impl<S> Clone for Entry<S> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone(), service: self.service.clone(), ..*self }
    }
}

/// An endpoint that no connection stands to.
#[derive(Clone, Debug)]
pub(crate) struct Unconnected {
    pub(crate) member: Arc<Member>,
    /// When it will be tried again; `None` while it is being tried.
    pub(crate) redial: Option<Instant>,
    /// Why it is not connected.
    pub(crate) cause: Option<Cause>,
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
    /// The endpoints that have a service; those that were available when this was published come first.
    pub(crate) entries: Box<[Entry<S>]>,
    /// Picks draw from the first so many entries.
    pub(crate) pool: usize,
    /// Draws by weight, where weights differ.
    pub(crate) alias: Option<Alias>,
    /// All weights are equal, and nobody is working up to its share.
    pub(crate) plain: bool,
    /// Some endpoints are working up to their share.
    pub(crate) ramping: bool,
    /// Fewer endpoints are available than the panic threshold asks for.
    pub(crate) too_few: bool,
    /// Ejections are set aside.
    pub(crate) panic: bool,
    pub(crate) load: Load,
    /// How many endpoints are drawn for a request.
    pub(crate) choices: u32,
    /// Requests that may be in flight at one endpoint.
    pub(crate) most: u32,
    /// Whether attempts are timed: something goes by time.
    pub(crate) timed: bool,
    pub(crate) attempt_limit: Option<Duration>,
    pub(crate) options: Arc<BalanceOptions>,
    /// For the status only: what is not connected, and why the last look-up failed.
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
            pool: 0,
            alias: None,
            plain: true,
            ramping: false,
            too_few: false,
            panic: false,
            most: options.most(),
            timed: true,
            load: options.load,
            choices: options.choices,
            attempt_limit: options.attempt_limit,
            options,
            unconnected: Vec::new(),
            failure: None,
        }
    }

    /// A picture of `entries`, and of those that are not connected, at `now`. Returns also when the last ramp ends.
    pub(crate) fn of(
        generation: u64,
        resolved: Resolved,
        entries: Vec<Entry<S>>,
        unconnected: Vec<Unconnected>,
        options: Arc<BalanceOptions>,
        now: Instant,
    ) -> (Self, Option<Instant>) {
        // What is being connected for the first time says nothing yet.
        let known = entries.len() + unconnected.iter().filter(|endpoint| endpoint.cause.is_some()).count();
        let (mut ordered, aside): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.member.health.is_available());
        let available = ordered.len();
        ordered.extend(aside);
        let too_few = known > 0 && (available as f64) < options.panic_below.get() * known as f64;
        let panic = too_few && options.panic == Panic::FailOpen;
        let pool = if panic { ordered.len() } else { available };
        let mut ramp_ends = None;
        for entry in &ordered[..pool] {
            if let Some((_, end)) = entry.member.ramp(now, &options.slow_start) {
                ramp_ends = Some(ramp_ends.map_or(end, |last: Instant| last.max(end)));
            }
        }
        let first = ordered.first().map_or(1.0, |entry| entry.weight);
        let unequal = ordered[..pool].iter().any(|entry| entry.weight != first);
        let alias = unequal.then(|| {
            Alias::new(&ordered[..pool].iter().map(|entry| f64::from(entry.weight)).collect::<Vec<_>>())
        });
        let snapshot = Self {
            generation,
            resolved,
            entries: ordered.into(),
            pool,
            alias,
            plain: !unequal && ramp_ends.is_none(),
            ramping: ramp_ends.is_some(),
            too_few,
            panic,
            most: options.most(),
            timed: ramp_ends.is_some() || options.goes_by_time(),
            load: options.load,
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
        let (mut snapshot, _) =
            Self::of(self.generation + 1, self.resolved, entries, unconnected, options, now);
        snapshot.failure = self.failure.clone();
        snapshot
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
        self.entries.iter().any(|entry| {
            entry.member.health.is_available() || (self.panic && entry.member.health.is_usable_in_panic())
        })
    }
}
