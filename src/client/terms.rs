//! What a view says of retries and hedges, in place of the client's options.

use std::{sync::Arc, time::Instant};

use crate::{
    hedge::{HedgeOptions, Pace},
    invalid::Invalid,
    retry::RetryPolicy,
};

/// Retries and hedges of a method. Its clones share the pace of the hedges.
#[derive(Clone, Debug)]
pub(crate) struct Terms(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    retry: RetryPolicy,
    hedge: Option<Pace>,
}

impl Terms {
    /// That a request is tried again, and not hedged.
    #[cfg_attr(
        not(feature = "tonic"),
        allow(dead_code, reason = "what tells methods apart is there with its features")
    )]
    pub(crate) fn retried(retry: RetryPolicy) -> Self {
        Self(Arc::new(Kept { retry, hedge: None }))
    }

    /// That a request is hedged, and not tried again.
    ///
    /// # Errors
    /// [`Invalid`] if the options break a rule.
    #[cfg_attr(
        not(feature = "tonic"),
        allow(dead_code, reason = "what tells methods apart is there with its features")
    )]
    pub(crate) fn hedged(hedge: &HedgeOptions, epoch: Instant) -> Result<Self, Invalid> {
        Ok(Self(Arc::new(Kept { retry: RetryPolicy::never(), hedge: Some(Pace::new(hedge, epoch)?) })))
    }

    pub(super) fn retry(&self) -> &RetryPolicy {
        &self.0.retry
    }

    pub(super) fn pace(&self) -> Option<&Pace> {
        self.0.hedge.as_ref()
    }
}
