//! The layer, which owns the quota.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tower::{BoxError, Layer};

use super::{Away, Granted, Local, Quota, QuotaLimited, QuotaOptions, Taking};
use crate::{
    Error, Invalid, Reason, clock,
    error::Cause,
    estimate::slices::nanos_since,
    limit::rate::One,
    sync::{AtomicU64, Ordering::Relaxed},
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
    options: QuotaOptions,
    local: Option<Arc<Local>>,
    label: Option<Arc<str>>,
    epoch: Instant,
    /// Until when it is not asked, in nanoseconds since the epoch.
    away: Arc<AtomicU64>,
}

impl Shared {
    /// How long a request may wait that has until `deadline`.
    pub(super) fn patience(&self, now: Instant, deadline: Option<Instant>) -> Duration {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        self.options.max_wait.min(left)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Asks it, unless it was away just now.
    pub(super) fn ask(
        self: &Arc<Self>,
        weight: u32,
        now: Instant,
        patience: Duration,
    ) -> Option<Taking<'static>> {
        if nanos_since(self.epoch, now) < self.away.load(Relaxed) {
            return None;
        }
        let quota = self.quota.clone();
        Some(Box::pin(async move { quota.take(weight, patience).await }))
    }

    /// It did not answer, or with an error: it is left alone for a while.
    #[cold]
    pub(super) fn is_away(&self, now: Instant) {
        let pause = u64::try_from(self.options.pause.as_nanos()).unwrap_or(u64::MAX);
        self.away.store(nanos_since(self.epoch, now).saturating_add(pause), Relaxed);
    }

    /// What becomes of a request while it is away.
    pub(super) fn instead(
        &self,
        weight: u32,
        now: Instant,
        patience: Duration,
        cause: Option<BoxError>,
    ) -> Result<Granted, Error> {
        match (&self.options.away, &self.local) {
            (Away::Pass, _) => Ok(Granted::After(Duration::ZERO)),
            (_, Some(local)) => Ok(local.ask(now, weight, patience)),
            _ => {
                let error = self.refusal(Reason::RateLimit).with_retry_after(self.options.pause);
                Err(match cause {
                    Some(cause) => error.with_cause(Cause::from(cause)),
                    None => error,
                })
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

impl QuotaLayer {
    /// Requests keep to `quota`.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(quota: impl Quota, options: QuotaOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let local = match &options.away {
            Away::Local(options) => Some(Arc::new(Local::new(options.clone())?)),
            _ => None,
        };
        let shared = Shared {
            quota: Arc::new(quota),
            options,
            local,
            label: None,
            epoch: clock::now(),
            away: Arc::new(AtomicU64::new(0)),
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

    /// Whether the quota was away so shortly ago that it is not asked.
    pub fn is_away(&self) -> bool {
        nanos_since(self.shared.epoch, clock::now()) < self.shared.away.load(Relaxed)
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
        f.debug_struct("QuotaLayer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
