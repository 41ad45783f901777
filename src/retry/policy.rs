//! The numbers behind retries.

use crate::{
    backoff::Backoff,
    invalid::{Check, Invalid},
};

/// How often a request is tried, and how long is waited in between.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first included \[3, 1 to 10\]. What was never sent does not count.
    pub max_attempts: u32,
    /// The waits between them \[25 ms, doubling to 250 ms, full jitter\].
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Backoff::default() }
    }
}

impl RetryPolicy {
    /// Attempts that a request may make at the most.
    pub const MOST: u32 = 10;

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
