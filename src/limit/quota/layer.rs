//! The layer, which owns the quota.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tower::{BoxError, Layer};

use super::{Away, Granted, Local, Quota, QuotaLimited, QuotaOptions, Taking};
use crate::{
    Error, Invalid, Reason, clock, context,
    error::Cause,
    estimate::slices::nanos_since,
    limit::rate::One,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, Swap, lock},
};

/// Has the requests of every service that it is laid around keep to a quota.
pub struct QuotaLayer<W = One> {
    pub(super) shared: Arc<Shared>,
    pub(super) weigh: Arc<W>,
}

/// What all services of one layer share. A clone is the same quota, and away when this one is.
#[derive(Clone)]
pub(super) struct Shared {
    quota: Arc<dyn Quota>,
    terms: Arc<Swap<Terms>>,
    /// Held while they are replaced.
    updating: Arc<Mutex<()>>,
    label: Option<Arc<str>>,
    epoch: Instant,
    /// Until when it is not asked, in nanoseconds since the epoch; 0 if the last that asked had an answer.
    away: Arc<AtomicU64>,
    /// Requests that were dropped before it answered, since it answered last.
    given_up: Arc<AtomicU64>,
    /// How long an answer takes usually, in nanoseconds; [`u64::MAX`] before the first.
    usual: Arc<AtomicU64>,
}

/// So many requests that are dropped before an answer, with none between, mean that it is away: callers who have less
/// patience than its timeout.
const GIVEN_UP: u64 = 5;
/// They count from so many times the usual time of an answer on, or this part of the timeout.
const LATE: u64 = 4;

struct Terms {
    options: QuotaOptions,
    local: Option<Arc<Local>>,
}

impl Terms {
    /// Terms by `options`. What was taken while it was away stays taken.
    fn new(options: QuotaOptions, before: Option<&Self>) -> Result<Self, Invalid> {
        options.validate()?;
        let local = match &options.away {
            Away::Local(rate) => match before.and_then(|before| before.local.clone()) {
                Some(local) => {
                    local.set(rate);
                    Some(local)
                }
                None => Some(Arc::new(Local::new(rate.clone())?)),
            },
            _ => None,
        };
        Ok(Self { options, local })
    }
}

impl Shared {
    /// How long a request may wait that has so much time left.
    pub(super) fn patience(&self, left: Option<Duration>) -> Duration {
        self.terms.load().options.max_wait.min(left.unwrap_or(Duration::MAX))
    }

    /// Asks it, and says until when to wait for the answer; unless it was away just now. After its time one request asks
    /// whether it is back, and no other before that is known.
    pub(super) fn ask(
        self: &Arc<Self>,
        weight: u32,
        now: Instant,
        left: Option<Duration>,
    ) -> Option<(Taking<'static>, Instant)> {
        let patience = self.patience(left);
        let timeout = self.terms.load().options.timeout;
        let away = self.away.load(Relaxed);
        if away > 0 {
            let since = nanos_since(self.epoch, now);
            // Whoever asks may be dropped before there is an answer: it has until its timeout.
            let next = since.saturating_add(nanos(timeout)).max(1);
            if since < away || self.away.compare_exchange(away, next, Relaxed, Relaxed).is_err() {
                return None;
            }
        }
        let quota = self.quota.clone();
        Some((Box::pin(async move { quota.take(weight, patience).await }), now + timeout))
    }

    /// It has answered after so long.
    pub(super) fn is_back(&self, after: Duration) {
        // Who counts at the same time may be lost: it is a mean.
        let (usual, after) = (self.usual.load(Relaxed), nanos(after));
        let mean = if usual == u64::MAX { after } else { usual - usual / 8 + after / 8 };
        self.usual.store(mean, Relaxed);
        for word in [&self.away, &self.given_up] {
            if word.load(Relaxed) > 0 {
                word.store(0, Relaxed);
            }
        }
    }

