//! The layers.

use std::time::Duration;

use tower::Layer;

use super::service::{AttemptLimit, Deadline};

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

/// Limits how long one attempt may take.
#[derive(Clone, Copy, Debug)]
pub struct AttemptLimitLayer {
    limit: Duration,
}

impl AttemptLimitLayer {
    /// Attempts may take `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for AttemptLimitLayer {
    type Service = AttemptLimit<S>;

    fn layer(&self, inner: S) -> AttemptLimit<S> {
        AttemptLimit::new(inner, self.limit)
    }
}
