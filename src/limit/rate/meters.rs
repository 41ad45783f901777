//! What is asked whether a request may go: one limit for all, or one for each key.

use std::{
    fmt::{self, Debug},
    hash::Hash,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Gcra, NotYet, RateLimitOptions, Reservation};
use crate::{
    Error, Reason, clock, context,
    describe::Criticality,
    keyed::{KeyOptions, Keyed},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::Relaxed, Swap, lock},
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
/// A key that is idle goes when its whole burst is there again, and not before: coming back would be a second burst.
/// When there are too many keys, a new one takes the place of the longest unused one whose whole burst is there, and if there
/// is none, all such share one limit.
pub struct PerKey<K, Req> {
    key: Arc<dyn Fn(&Req) -> K + Send + Sync>,
    keyed: Keyed<K, Arc<Gcra>>,
    /// Of keys that come.
    options: Swap<RateLimitOptions>,
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
            options: Swap::new(options.clone()),
            epoch,
            others: Arc::new(Gcra::new(options, epoch)),
        }
    }

    pub(super) fn set(&self, options: &RateLimitOptions) {
        let now = clock::now();
        self.others.set(options, now);
        self.keyed.change(|known| {
            known.into_iter().for_each(|(_, limit)| limit.set(options, now));
            self.options.store(options.clone());
        });
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
        let make = || Arc::new(Gcra::new(&self.options.load(), self.epoch));
        // One that is made again has its whole burst: it must have been there, however long the key was idle.
        let limit = self.keyed.get(&(self.key)(request), now, make, |limit, _| limit.is_fresh(now));
        limit.unwrap_or_else(|| self.others.clone())
    }
}

impl<K, Req> Debug for PerKey<K, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey")
            .field("keyed", &self.keyed)
            .field("options", &self.options.load())
            .finish_non_exhaustive()
    }
}

/// What is asked of a limit, and may be changed while requests run.
#[derive(Debug)]
pub(crate) struct Terms {
    max_wait: AtomicU64,
    by_criticality: AtomicBool,
    /// Held while they and the limits are replaced.
    updating: Mutex<()>,
}

/// What was taken in advance: given back if it is dropped before its time.
pub(crate) struct Taken {
    limit: Arc<Gcra>,
    /// `None` when it was used.
    reservation: Option<Reservation>,
    at: Instant,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(unused) = self.reservation.take() {
            self.limit.give_back(unused);
        }
    }
}

impl Terms {
    pub(crate) fn new(options: &RateLimitOptions) -> Self {
        let (max_wait, by_criticality) = (AtomicU64::new(0), AtomicBool::new(false));
        let terms = Self { max_wait, by_criticality, updating: Mutex::new(()) };
        terms.set(options, || ());
        terms
    }

    /// Replaces them, together with the `limits`: of two that do this one is the last in both.
    pub(crate) fn set(&self, options: &RateLimitOptions, limits: impl FnOnce()) {
        let _updating = lock(&self.updating);
        limits();
        self.max_wait.store(u64::try_from(options.max_wait.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.by_criticality.store(options.by_criticality, Relaxed);
    }

    /// Ready when a request may go that takes what `asks` says, or why it may not. `taken` is what it waits with.
    #[inline]
    pub(crate) fn poll_turn(
        &self,
        asks: impl FnOnce(Instant) -> (Arc<Gcra>, u32),
        taken: &mut Option<Taken>,
        class: impl FnOnce() -> Criticality,
    ) -> Poll<Result<(), Error>> {
        let now = context::now();
        if let Some(taken) = taken {
            if now < taken.at {
                context::wake_at(taken.at);
                return Poll::Pending;
            }
            taken.reservation = None;
            return Poll::Ready(Ok(()));
        }
        let deadline = context::deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(Err(Error::new(Reason::Deadline)));
        }
        let patience = Duration::from_nanos(self.max_wait.load(Relaxed));
        let patience = match deadline {
            Some(deadline) => patience.min(deadline.saturating_duration_since(now)),
            None => patience,
        };
        let class = if self.by_criticality.load(Relaxed) { class() } else { Criticality::CriticalPlus };
        let (limit, weight) = asks(now);
        match limit.reserve(now, weight, patience, class) {
            Ok(reservation) if reservation.wait.is_zero() => Poll::Ready(Ok(())),
            Ok(reservation) => {
                let at = now + reservation.wait;
                context::wake_at(at);
                *taken = Some(Taken { limit, reservation: Some(reservation), at });
                Poll::Pending
            }
            Err(NotYet(wait)) => {
                let error = Error::new(Reason::RateLimit);
                Poll::Ready(Err(match wait {
                    Some(wait) => error.with_retry_after(wait),
                    None => error,
                }))
            }
        }
    }
}
