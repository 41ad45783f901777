//! The latencies of the last half minute to minute.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{
    histogram::{Counts, Histogram, bucket},
    slices::Slices,
};
use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Two histograms that take turns: readers see the current period and the one before.
///
/// Nothing is allocated before the first record; then about 1.7 kB. Nothing runs in the background: a record that finds its
/// half out of date clears it. Records of the few hundred nanoseconds of clearing are dropped, as are late ones whose period is
/// over twice. A thread that sleeps between choosing a half and counting may leave its sample in a later period; a reader
/// whose `now` lies behind may see a half that is just being cleared. Both are accepted: quantiles do not notice.
#[derive(Debug)]
pub struct Recent {
    periods: Slices,
    halves: OnceLock<Box<[Half; 2]>>,
}

#[derive(Debug)]
struct Half {
    /// The number of the period that is counted here, plus one; 0 before the first, `CLEARING` between two.
    period: AtomicU64,
    histogram: Histogram,
}

const CLEARING: u64 = u64::MAX;

impl Recent {
    /// What a period lasts unless told otherwise: 30 s.
    pub const PERIOD: Duration = Duration::from_secs(30);

    /// Nothing recorded yet; a new period begins each `period` (at least a nanosecond) from `epoch` on.
    pub fn new(epoch: Instant, period: Duration) -> Self {
        Self { periods: Slices::new(epoch, period), halves: OnceLock::new() }
    }

    /// Over how long a reader sees what was counted, so long after the epoch, in periods of [`PERIOD`](Self::PERIOD).
    pub(crate) fn covered(passed: Duration) -> Duration {
        let period = Self::PERIOD.as_nanos();
        let nanos = passed.as_nanos();
        Duration::from_nanos(nanos.min(nanos % period + period) as u64)
    }

    /// Counts a latency: on the usual path one load and one addition.
    #[inline]
    pub fn record(&self, now: Instant, latency: Duration) {
        self.record_in(self.periods.number(now), bucket(latency));
    }

    /// Counts a latency whose period and bucket are known, for whoever counts it in several places.
    #[inline]
    pub(crate) fn record_in(&self, period: u64, bucket: usize) {
        let halves = self.halves.get_or_init(|| Box::new([Half::new(), Half::new()]));
        halves[(period & 1) as usize].record(period + 1, bucket);
    }

    /// The latencies of the current period and the one before: at least the last `period`, at most twice that.
    pub fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        if let Some(halves) = self.halves.get() {
            let newest = self.periods.number(now) + 1;
            for half in halves.iter() {
                let period = half.period.load(Acquire);
                if period != 0 && (period == newest || period == newest - 1) {
                    half.histogram.add_to(&mut counts);
                }
            }
        }
        counts
    }
}

impl Half {
    fn new() -> Self {
        Self { period: AtomicU64::new(0), histogram: Histogram::new() }
    }

    #[inline]
    fn record(&self, period: u64, bucket: usize) {
        let found = self.period.load(Acquire);
        if found == period || (found < period && self.turn(found, period)) {
            self.histogram.count(bucket);
        }
    }

    /// Clears the half for `period`; false if another thread got there first.
    #[cold]
    fn turn(&self, found: u64, period: u64) -> bool {
        let won = self.period.compare_exchange(found, CLEARING, Acquire, Relaxed).is_ok();
        if won {
            self.histogram.clear();
            self.period.store(period, Release);
        }
        won
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_half_that_is_being_cleared_counts_as_nothing() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, SECOND);
        recent.record(epoch, MS);
        recent.halves.get().unwrap()[0].period.store(CLEARING, Relaxed);
        recent.record(epoch, MS);
        assert_eq!(recent.counts(epoch).total(), 0);
        assert_eq!(recent.counts(epoch + SECOND).total(), 0);
    }

    #[test]
    fn readers_see_this_period_and_the_one_before() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, Recent::PERIOD);
        recent.record(epoch + SECOND * 29, MS);
        recent.record(epoch + SECOND * 31, MS * 2);
        assert_eq!(recent.counts(epoch + SECOND * 59).total(), 2);
        assert_eq!(recent.counts(epoch + SECOND * 61).total(), 1);
        assert_eq!(recent.counts(epoch + SECOND * 91).total(), 0);
    }

    #[test]
    fn a_half_is_cleared_when_its_turn_comes_again() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, Recent::PERIOD);
        for period in 0..10 {
            recent.record(epoch + Recent::PERIOD * period, MS);
            assert!(recent.counts(epoch + Recent::PERIOD * period).total() <= 2);
        }
    }

    #[test]
    fn a_late_record_does_not_disturb_a_newer_period() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, Recent::PERIOD);
        recent.record(epoch + Recent::PERIOD * 2, MS);
        recent.record(epoch, MS);
        assert_eq!(recent.counts(epoch + Recent::PERIOD * 2).total(), 1);
    }

    #[test]
    fn an_idle_one_holds_no_memory() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, Recent::PERIOD);
        assert_eq!(recent.counts(epoch).total(), 0);
        assert!(recent.halves.get().is_none());
    }

    #[test]
    fn records_of_many_threads_are_all_counted_within_a_period() {
        let epoch = crate::clock::now();
        let recent = Recent::new(epoch, Recent::PERIOD);
        recent.record(epoch, MS);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| recent.record(epoch + SECOND, MS)));
            }
        });
        assert_eq!(recent.counts(epoch + SECOND).total(), 4_001);
    }
}
