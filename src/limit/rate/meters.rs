//! What is asked whether a request may go: one limit for all, or one for each key.

use std::{
    fmt::{self, Debug},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Gcra, NotYet, RateLimitOptions, Reservation};
use crate::{
    describe::Criticality,
    keyed::{KeyOptions, Keyed},
    sync::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// How much a request of type `Req` takes of a rate; functions of the request are, and [`One`].
pub trait Weigh<Req>: Send + Sync + 'static {
    /// What it takes; 0 for nothing.
    fn weigh(&self, request: &Req) -> u32;
}

impl<Req, F: Fn(&Req) -> u32 + Send + Sync + 'static> Weigh<Req> for F {
    fn weigh(&self, request: &Req) -> u32 {
        self(request)
    }
}

/// Every request takes one.
#[derive(Clone, Copy, Debug, Default)]
pub struct One;

impl<Req> Weigh<Req> for One {
    #[inline]
    fn weigh(&self, _: &Req) -> u32 {
        1
    }
}

/// Which limit a request goes by.
pub trait Limits<Req>: Send + Sync + 'static {
    #[doc(hidden)]
    fn limit(&self, request: &Req, now: Instant) -> Arc<Gcra>;
}

/// One limit for all requests.
#[derive(Clone, Debug)]
pub struct Whole(pub(super) Arc<Gcra>);

impl<Req> Limits<Req> for Whole {
    #[inline]
    fn limit(&self, _: &Req, _: Instant) -> Arc<Gcra> {
        self.0.clone()
    }
}

/// A limit for each key of a request.
///
/// When there are too many keys, a new one takes the place of the longest unused one whose whole burst is there, and if there
/// is none, all such share one limit.
pub struct PerKey<K, Req> {
    key: Arc<dyn Fn(&Req) -> K + Send + Sync>,
    keyed: Keyed<K, Arc<Gcra>>,
    options: RateLimitOptions,
    epoch: Instant,
    others: Arc<Gcra>,
}

impl<K: Hash + Eq + Clone, Req> PerKey<K, Req> {
    pub(super) fn new(
        options: &RateLimitOptions,
        keys: KeyOptions,
        epoch: Instant,
        key: impl Fn(&Req) -> K + Send + Sync + 'static,
    ) -> Self {
        Self {
            key: Arc::new(key),
            keyed: Keyed::new(keys, epoch),
            options: options.clone(),
            epoch,
            others: Arc::new(Gcra::new(options, epoch)),
        }
    }

    pub(super) fn set(&self, options: &RateLimitOptions) {
        self.others.set(options);
        self.keyed.all().into_iter().for_each(|(_, limit)| limit.set(options));
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keyed.all().len()
    }
}

impl<K, Req> Limits<Req> for PerKey<K, Req>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    Req: 'static,
{
    fn limit(&self, request: &Req, now: Instant) -> Arc<Gcra> {
        let make = || Arc::new(Gcra::new(&self.options, self.epoch));
        let limit = self.keyed.get(&(self.key)(request), now, make, |limit| limit.is_fresh(now));
        limit.unwrap_or_else(|| self.others.clone())
    }
}

impl<K, Req> Debug for PerKey<K, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey")
            .field("keyed", &self.keyed)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What a layer asks of its limits, and may be changed while requests run.
#[derive(Debug)]
pub(super) struct Terms {
    max_wait: AtomicU64,
    by_criticality: AtomicBool,
}

impl Terms {
    pub(super) fn new(options: &RateLimitOptions) -> Self {
        let terms = Self { max_wait: AtomicU64::new(0), by_criticality: AtomicBool::new(false) };
        terms.set(options);
        terms
    }

    pub(super) fn set(&self, options: &RateLimitOptions) {
        self.max_wait.store(u64::try_from(options.max_wait.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.by_criticality.store(options.by_criticality, Relaxed);
    }

    /// Takes `weight` from `limit` for one that has until `deadline`.
    #[inline]
    pub(super) fn reserve(
        &self,
        limit: &Gcra,
        weight: u32,
        now: Instant,
        deadline: Option<Instant>,
        class: impl FnOnce() -> Criticality,
    ) -> Result<Reservation, NotYet> {
        let patience = Duration::from_nanos(self.max_wait.load(Relaxed));
        let patience = match deadline {
            Some(deadline) => patience.min(deadline.saturating_duration_since(now)),
            None => patience,
        };
        let class = if self.by_criticality.load(Relaxed) { class() } else { Criticality::CriticalPlus };
        limit.reserve(now, weight, patience, class)
    }
}
