//! The layers.

use std::{sync::Arc, time::Duration};

use tower::Layer;

use super::{
    fit::{AttemptFit, Measured},
    service::{AttemptLimit, Deadline},
};
use crate::{
    clock,
    invalid::{Check, Invalid},
};

/// Gives every request a total deadline: the time it has from its first poll on, or the inherited deadline if that is
/// earlier.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    total: Duration,
}

impl DeadlineLayer {
    /// Requests may take `total`.
    pub fn new(total: Duration) -> Self {
        Self { total }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline::new(inner, self.total)
    }
}

/// Limits how long one attempt may take. All services of a layer measure together what attempts take, where that matters.
#[derive(Clone, Debug)]
pub struct AttemptLimitLayer {
    limit: Duration,
    fit: AttemptFit,
    measured: Option<Arc<Measured>>,
}

impl AttemptLimitLayer {
    /// Attempts may take `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, fit: AttemptFit::Fixed, measured: None }
    }

    /// Attempts may take what `fit` says, and `limit` at the most.
    ///
    /// # Errors
    /// [`Invalid`] with every number of `fit` that breaks its rule.
    pub fn fitted(limit: Duration, fit: AttemptFit) -> Result<Self, Invalid> {
        Check::of(|check| {
            check.duration("limit", limit).part("fit", |check| fit.check(Some(limit), check));
        })?;
        let measures = matches!(fit, AttemptFit::Latency { .. });
        Ok(Self { limit, fit, measured: measures.then(|| Arc::new(Measured::new(clock::now()))) })
    }
}

impl<S> Layer<S> for AttemptLimitLayer {
    type Service = AttemptLimit<S>;

    fn layer(&self, inner: S) -> AttemptLimit<S> {
        AttemptLimit::fitted(inner, self.limit, self.fit, self.measured.clone())
    }
}
