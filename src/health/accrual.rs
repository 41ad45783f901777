//! Failure accrual: when the failures of one endpoint are too many.

use std::time::{Duration, Instant};

use super::{HealthOptions, Trip};
use crate::{
    estimate::slices::{Ring, Slices},
    sync::{AtomicU64, Mutex, Ordering::Relaxed, lock},
};

const SLICES: usize = 10;

/// The attempts of one endpoint, as far as the rules need them.
///
/// A success is one increment and one compare-and-swap, both relaxed: the sequence number of the attempt, from which "in a row" and "among the last
/// twenty" follow without touching anything else, and the slice of the time window. Everything else is kept where
/// failures are.
#[derive(Debug)]
#[repr(C)]
pub struct Accrual {
    sequence: AtomicU64,
    /// In nanoseconds, which take half the room.
    window: u64,
    slices: Slices,
    successes: Ring<SLICES>,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// The failures in a row, and the sequence number of the last.
    streak: u32,
    last: Option<u64>,
    /// Recent failures, oldest first; as many as any rule asks for.
    recent: std::collections::VecDeque<Failed>,
    /// What came before this sequence number is forgotten.
    from: u64,
    /// All failures, and the sequence numbers that resets have taken.
    failures: u64,
    /// Failures that no rule has looked at.
    late: u64,
    resets: u64,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    number: u64,
    at: Instant,
    /// Of which operation, by its number; 0 if that is not known.
    operation: u16,
}

