//! A quantile of recent latencies that knows how much it knows.

use std::time::Duration;

use super::{
    ewma::Moment,
    mean::{FadingMean, Known, nanos},
};
use crate::Ratio;

/// A quantile of recent latencies, and how many samples it stands on: one word, as [`FadingMean`] is, and fading like that.
///
/// Each sample moves it by a part of its value: up by `share` of a step if the sample is above it, down by the rest of one if not, so
/// that it comes to rest where `share` of the samples lie under it. A step is a half of the value at first, and a
/// twentieth once thirty samples are known. So it follows what gets worse within some dozens of samples, and what gets
/// better by `1 / (1 - share)` times as many; around its place it wavers by some percent.
///
/// ```
/// use std::time::{Duration, Instant};
/// use mainstay::{Ratio, clock, estimate::{Decay, FadingQuantile}};
///
/// let now = clock::now();
/// let (decay, median) = (Decay::half_life(now, Duration::from_secs(10)), FadingQuantile::new(Ratio::percent::<50>()));
/// for sample in (1..=1_000).map(|number| number * 37 % 100) {
///     median.observe(decay.at(now), Duration::from_millis(sample));
/// }
/// let found = median.known(decay.at(now)).expect("samples").mean / 1e6;
/// assert!((40.0..60.0).contains(&found), "{found}");
/// ```
///
/// Source: stochastic approximation of a quantile (Robbins and Monro), with steps in proportion, as in "frugal streaming".
#[derive(Debug)]
pub struct FadingQuantile {
    value: FadingMean,
    share: f32,
}

impl FadingQuantile {
    /// Without history; `share` of the samples are to lie under it.
    pub fn new(share: Ratio) -> Self {
        Self { value: FadingMean::new(), share: share.get() as f32 }
    }

    /// Takes a measured latency in. One under a nanosecond counts as a nanosecond.
    pub fn observe(&self, at: Moment, sample: Duration) {
        self.value.move_to_quantile(at, nanos(sample), self.share);
    }

    /// What is known, or `None` without history; its `mean` is the quantile.
    pub fn known(&self, at: Moment) -> Option<Known> {
        self.value.known(at)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        estimate::Decay,
        random::{Random as _, Seeded},
    };

    fn exponential(random: &Seeded) -> Duration {
        let unit = ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-unit.ln() * 0.04)
    }

    #[test]
    fn of_one_that_is_asked_now_and_then_a_high_quantile_comes_down_within_two_minutes() {
        let (start, second) = (crate::clock::now(), Duration::from_secs(1));
        let decay = Decay::half_life(start, second * 10);
        for share in [Ratio::percent::<50>(), Ratio::percent::<90>(), Ratio::percent::<99>()] {
            let quantile = FadingQuantile::new(share);
            (0..100).for_each(|_| quantile.observe(decay.at(start), second * 2));
            for asked in 1..=20 {
                quantile.observe(decay.at(start + second * 6 * asked), Duration::from_millis(10));
            }
            let found = quantile.known(decay.at(start + second * 120)).unwrap().mean / 1e6;
            assert!(found <= 25.0, "{share}: {found}");
        }
    }

    #[test]
    fn it_comes_to_rest_at_the_quantile_of_what_it_is_given() {
        for (percent, share) in
            [(50, Ratio::percent::<50>()), (90, Ratio::percent::<90>()), (99, Ratio::percent::<99>())]
        {
            let (now, random) = (crate::clock::now(), Seeded::new(3));
            let (decay, quantile) =
                (Decay::half_life(now, Duration::from_secs(10)), FadingQuantile::new(share));
            let mut sum = 0.0;
            for round in 0..20_000 {
                quantile.observe(decay.at(now), exponential(&random));
                if round >= 10_000 {
                    sum += f64::from(quantile.known(decay.at(now)).unwrap().mean) / 1e9;
                }
            }
            let (found, owed) = (sum / 10_000.0, -(1.0 - f64::from(percent) / 100.0).ln() * 0.04);
            assert!((found / owed - 1.0).abs() < 0.06, "{percent}: {found} for {owed}");
        }
    }

    #[test]
    fn it_doubles_within_thirty_samples_that_are_longer() {
        let now = crate::clock::now();
        let decay = Decay::half_life(now, Duration::from_secs(10));
        let p90 = FadingQuantile::new(Ratio::percent::<90>());
        (0..200).for_each(|_| p90.observe(decay.at(now), Duration::from_millis(10)));
        let before = p90.known(decay.at(now)).unwrap().mean;
        (0..30).for_each(|_| p90.observe(decay.at(now), Duration::from_millis(100)));
        assert!(p90.known(decay.at(now)).unwrap().mean > before * 2.0);
    }

    proptest! {
        #[test]
        fn it_stays_finite_and_positive_whatever_it_is_given(
            samples in prop::collection::vec(any::<u64>(), 1..200), share in 0.01_f64..0.99,
        ) {
            let now = crate::clock::now();
            let decay = Decay::half_life(now, Duration::from_secs(10));
            let quantile = FadingQuantile::new(Ratio::new(share).unwrap());
            for sample in samples {
                quantile.observe(decay.at(now), Duration::from_nanos(sample));
                let known = quantile.known(decay.at(now)).unwrap();
                prop_assert!(known.mean.is_finite() && known.mean >= 1.0 && known.weight <= 32.0, "{known:?}");
            }
        }
    }
}
