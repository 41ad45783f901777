//! The options of a concurrency limit.

use std::time::Duration;

use super::gate::MAX_LIMIT;
use crate::invalid::{Check, Invalid};

/// How many requests run at a time, how many wait, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencyLimitOptions {
    /// How many requests run at a time \[100, 1 to 2^31 - 1\].
    pub limit: u32,
    /// How many more may wait for their turn \[1,024\]; 0 refuses at once.
    pub max_waiting: u32,
    /// How long one may wait \[1 s\]. A request whose deadline comes earlier leaves then.
    pub max_wait: Duration,
}

impl ConcurrencyLimitOptions {
    /// Sets [`limit`](Self::limit).
    pub const fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    pub const fn max_waiting(mut self, max_waiting: u32) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// Sets [`max_wait`](Self::max_wait).
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check
            .rule((1..=MAX_LIMIT).contains(&self.limit), "limit", self.limit, "1 to 2^31 - 1")
            .duration("max_wait", self.max_wait);
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }
}

impl Default for ConcurrencyLimitOptions {
    fn default() -> Self {
        Self { limit: 100, max_waiting: 1_024, max_wait: Duration::from_secs(1) }
    }
}