impl Accrual {
    /// No history. `epoch` is any time before the first attempt; `window` is what the success rate is taken over, to
    /// the accuracy of a tenth of it.
    pub fn new(epoch: Instant, window: Duration) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            slices: Slices::new(epoch, window / SLICES as u32),
            successes: Ring::new(),
            log: Mutex::new(Log::default()),
        }
    }

    /// Counts a success.
    #[inline]
    pub fn success(&self, now: Instant) {
        self.sequence.fetch_add(1, Relaxed);
        self.successes.add(self.slices.number(now));
    }

    /// The same, of a time that is known in nanoseconds since the epoch.
    #[inline]
    pub(crate) fn success_at(&self, nanos: u64) {
        self.sequence.fetch_add(1, Relaxed);
        self.successes.add(self.slices.divide(nanos));
    }

    /// How many attempts were counted.
    #[inline]
    pub(crate) fn ended(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    /// How many successes and failures were counted in all, resets or not.
    pub fn totals(&self) -> (u64, u64) {
        let log = lock(&self.log);
        let others = log.failures + log.resets;
        (self.sequence.load(Relaxed).saturating_sub(others), log.failures + log.late)
    }

    /// The same without the failures that came too late to say anything.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let log = lock(&self.log);
        let others = log.failures + log.resets;
        (self.sequence.load(Relaxed).saturating_sub(others), log.failures)
    }

    /// Counts a failure in the total alone: it comes from before the endpoint was set aside or let back.
    pub(crate) fn late_failure(&self) {
        lock(&self.log).late += 1;
    }

    /// Counts a failure, and says which rule it trips.
    pub fn failure(&self, now: Instant, options: &HealthOptions) -> Option<Trip> {
        self.failure_of(0, now, options)
    }

    /// The same of an operation, by its number.
    pub(crate) fn failure_of(&self, operation: u16, now: Instant, options: &HealthOptions) -> Option<Trip> {
        let mut log = lock(&self.log);
        let number = self.sequence.fetch_add(1, Relaxed);
        log.failures += 1;
        log.streak =
            if number > 0 && log.last == Some(number - 1) { log.streak.saturating_add(1) } else { 1 };
        log.last = Some(number);
        log.recent.push_back(Failed { number, at: now, operation });
        let keep = options.failures.max(options.window_failures).max(KEEP) as usize;
        while log.recent.len() > keep {
            log.recent.pop_front();
        }
        if log.streak >= options.consecutive {
            return Some(Trip::Consecutive);
        }
        let from = log.from;
        let nth_last = |n: u32| {
            let before = (n as usize).checked_sub(1)?;
            log.recent.iter().rev().filter(|failed| failed.number >= from).nth(before)
        };
        if nth_last(options.failures)
            .is_some_and(|failed| number - failed.number < u64::from(options.of_last))
        {
            return Some(Trip::Count);
        }
        let window = Duration::from_nanos(self.window);
        let within =
            |failed: &&Failed| failed.number >= from && now.saturating_duration_since(failed.at) < window;
        let failures = log.recent.iter().filter(within).count() as u64;
        if failures >= u64::from(options.window_failures) {
            // Where more failures than are kept lie within the window, the rate is taken since the oldest one kept.
            let successes = if failures >= keep as u64 {
                let oldest = log.recent.front().map_or(number, |failed| failed.number);
                (number + 1 - oldest).saturating_sub(failures)
            } else {
                self.successes.sum(self.slices.number(now))
            };
            let rate = successes as f64 / (successes + failures) as f64;
            if rate < options.success_rate.get() {
                return Some(Trip::Rate);
            }
        }
        None
    }

    /// Whether no failure that was counted can count again: enough has come after the last one, and its window is over.
    pub(super) fn is_spent(&self, now: Instant, options: &HealthOptions) -> bool {
        let log = lock(&self.log);
        let since = |failed: &Failed| self.sequence.load(Relaxed).saturating_sub(failed.number + 1);
        log.recent.back().filter(|failed| failed.number >= log.from).is_none_or(|last| {
            since(last) >= u64::from(options.of_last).max(1)
                && now.saturating_duration_since(last.at) >= Duration::from_nanos(self.window)
        })
    }

    /// Forgets everything: the endpoint starts anew.
    pub fn reset(&self) {
        let mut log = lock(&self.log);
        let from = self.sequence.fetch_add(1, Relaxed) + 1;
        *log = Log { from, failures: log.failures, late: log.late, resets: log.resets + 1, ..Log::default() };
        drop(log);
        self.successes.clear();
    }

    /// Takes back what the recent failures of an operation count for, but in the total, and in a row: one more of another
    /// operation, with no success between, says that nothing works there.
    pub(crate) fn forgive(&self, operation: u16) {
        let mut log = lock(&self.log);
        let before = log.recent.len();
        log.recent.retain(|failed| failed.operation != operation);
        let forgiven = (before - log.recent.len()) as u64;
        log.failures -= forgiven;
        log.late += forgiven;
        // Their sequence numbers stay theirs.
        log.resets += forgiven;
    }

    /// Whether there was a success in the slice of the window that goes on, or the one before.
    pub(super) fn has_just_succeeded(&self, now: Instant) -> bool {
        let slice = self.slices.number(now);
        self.successes.has(slice) || slice.checked_sub(1).is_some_and(|before| self.successes.has(before))
    }

    /// The failures in a row up to now.
    pub fn streak(&self) -> u32 {
        let log = lock(&self.log);
        let next = self.sequence.load(Relaxed);
        if log.last.is_some_and(|last| last + 1 == next) { log.streak } else { 0 }
    }
}

