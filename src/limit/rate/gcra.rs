//! The generic cell rate algorithm.

use std::time::{Duration, Instant};

use super::RateLimitOptions;
use crate::{
    describe::Criticality,
    estimate::slices::nanos_since,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// Parts of a nanosecond that time is counted in: the interval between two requests is rounded up by at most one of them. 64
/// bits of them last for 36 years.
const PARTS: u64 = 16;

/// A rate limit in one word: the time at which it will be as if nothing had ever been admitted.
///
/// In any interval of length `t` at most `burst + rate x t` are admitted, exactly, whoever asks and however many at once.
/// The interval between two requests is rounded up to a sixteenth of a nanosecond, never down.
///
/// That holds of the times that are granted: the `now` of who goes at once, and `now + wait` of a [`Reservation`]. Who uses
/// one later than that may meet those that come after it.
#[derive(Debug)]
pub struct Gcra {
    epoch: Instant,
    free: AtomicU64,
    interval: AtomicU64,
    burst: AtomicU64,
}

/// What was taken in advance, and when it may be used.
///
/// There is one of each: what is used once is given back at most once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved and not used is to be given back"]
pub struct Reservation {
    /// How long to wait before it is used.
    pub wait: Duration,
    before: u64,
    after: u64,
}

/// Why nothing was taken: how long to wait before asking again; `None` if it is more than is ever there at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet(pub Option<Duration>);

impl Gcra {
    /// A limit that nothing was taken from, its time counted from `epoch`.
    pub fn new(options: &RateLimitOptions, epoch: Instant) -> Self {
        let limit =
            Self { epoch, free: AtomicU64::new(0), interval: AtomicU64::new(0), burst: AtomicU64::new(0) };
        limit.interval.store(interval(options), Relaxed);
        limit.burst.store(u64::from(options.burst), Relaxed);
        limit
    }

    /// Another rate and burst from `now` on. As much as was taken stays taken, and comes back at the new rate; what was
    /// reserved stays reserved for its time. One at a time may do this.
    pub fn set(&self, options: &RateLimitOptions, now: Instant) {
        let now = nanos_since(self.epoch, now).saturating_mul(PARTS);
        let (before, after) = (self.interval.load(Relaxed), interval(options));
        let rescaled = |free: u64| {
            let taken = u128::from(free.saturating_sub(now)) * u128::from(after);
            let taken = u64::try_from(taken.div_ceil(u128::from(before.max(1)))).unwrap_or(u64::MAX);
            (free > now && before != after).then(|| now.saturating_add(taken))
        };
        let _ = self.free.fetch_update(Relaxed, Relaxed, rescaled);
        self.interval.store(after, Relaxed);
        self.burst.store(u64::from(options.burst), Relaxed);
    }

    /// Takes `weight` at `now`, or nothing.
    ///
    /// # Errors
    /// [`NotYet`] with the time after which it may be there.
    #[inline]
    pub fn admit(&self, now: Instant, weight: u32) -> Result<(), NotYet> {
        self.reserve(now, weight, Duration::ZERO, Criticality::CriticalPlus).map(drop)
    }

    /// Takes `weight` that is there at `now` or within `patience`. Who matters less than the most leaves a part of the burst
    /// to the others: a fourth for each class.
    ///
    /// # Errors
    /// [`NotYet`] with the time after which it may be there.
    #[inline]
    pub fn reserve(
        &self,
        now: Instant,
        weight: u32,
        patience: Duration,
        class: Criticality,
    ) -> Result<Reservation, NotYet> {
        let now = nanos_since(self.epoch, now).saturating_mul(PARTS);
        let (interval, burst) = (self.interval.load(Relaxed), self.burst.load(Relaxed));
        let span = burst.saturating_mul(interval);
        let own = match class {
            Criticality::CriticalPlus => span,
            class => span / 4 * (u64::from(class as u8) + 1),
        };
        let cost = u64::from(weight).saturating_mul(interval);
        if cost > own {
            return Err(NotYet(None));
        }
        let patience = parts(patience);
        let mut free = self.free.load(Relaxed);
        loop {
            let mut after = free.max(now).saturating_add(cost);
            // How far it would be behind what is there. Nobody wakes at a part of a nanosecond: what comes after it counts from
            // where it wakes.
            let there = now.saturating_add(own);
            let wait = after.saturating_sub(there).div_ceil(PARTS).saturating_mul(PARTS);
            if wait > 0 {
                after = there.saturating_add(wait);
            }
            if wait > patience {
                return Err(NotYet(Some(time(wait))));
            }
            match self.free.compare_exchange_weak(free, after, Relaxed, Relaxed) {
                Ok(before) => return Ok(Reservation { wait: time(wait), before, after }),
                Err(other) => free = other,
            }
        }
    }

    /// Gives back what was not used and nobody has taken after. What others stand behind is lost: moving them up would let
    /// them meet others that have moved up.
    pub fn give_back(&self, unused: Reservation) {
        let _ = self.free.compare_exchange(unused.after, unused.before, Relaxed, Relaxed);
    }

    /// How many of weight 1 would be admitted at `now` if nobody else came.
    pub fn available(&self, now: Instant) -> u32 {
        let now = nanos_since(self.epoch, now).saturating_mul(PARTS);
        let (interval, burst) = (self.interval.load(Relaxed), self.burst.load(Relaxed));
        let taken = self.free.load(Relaxed).saturating_sub(now);
        let left = burst.saturating_mul(interval).saturating_sub(taken) / interval;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Whether it is at `now` as if nothing had ever been taken.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.free.load(Relaxed) <= nanos_since(self.epoch, now).saturating_mul(PARTS)
    }
}

/// The parts between two requests, rounded up.
fn interval(options: &RateLimitOptions) -> u64 {
    let parts = (options.per.as_nanos() * u128::from(PARTS)).div_ceil(u128::from(options.rate.max(1)));
    u64::try_from(parts).unwrap_or(u64::MAX).max(1)
}

fn parts(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(PARTS)
}

/// Rounded up: who comes back then finds it there.
fn time(parts: u64) -> Duration {
    Duration::from_nanos(parts.div_ceil(PARTS))
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(rate: u32, per: Duration, burst: u32) -> RateLimitOptions {
        RateLimitOptions::default().rate(rate, per).burst(burst)
    }

    proptest! {
        #[test]
        fn in_any_interval_no_more_than_burst_and_rate_are_admitted(
            rate in 1_u32..2_000_000, burst in 1_u32..50, per_ms in 1_u64..5_000,
            steps in prop::collection::vec((0_u64..3_000_000_000, 1_u32..5, 0_u64..400_000_000, any::<bool>()), 1..120),
        ) {
            let epoch = crate::clock::now();
            let per = Duration::from_millis(per_ms);
            let limit = Gcra::new(&options(rate, per, burst), epoch);
            let mut nanos = 0_u64;
            // When each was used, and its weight.
            let mut used: Vec<(u64, u64)> = Vec::new();
            for (step, weight, patience, back) in steps {
                nanos += step % (per.as_nanos() as u64 * 3 / u64::from(rate)).max(1);
                let now = epoch + Duration::from_nanos(nanos);
                let patience = Duration::from_nanos(patience);
                if let Ok(reservation) = limit.reserve(now, weight, patience, Criticality::CriticalPlus) {
                    prop_assert!(reservation.wait <= patience);
                    if back {
                        limit.give_back(reservation);
                    } else {
                        used.push((nanos + reservation.wait.as_nanos() as u64, u64::from(weight)));
                    }
                }
            }
            used.sort_unstable();
            for from in 0..used.len() {
                let mut sum = 0_u128;
                for (at, weight) in &used[from..] {
                    sum += u128::from(*weight);
                    let length = u128::from(at - used[from].0);
                    // sum <= burst + rate x length / per, in whole numbers.
                    prop_assert!(
                        sum * per.as_nanos() <= u128::from(burst) * per.as_nanos() + u128::from(rate) * length,
                        "{} within {} ns", sum, length
                    );
                }
            }
        }

        #[test]
        fn who_comes_back_when_told_finds_it_there(
            rate in 1_u32..1_000_000, burst in 1_u32..20, weight in 1_u32..20, later in 0_u64..1_000_000,
        ) {
            let epoch = crate::clock::now();
            let limit = Gcra::new(&options(rate, Duration::from_secs(1), burst), epoch);
            let now = epoch + Duration::from_nanos(later);
            while limit.admit(now, 1).is_ok() {}
            match limit.admit(now, weight) {
                Err(NotYet(Some(wait))) => {
                    prop_assert!(limit.admit(now + wait - Duration::from_nanos(1), weight).is_err());
                    prop_assert!(limit.admit(now + wait, weight).is_ok());
                }
                Err(NotYet(None)) => prop_assert!(weight > burst),
                Ok(()) => prop_assert!(false),
            }
        }
    }

    #[test]
    fn the_burst_is_there_at_once_and_comes_back_at_the_rate() {
        let epoch = crate::clock::now();
        let limit = Gcra::new(&options(10, Duration::from_secs(1), 3), epoch);
        let at = |ms| epoch + Duration::from_millis(ms);
        assert_eq!((0..9).filter(|_| limit.admit(at(0), 1).is_ok()).count(), 3);
        assert_eq!(limit.admit(at(40), 1), Err(NotYet(Some(Duration::from_millis(60)))));
        assert_eq!((limit.available(at(250)), limit.available(at(9_000))), (2, 3));
    }

    #[test]
    fn as_much_as_was_taken_stays_taken_at_another_rate() {
        let epoch = crate::clock::now();
        let minute = Duration::from_secs(60);
        let limit = Gcra::new(&options(1, minute, 10), epoch);
        assert!((0..7).all(|_| limit.admit(epoch, 1).is_ok()));
        let at = epoch + minute;
        assert_eq!(limit.available(at), 4);
        limit.set(&options(1_000, Duration::from_secs(1), 10), at);
        assert_eq!((limit.available(at), limit.available(at + Duration::from_millis(3))), (4, 7));
        limit.set(&options(1, minute, 20), at);
        assert_eq!((limit.available(at), limit.available(at + minute * 2)), (14, 16));
    }

    #[test]
    fn a_long_silence_earns_no_more_than_the_burst() {
        let epoch = crate::clock::now();
        let limit = Gcra::new(&options(1_000, Duration::from_secs(1), 5), epoch);
        let later = epoch + Duration::from_secs(86_400 * 365);
        assert_eq!((0..99).filter(|_| limit.admit(later, 1).is_ok()).count(), 5);
    }

    #[test]
    fn who_matters_less_leaves_a_part_of_the_burst() {
        let epoch = crate::clock::now();
        let limit = Gcra::new(&options(1, Duration::from_secs(1), 8), epoch);
        let take = |class| (0..9).filter(|_| limit.reserve(epoch, 1, Duration::ZERO, class).is_ok()).count();
        assert_eq!(take(Criticality::Sheddable), 2);
        assert_eq!(take(Criticality::SheddablePlus), 2);
        assert_eq!(take(Criticality::Critical), 2);
        assert_eq!(take(Criticality::CriticalPlus), 2);
    }

    #[test]
    fn threads_that_race_share_one_limit() {
        let epoch = crate::clock::now();
        let limit = Gcra::new(&options(1_000, Duration::from_secs(1), 100), epoch);
        let count = || {
            (0..20_000_u64).filter(|n| limit.admit(epoch + Duration::from_micros(n * 100), 1).is_ok()).count()
        };
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Two seconds; the threads' clocks differ, so some of the rate may be missed, and none gained.
        assert!(admitted <= 100 + 2_000 && admitted > 1_000, "{admitted}");
    }
}
