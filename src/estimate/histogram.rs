//! Latency distributions in a few hundred bytes.

use std::{array, fmt, time::Duration};

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// 2^10 ns, about 1 us: where the first bucket starts.
const FIRST_OCTAVE: u32 = 10;
/// 2^36 ns, about 69 s: where the last bucket ends. One octave in a model, so that it ends.
const END_OCTAVE: u32 = if cfg!(mainstay_loom) { FIRST_OCTAVE + 1 } else { 36 };
/// Each octave has 2^3 buckets of equal width.
const STEP_BITS: u32 = 3;
const STEPS: u32 = 1 << STEP_BITS;
const BUCKETS: usize = ((END_OCTAVE - FIRST_OCTAVE) * STEPS) as usize;

/// Latencies counted in log-linear buckets: eight equal steps to the octave from 1.02 us to 68.7 s.
///
/// What is shorter counts in the first bucket, what is longer in the last. 832 bytes. A bucket's count wraps around after
/// 2^32 records; rotate it before (see [`Recent`](super::Recent)).
pub struct Histogram([AtomicU32; BUCKETS]);

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self(array::from_fn(|_| AtomicU32::new(0)))
    }

    /// Counts a latency: a few shifts and one relaxed addition.
    #[inline]
    pub fn record(&self, latency: Duration) {
        self.count(bucket(latency));
    }

    /// Counts a latency whose bucket is known.
    #[inline]
    pub(crate) fn count(&self, bucket: usize) {
        self.0[bucket].fetch_add(1, Relaxed);
    }

    /// A copy of the counts. Records that arrive meanwhile may or may not be in it.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.add_to(&mut counts);
        counts
    }

    /// Adds the counts to `counts`, to merge histograms.
    pub fn add_to(&self, counts: &mut Counts) {
        for (sum, count) in counts.0.iter_mut().zip(&self.0) {
            *sum += u64::from(count.load(Relaxed));
        }
    }

    pub(super) fn clear(&self) {
        for count in &self.0 {
            count.store(0, Relaxed);
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.counts()).finish()
    }
}

/// Counts of latencies, read from a [`Histogram`] or merged from several.
#[derive(Clone, PartialEq, Eq)]
pub struct Counts([u64; BUCKETS]);

impl Counts {
    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }

    /// The counts, bucket by bucket.
    pub(super) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// How many latencies were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The latency that a share of `quantile` (from 0 to 1; what lies outside is taken as the nearer end, and no number as
    /// 0) of the counted ones do not exceed, by the nearest rank. `None` if nothing was counted.
    ///
    /// The answer is the middle of a bucket, so it differs from the true one by at most 1/16 (6.25 %), for latencies from
    /// 1.02 us to 68.7 s. A shorter one is told as 1.09 us, a longer one as 66.6 s.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.total();
        let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        self.0.iter().enumerate().find_map(|(index, count)| {
            seen += count;
            (seen >= rank).then(|| Duration::from_nanos(middle(index)))
        })
    }

    /// The counts as an hdrhistogram in nanoseconds, each bucket at its middle, to two significant digits.
    pub(crate) fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1 << FIRST_OCTAVE, 1 << END_OCTAVE, 2)
            .expect("constant bounds are valid");
        for (index, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            hdr.saturating_record_n(middle(index), *count);
        }
        hdr
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts")
            .field("total", &self.total())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

#[inline]
pub(super) fn bucket(latency: Duration) -> usize {
    bucket_of(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))
}

/// The bucket of a latency in nanoseconds.
#[inline]
pub(crate) fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << FIRST_OCTAVE, (1 << END_OCTAVE) - 1);
    let octave = nanos.ilog2();
    let step = (nanos >> (octave - STEP_BITS)) as u32 & (STEPS - 1);
    ((octave - FIRST_OCTAVE) * STEPS + step) as usize
}

/// The middle of a bucket in nanoseconds.
pub(super) fn middle(index: usize) -> u64 {
    let (octave, step) = (index as u32 / STEPS + FIRST_OCTAVE, index as u64 % u64::from(STEPS));
    let width = 1_u64 << (octave - STEP_BITS);
    (u64::from(STEPS) + step) * width + width / 2
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_bucket_holds_its_own_middle() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(Duration::from_nanos(middle(index))), index);
        }
        assert_eq!(BUCKETS, 208);
        assert_eq!(size_of::<Histogram>(), 832);
    }

    #[test]
    fn the_shortest_and_the_longest_latencies_count_at_the_ends() {
        let histogram = Histogram::new();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        let counts = histogram.counts();
        assert_eq!(counts.total(), 2);
        assert_eq!(counts.quantile(0.0), Some(Duration::from_nanos(1_088)));
        assert!(counts.quantile(1.0).is_some_and(|longest| longest > Duration::from_secs(66)));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Counts::default().quantile(0.5), None);
    }

    #[test]
    fn a_quantile_outside_its_range_is_the_nearer_end() {
        let histogram = Histogram::new();
        histogram.record(Duration::from_millis(1));
        histogram.record(Duration::from_secs(1));
        let counts = histogram.counts();
        assert_eq!(counts.quantile(-1.0), counts.quantile(0.0));
        assert_eq!(counts.quantile(7.0), counts.quantile(1.0));
        assert_eq!(counts.quantile(f64::NAN), counts.quantile(0.0));
    }

    #[test]
    fn merged_counts_are_the_sum() {
        let (a, b) = (Histogram::new(), Histogram::new());
        a.record(Duration::from_millis(1));
        b.record(Duration::from_millis(1));
        b.record(Duration::from_millis(50));
        let mut sum = a.counts();
        sum.add(&b.counts());
        let mut other = Counts::default();
        a.add_to(&mut other);
        b.add_to(&mut other);
        assert_eq!((sum.total(), &sum), (3, &other));
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_a_sixteenth_of_the_true_one(
            mut nanos in prop::collection::vec(
                prop_oneof![1_024_u64..1 << 16, 1_024_u64..1 << 26, 1_024_u64..1 << 36], 1..300,
            ),
            quantile in 0.0_f64..=1.0,
        ) {
            let histogram = Histogram::new();
            for nanos in &nanos {
                histogram.record(Duration::from_nanos(*nanos));
            }
            nanos.sort_unstable();
            let rank = ((quantile * nanos.len() as f64).ceil() as usize).max(1);
            let truth = nanos[rank - 1] as f64;
            let found = histogram.counts().quantile(quantile).unwrap().as_nanos() as f64;
            prop_assert!((found / truth - 1.0).abs() <= 1.0 / 16.0, "{} for {}", found, truth);
        }

        #[test]
        fn the_hdrhistogram_agrees_within_its_two_digits(
            nanos in prop::collection::vec(1_024_u64..1 << 36, 1..100), quantile in 0.01_f64..=1.0,
        ) {
            let histogram = Histogram::new();
            for nanos in &nanos {
                histogram.record(Duration::from_nanos(*nanos));
            }
            let counts = histogram.counts();
            let (ours, hdr) = (counts.quantile(quantile).unwrap().as_nanos() as f64, counts.to_hdr());
            prop_assert_eq!(hdr.len(), counts.total());
            let theirs = hdr.value_at_quantile(quantile) as f64;
            prop_assert!((theirs / ours - 1.0).abs() <= 0.01, "{} and {}", ours, theirs);
        }
    }
}
