//! The layer, which owns the limit.

use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{ConcurrencyLimit, ConcurrencyLimitOptions, Gate};
use crate::{
    Error, Invalid, Reason,
    sync::{AtomicU64, Ordering},
};

/// Limits how many requests run at a time, over every service that one layer value, or a clone of it, was laid around.
#[derive(Clone)]
pub struct ConcurrencyLimitLayer {
    shared: Arc<Shared>,
}

/// What all services of one layer share.
pub(super) struct Shared {
    pub(super) gate: Gate,
    max_wait_nanos: Arc<AtomicU64>,
    label: Option<Arc<str>>,
}

impl Shared {
    pub(super) fn max_wait(&self) -> Duration {
        Duration::from_nanos(self.max_wait_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn refusal(&self, reason: Reason) -> Error {
        let error = Error::new(reason);
        match &self.label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        }
    }
}

impl ConcurrencyLimitLayer {
    /// A limit of its own.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: ConcurrencyLimitOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let shared = Shared {
            gate: Gate::new(options.limit, options.max_waiting),
            max_wait_nanos: Arc::new(AtomicU64::new(nanos(options.max_wait))),
            label: None,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same limit under a name that its refusals tell.
    #[must_use]
    pub fn label(self, label: impl Into<Arc<str>>) -> Self {
        let shared = Shared {
            gate: self.shared.gate.clone(),
            max_wait_nanos: self.shared.max_wait_nanos.clone(),
            label: Some(label.into()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Replaces the options while requests run. A higher limit lets waiting requests go at once; a lower one cuts nobody
    /// off. Who waits already keeps its place and its time.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(&self, options: &ConcurrencyLimitOptions) -> Result<(), Invalid> {
        options.validate()?;
        self.shared.max_wait_nanos.store(nanos(options.max_wait), Ordering::Relaxed);
        self.shared.gate.set_max_waiting(options.max_waiting);
        self.shared.gate.set_limit(options.limit);
        Ok(())
    }

    /// The gate that requests go through: what it shows is how many run and wait. Permits taken from it by hand count.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }
}

/// Ten years, the longest wait, fit.
fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::new(inner, self.shared.clone())
    }
}

impl fmt::Debug for ConcurrencyLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer").field("gate", &self.shared.gate).finish_non_exhaustive()
    }
}
