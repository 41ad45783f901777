//! How long to wait before a registry is asked again.

use std::time::Duration;
#[cfg(feature = "consul")]
use std::time::Instant;

use crate::{backoff::Backoff, random::Entropy};

/// The rests after failures.
#[derive(Debug, Default)]
pub(in crate::resolve) struct Rest {
    failures: u32,
    last: Duration,
}

impl Rest {
    /// The registry is well.
    pub(in crate::resolve) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Rests after one more failure.
    pub(in crate::resolve) async fn after_failure(&mut self, backoff: &Backoff) {
        self.failures = self.failures.saturating_add(1);
        self.last = backoff.delay(self.failures, self.last, &Entropy);
        tokio::time::sleep(self.last).await;
    }
}

/// A bucket of questions: some at once, then one in every interval.
#[cfg(feature = "consul")]
#[derive(Debug)]
pub(in crate::resolve) struct Pace {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full, if nothing more was asked.
    full_at: Instant,
}

#[cfg(feature = "consul")]
impl Pace {
    pub(in crate::resolve) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, full_at: now }
    }

    /// How long to wait before the next question, which is taken as asked then.
    pub(in crate::resolve) fn next(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + self.interval;
        self.full_at = full_at;
        full_at.saturating_duration_since(now).saturating_sub(self.interval * self.burst)
    }
}

#[cfg(all(test, feature = "consul", not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn some_questions_pass_at_once_and_then_one_in_every_interval() {
        let start = clock::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second, 3, start);
        let mut now = start;
        let waits: Vec<u64> = (0..6)
            .map(|_| {
                let wait = pace.next(now);
                now += wait;
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 1, 1]);
        now += second * 10;
        assert_eq!((0..4).map(|_| pace.next(now).as_secs()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }
}