    /// A request was dropped before it answered, after so long. One that was dropped sooner than there could be an answer
    /// says nothing.
    #[cold]
    pub(super) fn given_up(&self, after: Duration) {
        let timeout = nanos(self.terms.load().options.timeout);
        let long = self.usual.load(Relaxed).saturating_mul(LATE).min(timeout / LATE);
        if nanos(after) >= long && self.given_up.fetch_add(1, Relaxed) + 1 >= GIVEN_UP {
            self.is_away(context::now());
        }
    }

    /// It did not answer, or with an error: it is left alone for a while.
    #[cold]
    pub(super) fn is_away(&self, now: Instant) {
        self.given_up.store(0, Relaxed);
        let pause = nanos(self.terms.load().options.pause);
        self.away.store(nanos_since(self.epoch, now).saturating_add(pause).max(1), Relaxed);
    }

    /// What becomes of a request while it is away.
    pub(super) fn instead(
        &self,
        weight: u32,
        now: Instant,
        patience: Duration,
        cause: Option<BoxError>,
    ) -> Result<Granted, Error> {
        let terms = self.terms.load();
        match (&terms.options.away, &terms.local) {
            (Away::Pass, _) => Ok(Granted::After(Duration::ZERO)),
            (_, Some(local)) => Ok(local.ask(now, weight, patience)),
            _ => {
                let until = self.away.load(Relaxed).saturating_sub(nanos_since(self.epoch, now));
                let error = self.refusal(Reason::RateLimit).with_retry_after(Duration::from_nanos(until));
                Err(error.with_cause(Cause::from(cause.unwrap_or_else(|| Box::new(NoAnswer)))))
            }
        }
    }

    pub(super) fn refusal(&self, reason: Reason) -> Error {
        let error = Error::new(reason);
        match &self.label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        }
    }
}

/// The cause of what is refused while a quota does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the quota does not answer")]
struct NoAnswer;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl QuotaLayer {
    /// Requests keep to `quota`.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(quota: impl Quota, options: QuotaOptions) -> Result<Self, Invalid> {
        let terms = Terms::new(options, None)?;
        let shared = Shared {
            quota: Arc::new(quota),
            terms: Arc::new(Swap::new(terms)),
            updating: Arc::default(),
            label: None,
            epoch: clock::now(),
            away: Arc::new(AtomicU64::new(0)),
            given_up: Arc::new(AtomicU64::new(0)),
            usual: Arc::new(AtomicU64::new(u64::MAX)),
        };
        Ok(Self { shared: Arc::new(shared), weigh: Arc::new(One) })
    }
}

impl<W> QuotaLayer<W> {
    /// The same quota under a name that its refusals tell.
    #[must_use]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self {
        let shared = Shared { label: Some(label.into()), ..Shared::clone(&self.shared) };
        Self { shared: Arc::new(shared), weigh: self.weigh }
    }

    /// The same quota, of which requests take as much as `weigh` says \[1\].
    #[must_use]
    pub fn weigh<V>(self, weigh: V) -> QuotaLayer<V> {
        QuotaLayer { shared: self.shared, weigh: Arc::new(weigh) }
    }

    /// Replaces the options while requests run. Who waits keeps its time, and a quota that is away is asked again when it
    /// would have been.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: QuotaOptions) -> Result<(), Invalid> {
        let _updating = lock(&self.shared.updating);
        let terms = Terms::new(options, Some(&*self.shared.terms.load()))?;
        self.shared.terms.store(terms);
        Ok(())
    }

    /// The options in force.
    pub fn options(&self) -> QuotaOptions {
        self.shared.terms.load().options.clone()
    }

    /// Whether the quota was away when it was asked last.
    pub fn is_away(&self) -> bool {
        self.shared.away.load(Relaxed) > 0
    }
}

impl<S, W> Layer<S> for QuotaLayer<W> {
    type Service = QuotaLimited<S, W>;

    fn layer(&self, inner: S) -> Self::Service {
        QuotaLimited::new(inner, self.clone())
    }
}

impl<W> Clone for QuotaLayer<W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), weigh: self.weigh.clone() }
    }
}

impl<W> fmt::Debug for QuotaLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaLayer")
            .field("options", &self.shared.terms.load().options)
            .finish_non_exhaustive()
    }
}
