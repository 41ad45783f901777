//! Health per operation: a method that fails at one endpoint only is kept from there, and the endpoint stays for the rest.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Health, HealthOptions, Lease, Ledger, State, Transition};
use crate::{
    estimate::slices::nanos_since,
    invalid::Check,
    outcome::Class,
    random::Random,
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, Swap, lock},
};

/// How health per operation is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationOptions {
    /// The most operations that have a health of their own \[64, 1 to 1,024\], the first that come. The others share the
    /// endpoint's, as all do without this.
    pub most: u32,
}

impl Default for OperationOptions {
    fn default() -> Self {
        Self { most: 64 }
    }
}

impl OperationOptions {
    /// Sets [`most`](Self::most).
    pub const fn most(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.rule((1..=1024).contains(&self.most), "most", self.most, "1 to 1,024");
    }
}

/// The operations of a client, each with its health at the endpoints where it has failed.
///
/// An operation is known by a number from 1 on that it keeps; 0 stands for those that share the endpoint's health. A look-up
/// takes no lock; one that is new has the table copied, as often as there may be operations.
pub struct Operations {
    epoch: Instant,
    table: Swap<Table>,
    changing: Mutex<()>,
    overflowed: AtomicBool,
}

#[derive(Clone, Default)]
struct Table {
    ids: HashMap<Arc<str>, u16>,
    all: Vec<Arc<Operation>>,
}

/// The number of all that have no health of their own where others have: what they show counts for the endpoint, and their successes
/// say that it is well for others.
pub(crate) const SHARED: u16 = u16::MAX;

impl Operations {
    /// None yet; time is counted from `epoch`.
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            table: Swap::new(Table::default()),
            changing: Mutex::new(()),
            overflowed: AtomicBool::new(false),
        }
    }

    /// The number of the operation of this name, and the operation itself if some endpoint is without it. The number is 0
    /// if there is no room for it.
    pub fn find(&self, name: &str, options: OperationOptions) -> (u16, Option<Arc<Operation>>) {
        let table = self.table.load();
        let Some(id) = table.ids.get(name).copied() else { return (self.add(name, options), None) };
        if u32::from(id) > options.most {
            return (self.overflow(), None);
        }
        let operation = table.all.get(usize::from(id) - 1);
        (id, operation.filter(|operation| operation.ledger.has_away()).cloned())
    }

    #[cold]
    fn add(&self, name: &str, options: OperationOptions) -> u16 {
        // Of names without end no lock is taken for those that come too late.
        if self.table.load().all.len() >= options.most as usize {
            return self.overflow();
        }
        let _changing = lock(&self.changing);
        let mut table = Table::clone(&self.table.load());
        if let Some(id) = table.ids.get(name) {
            return *id;
        }
        if table.all.len() >= options.most as usize {
            return self.overflow();
        }
        let name: Arc<str> = name.into();
        table.all.push(Arc::new(Operation::new(name.clone(), self.epoch)));
        let id = table.all.len() as u16;
        table.ids.insert(name, id);
        self.table.store(table);
        id
    }

    /// There is no room for an operation.
    #[cold]
    fn overflow(&self) -> u16 {
        // Written once: all requests that find no room come here, and all others read what lies beside it.
        if !self.overflowed.load(Relaxed) {
            self.overflowed.store(true, Relaxed);
        }
        0
    }

    /// Options were replaced: whether there is room for all is to be seen.
    pub(crate) fn reconsider(&self) {
        self.overflowed.store(false, Relaxed);
    }

    /// The operation with this number.
    pub fn get(&self, id: u16) -> Option<Arc<Operation>> {
        self.table.load().all.get(usize::from(id).checked_sub(1)?).cloned()
    }

    /// Counts a success of operation `id` at `endpoint`, so many nanoseconds after the epoch.
    pub fn success(&self, id: u16, endpoint: u64, nanos: u64) {
        let table = self.table.load();
        let place = usize::from(id).checked_sub(1);
        if let Some(operation) = place.and_then(|place| table.all.get(place))
            && let Some(own) = operation.places.load().get(&endpoint)
        {
            own.health.success_at(nanos);
        }
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<Operation>> {
        self.table.load().all.clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.load().all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some operation found no room, and shares the endpoint's health.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed.load(Relaxed)
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// One operation, and how it does at the endpoints where it has failed since they were last well.
pub struct Operation {
    name: Arc<str>,
    epoch: Instant,
    /// Endpoints where it has not failed are not in it, but count: [`Ledger::among`].
    ledger: Ledger,
    places: Swap<HashMap<u64, Arc<Place>>>,
    changing: Mutex<()>,
}

/// The operation at one endpoint.
#[derive(Debug)]
struct Place {
    health: Health,
    /// The generation of the whole endpoint's health that the evidence is of.
    generation: AtomicU32,
}

/// A failure of an operation at an endpoint, and what else is known there.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// When it failed.
    pub now: Instant,
    /// When the attempt began, where that is known.
    pub began: Option<Instant>,
    /// The generation of the whole endpoint's health.
    pub generation: u32,
    /// Whether anything else has succeeded there within [`HealthOptions::window`].
    pub others_succeed: bool,
    /// How many endpoints there are.
    pub endpoints: usize,
}

/// Whom a failure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The whole endpoint: the operation has not failed there too often, or nothing else has succeeded there.
    Endpoint,
    /// The operation alone, which has just been set aside if there is a transition.
    Operation(Option<Transition>),
    /// Nobody: the attempt began before the operation was last set aside there, or let back, and says nothing of what is since.
    Nobody,
}