/// Failures remembered at least, so that the rate over the window is exact for slow endpoints.
const KEEP: u32 = 64;

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn options() -> HealthOptions {
        HealthOptions::default()
    }

    #[test]
    fn five_failures_in_a_row_trip_after_any_length_of_good_history() {
        for history in [0, 1, 1_000, 100_000] {
            let (now, accrual) = (clock::now(), Accrual::new(clock::now(), options().window));
            for _ in 0..history {
                accrual.success(now);
            }
            let trips: Vec<_> = (0..5).map(|_| accrual.failure(now, &options())).collect();
            assert_eq!(trips, [None, None, None, None, Some(Trip::Consecutive)], "after {history}");
        }
    }

    #[test]
    fn a_success_in_between_breaks_the_row() {
        let (now, accrual) = (clock::now(), Accrual::new(clock::now(), options().window));
        for _ in 0..4 {
            accrual.failure(now, &options());
        }
        accrual.success(now);
        assert_eq!(accrual.streak(), 0);
        assert_ne!(accrual.failure(now, &options()), Some(Trip::Consecutive));
        assert_eq!(accrual.streak(), 1);
    }

    #[test]
    fn six_of_the_last_twenty_trip_and_six_of_twenty_one_do_not() {
        let spaced = |gap: usize| {
            let (now, accrual) = (clock::now(), Accrual::new(clock::now(), options().window));
            for _ in 0..10_000 {
                accrual.success(now); // keeps the rate high
            }
            let mut last = None;
            for number in 0..6 {
                for _ in 0..if number == 0 { 0 } else { gap } {
                    accrual.success(now);
                }
                last = accrual.failure(now, &options());
            }
            last
        };
        assert_eq!(spaced(2), Some(Trip::Count)); // 16 attempts
        assert_eq!(spaced(3), None); // 21 attempts
    }

    #[test]
    fn the_rate_trips_below_four_fifths_and_not_at_it() {
        let run = |successes: u32| {
            let mut options = options();
            options.failures = 64;
            options.of_last = 64;
            let (now, accrual) = (clock::now(), Accrual::new(clock::now(), HealthOptions::default().window));
            let mut trip = None;
            for round in 0..5 {
                for _ in 0..successes / 5 + u32::from(round < successes % 5) {
                    accrual.success(now);
                }
                trip = accrual.failure(now, &options);
            }
            trip
        };
        assert_eq!(run(20), None);
        assert_eq!(run(19), Some(Trip::Rate));
    }

    #[test]
    fn what_left_the_window_no_longer_counts() {
        let (start, accrual) = (clock::now(), Accrual::new(clock::now(), options().window));
        for _ in 0..1_000 {
            accrual.success(start);
        }
        let late = start + Duration::from_secs(40);
        assert_eq!(accrual.successes.sum(accrual.slices.number(late)), 0);
        let mut last = None;
        for _ in 0..5 {
            accrual.success(late);
            last = accrual.failure(late, &options());
        }
        assert_eq!(last, Some(Trip::Rate), "5 of 10 within the window");
    }

    #[test]
    fn a_reset_forgets() {
        let (now, accrual) = (clock::now(), Accrual::new(clock::now(), options().window));
        for _ in 0..4 {
            accrual.failure(now, &options());
        }
        accrual.reset();
        assert_eq!(accrual.failure(now, &options()), None);
        assert_eq!(accrual.streak(), 1);
    }

    proptest! {
        #[test]
        fn the_rules_agree_with_a_plain_history(steps in prop::collection::vec((any::<bool>(), 0_u64..900), 1..300)) {
            let options = options();
            let start = clock::now();
            let accrual = Accrual::new(start, options.window);
            let mut history: Vec<(Instant, bool)> = Vec::new();
            let mut now = start;
            for (success, pause) in steps {
                now += Duration::from_millis(pause);
                history.push((now, success));
                if success {
                    accrual.success(now);
                    continue;
                }
                let got = accrual.failure(now, &options);
                let streak = history.iter().rev().take_while(|(_, ok)| !ok).count();
                let last = history.iter().rev().take(20).filter(|(_, ok)| !ok).count();
                if streak >= 5 {
                    prop_assert_eq!(got, Some(Trip::Consecutive));
                } else if last >= 6 {
                    prop_assert_eq!(got, Some(Trip::Count));
                } else if got == Some(Trip::Rate) || got.is_none() {
                    // The window's edge is known to a tenth: the true rate lies between those of the two edges.
                    let rate = |window: Duration| {
                        let inside = |at: &Instant| now.saturating_duration_since(*at) < window;
                        let good = history.iter().filter(|(at, ok)| *ok && inside(at)).count() as f64;
                        let bad = history.iter().filter(|(at, ok)| !ok && inside(at)).count() as f64;
                        (good, bad)
                    };
                    let (_, bad) = rate(options.window);
                    let (least, _) = rate(options.window.mul_f64(0.9));
                    let (most, _) = rate(options.window);
                    if got.is_some() {
                        prop_assert!(bad >= 5.0 && least / (least + bad) < 0.8);
                    } else {
                        prop_assert!(bad < 5.0 || most / (most + bad) >= 0.8);
                    }
                } else {
                    prop_assert!(false, "{got:?} with streak {streak} and {last} of 20");
                }
            }
        }
    }
}
