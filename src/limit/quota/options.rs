//! The options of a quota's layer.

use std::time::Duration;

use crate::{
    invalid::{Check, FOREVER, Invalid},
    limit::rate::RateLimitOptions,
};

/// What becomes of requests while a quota is away.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Away {
    /// They pass.
    #[default]
    Pass,
    /// They are refused.
    Refuse,
    /// They keep to a rate of this process alone: its share of the whole, say.
    Local(RateLimitOptions),
}

/// How a quota is asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QuotaOptions {
    /// How long a request may wait for its turn \[not at all, at most 1 h\]. One whose deadline comes earlier is refused at once.
    pub max_wait: Duration,
    /// How long the quota may take to answer \[50 ms\].
    pub timeout: Duration,
    /// How long it is not asked again after it was away \[1 s\].
    pub pause: Duration,
    /// What becomes of requests then \[they pass\].
    pub away: Away,
}

impl QuotaOptions {
    /// Sets [`max_wait`](Self::max_wait).
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`pause`](Self::pause).
    pub const fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sets [`away`](Self::away).
    pub fn away(mut self, away: Away) -> Self {
        self.away = away;
        self
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check
            .rule(self.max_wait <= Duration::from_secs(3_600), "max_wait", self.max_wait, "at most 1 h")
            .duration("timeout", self.timeout)
            .rule(self.pause <= FOREVER, "pause", self.pause, "at most 10 years");
        if let Away::Local(options) = &self.away {
            check.part("away", |check| options.check(check));
        }
        check.finish()
    }
}

impl Default for QuotaOptions {
    fn default() -> Self {
        Self {
            max_wait: Duration::ZERO,
            timeout: Duration::from_millis(50),
            pause: Duration::from_secs(1),
            away: Away::Pass,
        }
    }
}
