//! Time cut into numbered slices of equal length, and rings of counters that know which slice they count.

use std::{
    array,
    cmp::Ordering::{Equal, Less},
    time::{Duration, Instant},
};

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Numbers the slices of time from an epoch on. Time before the epoch counts as the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slices {
    epoch: Instant,
    length: u64,
    /// `(2^64 - 1) / length`: a division costs more than everything else that a record does.
    reciprocal: u64,
}

impl Slices {
    /// Slices of `length` (at least a nanosecond) from `epoch` on.
    pub(crate) fn new(epoch: Instant, length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { epoch, length, reciprocal: u64::MAX / length }
    }

    /// Where time begins.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The number of the slice that holds `now`.
    #[inline]
    pub(crate) fn number(&self, now: Instant) -> u64 {
        self.divide(nanos_since(self.epoch, now))
    }

    /// The number of the slice so many nanoseconds after the epoch.
    #[inline]
    pub(crate) fn divide(&self, elapsed: u64) -> u64 {
        // Too low by one at most: the reciprocal is rounded down, and by less than one part in 2^64 of the quotient.
        let quotient = ((u128::from(elapsed) * u128::from(self.reciprocal)) >> 64) as u64;
        quotient + u64::from(elapsed - quotient * self.length >= self.length)
    }
}

/// Nanoseconds from `epoch` to `now`, 0 if `now` is earlier. They wrap around after 584 years.
#[inline]
pub(crate) fn nanos_since(epoch: Instant, now: Instant) -> u64 {
    let passed = now.saturating_duration_since(epoch);
    passed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(passed.subsec_nanos()))
}

/// The low bits of a word hold its count, the others the lap of the ring in which it was counted.
const COUNT_BITS: u32 = 28;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Counts of the last `N` slices. A slice's word says which lap of the ring it belongs to, so nothing ever has to be
/// cleared, and a count is never taken for one of another slice.
///
/// A slice counts to 2^28 - 1 and then stays there. Laps are told apart for 2^36 laps: 21 years for a ring that spans
/// 10 ms, in proportion for others.
#[derive(Debug)]
pub(crate) struct Ring<const N: usize>([AtomicU64; N]);

impl<const N: usize> Ring<N> {
    pub(crate) fn new() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one in slice `number`. Does nothing if a newer slice has taken its place.
    #[inline]
    pub(crate) fn add(&self, number: u64) {
        let (lap, position) = Self::place(number);
        let word = &self.0[position];
        let mut seen = word.load(Relaxed);
        loop {
            let next = match (seen >> COUNT_BITS).cmp(&lap) {
                Less => lap << COUNT_BITS | 1,
                Equal if seen & COUNT < COUNT => seen + 1,
                _ => return,
            };
            // Not a plain addition: it might land in a slice that came while this thread slept.
            match word.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// What was counted in slice `newest` and the `N - 1` before it.
    pub(crate) fn sum(&self, newest: u64) -> u64 {
        let (lap, position) = Self::place(newest);
        let mut sum = 0;
        for (index, word) in self.0.iter().enumerate() {
            let word = word.load(Relaxed);
            // Places behind the newest one are of this lap, those ahead of it of the lap before.
            let live = if index <= position { Some(lap) } else { lap.checked_sub(1) };
            if Some(word >> COUNT_BITS) == live {
                sum += word & COUNT;
            }
        }
        sum
    }

    /// Whether anything was counted in this slice.
    pub(crate) fn has(&self, number: u64) -> bool {
        let (lap, position) = Self::place(number);
        let word = self.0[position].load(Relaxed);
        word >> COUNT_BITS == lap && word & COUNT > 0
    }

    /// Forgets every slice. A count that is just being added may survive.
    pub(crate) fn clear(&self) {
        for word in &self.0 {
            word.store(0, Relaxed);
        }
    }

    fn place(number: u64) -> (u64, usize) {
        (number / N as u64, (number % N as u64) as usize)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_reciprocal_divides_exactly(
            elapsed in any::<u64>(),
            length in prop_oneof![1_u64..=1_000, any::<u64>()],
        ) {
            let slices = Slices::new(crate::clock::now(), Duration::from_nanos(length));
            prop_assert_eq!(slices.divide(elapsed), elapsed / length.max(1));
        }
    }

    #[test]
    fn a_multiple_of_the_length_starts_a_slice() {
        for length in [1, 2, 3, 1 << 32, 1_000_000_000, u64::MAX] {
            let slices = Slices::new(crate::clock::now(), Duration::from_nanos(length));
            for elapsed in [0, length - 1, length, u64::MAX - 1, u64::MAX] {
                assert_eq!(slices.divide(elapsed), elapsed / length, "{elapsed} / {length}");
            }
        }
    }

    #[test]
    fn time_before_the_epoch_counts_as_the_epoch() {
        let epoch = crate::clock::now();
        let slices = Slices::new(epoch + Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(slices.number(epoch), 0);
    }

    #[test]
    fn a_full_slice_stays_full_and_does_not_spill_into_its_lap() {
        let ring = Ring::<2>::new();
        ring.add(4);
        ring.0[0].store(2 << COUNT_BITS | COUNT, Relaxed);
        ring.add(4);
        assert_eq!(ring.sum(4), COUNT);
    }

    #[test]
    fn a_late_count_does_not_bring_an_old_slice_back() {
        let ring = Ring::<2>::new();
        ring.add(5);
        ring.add(3);
        assert_eq!((ring.sum(5), ring.sum(3)), (1, 0));
    }
}
