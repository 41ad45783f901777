//! The options of a rate limit.

use std::time::Duration;

use crate::invalid::{Check, FOREVER, Invalid};

/// The least burst of which each class of criticality has a share that lets a request through.
const CLASSES: u32 = 4;

/// How many requests in which time, how many at once, and how long one may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitOptions {
    /// So many \[100, at least 1\]
    pub rate: u32,
    /// in this time \[1 s, 1 us to a year\].
    pub per: Duration,
    /// How many may come at once after a silence \[10, at least 1, or 4 with `by_criticality`\].
    pub burst: u32,
    /// How long a request may wait for its turn \[not at all, at most 1 h\]. One whose deadline comes earlier is refused at once.
    pub max_wait: Duration,
    /// Whether requests that matter less leave a part of the burst to those that matter more \[false\]: the least important
    /// may take a fourth of it, the most important all. Wants a `burst` of at least 4, or the least important would never go.
    pub by_criticality: bool,
}

impl RateLimitOptions {
    /// Sets [`rate`](Self::rate) and [`per`](Self::per).
    pub const fn rate(mut self, rate: u32, per: Duration) -> Self {
        (self.rate, self.per) = (rate, per);
        self
    }

    /// Sets [`burst`](Self::burst).
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Sets [`max_wait`](Self::max_wait).
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets [`by_criticality`](Self::by_criticality).
    pub const fn by_criticality(mut self, by_criticality: bool) -> Self {
        self.by_criticality = by_criticality;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        let year = FOREVER / 10;
        check
            .rule(self.rate >= 1, "rate", self.rate, "at least 1")
            .rule((Duration::from_micros(1)..=year).contains(&self.per), "per", self.per, "1 us to a year")
            .rule(self.burst >= 1, "burst", self.burst, "at least 1")
            .rule(
                u64::from(self.burst) * self.per.as_secs().max(1) / u64::from(self.rate.max(1))
                    <= year.as_secs(),
                "burst",
                self.burst,
                "no more than the rate brings in a year",
            )
            .rule(
                !self.by_criticality || self.burst == 0 || self.burst >= CLASSES,
                "burst",
                self.burst,
                "at least 4 with `by_criticality`: the least important may take a fourth of it",
            )
            .rule(self.max_wait <= Duration::from_secs(3_600), "max_wait", self.max_wait, "at most 1 h");
    }

    pub(in crate::limit) fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }
}

impl Default for RateLimitOptions {
    fn default() -> Self {
        Self {
            rate: 100,
            per: Duration::from_secs(1),
            burst: 10,
            max_wait: Duration::ZERO,
            by_criticality: false,
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn by_criticality_wants_a_burst_of_which_each_class_has_a_share() {
        let of = |burst| RateLimitOptions::default().burst(burst).by_criticality(true).validate();
        assert!(of(4).is_ok());
        let invalid = of(3).unwrap_err();
        let problem = &invalid.problems()[0];
        assert_eq!((&*problem.field, &*problem.value), ("burst", "3"));
        assert!(problem.rule.contains("`by_criticality`"));
        assert!(RateLimitOptions::default().burst(1).validate().is_ok());
    }
}
