//! When a resolver asks again, and when it connects again.

use std::time::Duration;

use crate::{
    Ratio,
    backoff::{Backoff, Jitter},
    invalid::{Check, Invalid},
    random::Seeded,
};

/// When a resolver that must ask asks again.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PollOptions {
    /// How long to rest after an answer \[30 s\].
    pub interval: Duration,
    /// How far a rest may be longer or shorter than the interval, so that clients that started together do not ask
    /// together \[10 %, at most 50 %\].
    pub jitter: Ratio,
    /// The shortest rest after an answer when an early look-up is asked for \[5 s\].
    pub floor: Duration,
    /// How long a look-up may take \[5 s\]. Longer is a failure.
    pub timeout: Duration,
    /// How long to rest after a failure \[1 s, doubling to 30 s, equal jitter\]. Never 0, so that a registry that refuses
    /// at once is not asked in a tight loop.
    pub backoff: Backoff,
}

impl PollOptions {
    /// Sets [`interval`](Self::interval).
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`jitter`](Self::jitter).
    pub const fn jitter(mut self, jitter: Ratio) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets [`floor`](Self::floor).
    pub const fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check
            .duration("interval", self.interval)
            .rule(self.jitter.get() <= 0.5, "jitter", self.jitter, "at most 50 %")
            .duration("floor", self.floor)
            .duration("timeout", self.timeout);
        check_backoff(&self.backoff, check);
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }
}

impl Default for PollOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter: Ratio::percent::<10>(),
            floor: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            backoff: Backoff::exponential(Duration::from_secs(1))
                .cap(Duration::from_secs(30))
                .jitter(Jitter::Equal),
        }
    }
}

fn check_backoff(backoff: &Backoff, check: &mut Check) {
    check
        .rule(
            !backoff.delay(1, Duration::ZERO, &Seeded::new(0)).is_zero(),
            "backoff",
            backoff,
            "must wait between failed look-ups",
        )
        .part("backoff", |check| backoff.check(check));
}

/// How a resolver that watches a registry bears with it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WatchOptions {
    /// How long connecting may take, and every answer that is due at once \[5 s\]. Longer is a failure.
    pub timeout: Duration,
    /// How long to rest before the registry is tried again after a failure \[100 ms, doubling to 30 s, full jitter\]. Never
    /// 0, so that a registry that refuses at once is not tried in a tight loop.
    pub backoff: Backoff,
}

impl WatchOptions {
    /// Sets [`timeout`](Self::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with each option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.duration("timeout", self.timeout);
            check_backoff(&self.backoff, check);
        })
    }
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            backoff: Backoff::exponential(Duration::from_millis(100))
                .cap(Duration::from_secs(30))
                .jitter(Jitter::Full),
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_refuses_at_once_is_never_asked_without_a_rest() {
        let never = Backoff::fixed(Duration::ZERO);
        let told = "backoff = Backoff";
        for checked in [
            PollOptions::default().backoff(never).validate(),
            WatchOptions::default().backoff(never).validate(),
        ] {
            let error = checked.unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("must wait between"), "{error}");
        }
        assert!(PollOptions::default().validate().is_ok() && WatchOptions::default().validate().is_ok());
    }
}
