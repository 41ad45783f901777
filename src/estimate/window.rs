//! A success rate over a sliding window of time.

use std::time::{Duration, Instant};

use super::slices::{Ring, Slices};
use crate::Outcome;

/// The window moves in this many steps.
const SLICES: usize = 10;

/// Successes and failures of the last so many seconds.
///
/// The window slides in steps of a tenth: an outcome counts for at least nine tenths of the window and at most for all
/// of it. However long and good the history, outcomes that left the window have no say. Nothing has to be cleared or
/// caught up after an idle time, so every call costs the same.
///
/// An outcome whose `now` is older than the window is dropped; one whose `now` lies ahead of the reader's counts when
/// the reader gets there. Up to 2^28 - 1 outcomes of a kind are told apart per step.
#[derive(Debug)]
pub struct SuccessRate {
    slices: Slices,
    successes: Ring<SLICES>,
    failures: Ring<SLICES>,
}

impl SuccessRate {
    /// An empty window of length `window` (at least 1 ms: a shorter one is taken as 1 ms), with its steps counted from
    /// `epoch`, any time not after the first outcome.
    pub fn over(window: Duration, epoch: Instant) -> Self {
        let window = window.max(Duration::from_millis(1));
        Self {
            slices: Slices::new(epoch, window / SLICES as u32),
            successes: Ring::new(),
            failures: Ring::new(),
        }
    }

    /// Counts an outcome: one load and one compare-and-swap, again only if another thread counts at the same instant.
    #[inline]
    pub fn record(&self, now: Instant, outcome: Outcome) {
        let number = self.slices.number(now);
        match outcome {
            Outcome::Success => self.successes.add(number),
            Outcome::Failure => self.failures.add(number),
        }
    }

    /// The share of successes, from 0 to 1, or `None` if nothing was recorded within the window.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let (successes, failures) = self.counts(now);
        let total = successes + failures;
        (total > 0).then(|| successes as f64 / total as f64)
    }

    /// Successes and failures within the window. The two are read one after the other, not at one instant.
    pub fn counts(&self, now: Instant) -> (u64, u64) {
        let number = self.slices.number(now);
        (self.successes.sum(number), self.failures.sum(number))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// Every outcome with the slice it fell into, the obvious way.
    #[derive(Default)]
    struct Naive(VecDeque<(u64, Outcome)>);

    impl Naive {
        fn counts(&mut self, slice: u64) -> (u64, u64) {
            self.0.retain(|(at, _)| at + 10 > slice);
            let successes = self.0.iter().filter(|(_, outcome)| *outcome == Outcome::Success).count() as u64;
            (successes, self.0.len() as u64 - successes)
        }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list_of_outcomes(
            steps in prop::collection::vec(
                (prop_oneof![8 => 0_u64..1_500, 1 => 0_u64..40_000, 1 => 0_u64..9_000_000_000], any::<bool>()),
                1..200,
            ),
        ) {
            let epoch = crate::clock::now();
            let window = SuccessRate::over(WINDOW, epoch);
            let (mut naive, mut millis) = (Naive::default(), 0);
            for (step, good) in steps {
                millis += step;
                let (now, slice) = (epoch + Duration::from_millis(millis), millis / 1_000);
                let outcome = if good { Outcome::Success } else { Outcome::Failure };
                window.record(now, outcome);
                naive.0.push_back((slice, outcome));
                prop_assert_eq!(window.counts(now), naive.counts(slice));
            }
        }
    }

    #[test]
    fn no_length_of_good_history_outweighs_the_window() {
        let epoch = crate::clock::now();
        let window = SuccessRate::over(WINDOW, epoch);
        for second in 0..100_000 {
            window.record(epoch + Duration::from_secs(second), Outcome::Success);
        }
        let bad = epoch + Duration::from_secs(100_020);
        window.record(bad, Outcome::Failure);
        assert_eq!(window.rate(bad), Some(0.0));
    }

    #[test]
    fn an_empty_window_has_no_rate() {
        let epoch = crate::clock::now();
        let window = SuccessRate::over(WINDOW, epoch);
        assert_eq!(window.rate(epoch), None);
        window.record(epoch, Outcome::Success);
        assert_eq!(window.rate(epoch), Some(1.0));
        assert_eq!(window.rate(epoch + WINDOW), None);
    }

    #[test]
    fn a_late_outcome_neither_counts_nor_removes_newer_ones() {
        let epoch = crate::clock::now();
        let window = SuccessRate::over(WINDOW, epoch);
        let later = epoch + WINDOW;
        window.record(later, Outcome::Success);
        window.record(epoch, Outcome::Success);
        assert_eq!(window.counts(later), (1, 0));
    }

    #[test]
    fn a_window_of_nothing_is_a_millisecond() {
        let epoch = crate::clock::now();
        let window = SuccessRate::over(Duration::ZERO, epoch);
        window.record(epoch, Outcome::Failure);
        assert_eq!(window.counts(epoch + Duration::from_micros(900)), (0, 1));
        assert_eq!(window.counts(epoch + Duration::from_millis(1)), (0, 0));
    }
}