impl Operation {
    fn new(name: Arc<str>, epoch: Instant) -> Self {
        Self {
            name,
            epoch,
            ledger: Ledger::of_judgements(),
            places: Swap::new(HashMap::new()),
            changing: Mutex::new(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it is kept from this endpoint.
    #[inline]
    pub fn is_away(&self, endpoint: u64) -> bool {
        self.ledger.has_away()
            && self.places.load().get(&endpoint).is_some_and(|place| !place.health.is_available())
    }

    /// Whether some endpoint waits for a request of this operation that decides.
    pub fn wants_probes(&self) -> bool {
        self.ledger.wants_probes()
    }

    /// The operation at `endpoint`, from its first failure there on.
    fn place(&self, endpoint: u64, options: &HealthOptions) -> Arc<Place> {
        if let Some(place) = self.places.load().get(&endpoint) {
            return place.clone();
        }
        let _changing = lock(&self.changing);
        let mut places = HashMap::clone(&self.places.load());
        let place = places.entry(endpoint).or_insert_with(|| {
            // Since ever: what is in flight there is not of an earlier state.
            let health = Health::starting(self.epoch, self.epoch, options);
            self.ledger.join(&health);
            Arc::new(Place { health, generation: AtomicU32::new(u32::MAX) })
        });
        let place = place.clone();
        self.places.store(places);
        place
    }

    fn known(&self, endpoint: u64) -> Option<Arc<Place>> {
        self.places.load().get(&endpoint).cloned()
    }

    /// Counts a failure at `endpoint`, sets the operation aside there if a rule trips and others succeed there, and says
    /// whom the failure is to be held against.
    pub fn failure(
        &self,
        endpoint: u64,
        evidence: Evidence,
        options: &HealthOptions,
        random: &dyn Random,
    ) -> Blame {
        let Evidence { now, began, generation, others_succeed, endpoints } = evidence;
        let place = self.place(endpoint, options);
        let health = &place.health;
        if !health.is_available() {
            return Blame::Operation(None);
        }
        if began.is_some_and(|began| began < health.state().1) {
            return Blame::Nobody;
        }
        if place.generation.swap(generation, Relaxed) != generation {
            // What it did before the whole endpoint was set aside says nothing about it now.
            health.forget();
        }
        let own = health.generation();
        let Some(why) = health.tripped(now, options).filter(|_| others_succeed) else {
            return Blame::Endpoint;
        };
        self.ledger.among(endpoints);
        // Where too many are without it already it is the operation that fails, not this endpoint.
        Blame::Operation(health.judge(why.into(), own, now, options, &self.ledger, random))
    }

    /// Takes the right to be the request that decides over the return of the operation to `endpoint`.
    pub fn lease(&self, endpoint: u64, now: Instant, options: &HealthOptions) -> Option<Lease> {
        self.known(endpoint)?.health.lease(now, options, &self.ledger)
    }

    /// Hands a lease back with what the request has shown.
    pub fn settle(
        &self,
        endpoint: u64,
        lease: Lease,
        shown: Class,
        now: Instant,
        options: &HealthOptions,
        random: &dyn Random,
    ) -> Option<Transition> {
        self.known(endpoint)?.health.settle(lease, shown, now, options, &self.ledger, random)
    }

    /// Hands a lease back that no request was sent with; see [`Health::forgo`].
    pub fn forgo(&self, endpoint: u64, lease: Lease, now: Instant) -> bool {
        self.known(endpoint).is_some_and(|place| place.health.forgo(lease, now, &self.ledger))
    }

    /// Does what time has brought at `endpoint`, and says when it will bring something next.
    pub fn due(
        &self,
        endpoint: u64,
        now: Instant,
        options: &HealthOptions,
    ) -> (Option<Transition>, Option<Instant>) {
        let Some(place) = self.known(endpoint) else { return (None, None) };
        let ([resumed, moved], next) = place.health.due(now, options, &self.ledger);
        (resumed.or(moved), next)
    }

    /// The state at `endpoint`, and since when, where it has failed there.
    pub fn state(&self, endpoint: u64) -> Option<(State, Instant)> {
        Some(self.known(endpoint)?.health.state())
    }

    /// The endpoint is not in the resolution for a while, or is again.
    pub fn present(&self, endpoint: u64, present: bool) {
        let Some(place) = self.known(endpoint) else { return };
        if present { self.ledger.join(&place.health) } else { self.ledger.leave(&place.health) }
    }

    /// Whether it has failed anywhere, as far as that is kept.
    pub(crate) fn has_failed(&self) -> bool {
        !self.places.load().is_empty()
    }

    /// Keeps nothing more of endpoints where it is well and nothing of the past counts any more: a failure everywhere at once would
    /// stay in memory for as long as the endpoints do. One that fails just then is counted from the next failure on.
    pub(crate) fn tidy(&self, now: Instant, options: &HealthOptions) {
        let _changing = lock(&self.changing);
        let before = self.places.load();
        let spent: Vec<u64> = before
            .iter()
            .filter(|(_, place)| place.health.is_spent(now, options))
            .map(|(id, _)| *id)
            .collect();
        self.remove(&before, &spent);
    }

    /// Forgets how it does at `endpoint`. Says whether it was kept from there.
    pub fn forget(&self, endpoint: u64) -> bool {
        !self.forget_all(&[endpoint]).is_empty()
    }

    /// The same of many, with one copy of what is kept. Says which of them it was kept from.
    pub fn forget_all(&self, endpoints: &[u64]) -> Vec<u64> {
        let _changing = lock(&self.changing);
        self.remove(&self.places.load(), endpoints)
    }

    /// The same, where nobody else changes what is kept.
    fn remove(&self, before: &HashMap<u64, Arc<Place>>, endpoints: &[u64]) -> Vec<u64> {
        let (mut places, mut away) = (None, Vec::new());
        for endpoint in endpoints.iter().filter(|endpoint| before.contains_key(*endpoint)) {
            let places = places.get_or_insert_with(|| before.clone());
            let Some(place) = places.remove(endpoint) else { continue };
            self.ledger.leave(&place.health);
            if !place.health.is_available() {
                away.push(*endpoint);
            }
        }
        if let Some(places) = places {
            self.places.store(places);
        }
        away
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("name", &self.name)
            .field("places", &self.places.load().len())
            .finish_non_exhaustive()
    }
}

/// Which operations have last succeeded at an endpoint: the last one, and the last other one.
///
/// Each is a number of an operation and a time in some milliseconds. Of two that succeed at once the trace of one may be
/// lost, until the next success.
#[derive(Debug)]
pub(crate) struct Successes {
    last: AtomicU64,
    other: AtomicU64,
}

/// 2^20 ns, about a millisecond.
const TICK: u32 = 20;
const IDS: u32 = 16;

impl Successes {
    pub(crate) fn new() -> Self {
        Self { last: AtomicU64::new(0), other: AtomicU64::new(0) }
    }

    /// Operation `id` has succeeded, so many nanoseconds after the epoch.
    pub(crate) fn note(&self, id: u16, nanos: u64) {
        let (now, last) = (nanos >> TICK << IDS | u64::from(id), self.last.load(Relaxed));
        if now == last {
            return;
        }
        if last as u16 != id {
            self.other.store(last, Relaxed);
        }
        self.last.store(now, Relaxed);
    }

    /// Whether another operation than `id` has succeeded within `window` before `now`.
    pub(crate) fn others(&self, id: u16, epoch: Instant, now: Instant, window: Duration) -> bool {
        let now = nanos_since(epoch, now);
        [&self.last, &self.other].into_iter().any(|word| {
            let word = word.load(Relaxed);
            let at = word >> IDS << TICK;
            word != 0 && word as u16 != id && now.saturating_sub(at) <= window.as_nanos() as u64
        })
    }
}
