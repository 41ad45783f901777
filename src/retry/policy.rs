//! The numbers behind retries.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    invalid::{Check, Invalid, Ratio},
};

/// How often a request is tried, and how long is waited in between.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first included \[3, 1 to 10\]. What was never sent does not count.
    pub max_attempts: u32,
    /// The waits between them \[25 ms, doubling to 250 ms, full jitter\].
    pub backoff: Backoff,
    /// Which part of the capacity may be in use for a retry that costs budget to be made, where a client measures its
    /// capacity: by its limit, or by those of its endpoints \[any\]. What is free, because it was never processed, is sent
    /// again all the same.
    pub max_utilisation: Option<Ratio>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Backoff::default(), max_utilisation: None }
    }
}

impl RetryPolicy {
    /// Attempts that a request may make at the most.
    pub const MOST: u32 = 10;

    /// The policy of gRFC A6, which calls its numbers `maxAttempts`, `initialBackoff`, `maxBackoff` and
    /// `backoffMultiplier`. As there, more than 5 attempts count as 5, and fewer than 2 are refused when it is checked.
    ///
    /// The rest of A6 is what every policy here does: what never left the client is sent again and not counted, what a
    /// server refused unprocessed is so once; pushback is the wait, exactly, and the backoff begins anew after it; a
    /// malformed or negative one stops; each attempt is balanced anew. `retryThrottling` is
    /// [`Budget::grpc`](crate::budget::Budget::grpc). `retryableStatusCodes` is for the
    /// [`Classify`](crate::outcome::Classify): what it calls a failure, or back-off, is retried.
    pub fn grpc(max_attempts: u32, initial: Duration, max: Duration, multiplier: f64) -> Self {
        let attempts = if max_attempts < 2 { 0 } else { max_attempts.min(5) };
        Self::default().max_attempts(attempts).backoff(Backoff::grpc(initial, max, multiplier))
    }

    /// Envoy's numbers, as Istio and many others set them: one retry, with [its waits](Backoff::envoy). Its budget is
    /// [`Budget::envoy`](crate::budget::Budget::envoy).
    pub fn envoy() -> Self {
        Self::default().max_attempts(2).backoff(Backoff::envoy(Duration::from_millis(25)))
    }

    /// A policy that never retries.
    pub fn never() -> Self {
        Self::default().max_attempts(1)
    }

    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`max_utilisation`](Self::max_utilisation).
    #[must_use]
    pub fn max_utilisation(mut self, share: impl Into<Option<Ratio>>) -> Self {
        self.max_utilisation = share.into();
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check
            .rule((1..=Self::MOST).contains(&self.max_attempts), "max_attempts", self.max_attempts, "1 to 10")
            .part("backoff", |check| self.backoff.check(check));
    }
}
