//! A mean latency that knows how much it knows.

use std::{fmt, time::Duration};

use super::ewma::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Bits of the word: the mean as an `f32` without sign and without its last 7 bits, the weight in 32nds, the time in ticks.
const MEAN_BITS: u32 = 24;
const WEIGHT_BITS: u32 = 10;
const TICK_BITS: u32 = 30;
const MEAN_SHIFT: u32 = WEIGHT_BITS + TICK_BITS;
const TICKS: u32 = (1 << TICK_BITS) - 1;
/// `f32` bits that are not kept: what is left tells 1 in 100,000 apart.
const DROPPED: u32 = 31 - MEAN_BITS;

/// 32nds: the heaviest history is one of 31.97 samples. That many tell the mean of exponential latencies to within an
/// eighth, and still follow a change within about as many.
const STEPS: f32 = 32.0;
const HEAVIEST: f32 = ((1 << WEIGHT_BITS) - 1) as f32 / STEPS;

/// After half a half-life without a sample, one under half of the mean begins a new history: the endpoint has changed.
const SILENT: f32 = 0.5;
const MUCH_FASTER: f32 = 0.5;

/// No sample counts for more than so many times the mean: of exponential latencies one in 3,000 is longer. What is slow by
/// more is found out a few samples later; a request that was long by itself does not empty a server that is like the others.
const FARTHEST: f32 = 8.0;

/// A history counts for at most so many samples once there is a failure: what was good before it says little now.
const DOUBTED: f32 = 4.0;

/// By how much of its value a sample moves a quantile at the most and at the least: thirty samples on the other side double it.
const LONGEST_STEP: f32 = 0.5;
const SHORTEST_STEP: f32 = 0.05;

/// Up to this many ticks (4.9 h) from one time back to another are time that ran backwards, more are an idle turn.
const AHEAD: u32 = 1 << 20;

/// How often a sample is offered to a contended word before it is dropped.
const TRIES: usize = 3;

/// The mean of recent latencies, and how many samples it stands on: one word.
///
/// Each sample counts once, and the count fades by half in each half-life, as does what it may still say: after a minute of
/// silence with 10 s an endpoint is as good as unknown. Whoever compares endpoints can weigh each mean against the mean of
/// all by its [`weight`](Known::weight), so that two lucky samples are not taken for a fast server, nor two unlucky ones for
/// a slow one.
///
/// Unlike [`PeakEwma`](super::PeakEwma) it forgets no good history for one bad sample: where latencies scatter, the worst
/// of the last few says nothing about the next.
///
/// At most 32 samples count, so the mean follows a change within about as many. Reading never changes it. A sample that
/// loses three races in a row is dropped. Time that runs backwards counts as none; after 208 days of silence ticks go round.
///
/// Source: an empirical Bayes estimate with a fading count; the constants were chosen in simulations of fleets like
/// the lab's `noisy_fleet` and `halves`.
pub struct FadingMean(AtomicU64);

/// What a [`FadingMean`] knows at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Known {
    /// The mean in nanoseconds, at least 1.
    pub mean: f32,
    /// How many samples of now it is worth, from 0 to 32.
    pub weight: f32,
    /// Whether there was no sample for half a half-life.
    pub is_silent: bool,
}

impl FadingMean {
    /// An estimate without history.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes a measured latency into the mean. One under a nanosecond counts as a nanosecond.
    #[inline]
    pub fn observe(&self, at: Moment, sample: Duration) {
        self.observe_nanos(at, nanos(sample));
    }

    /// The same of a latency in nanoseconds.
    #[inline]
    pub(crate) fn observe_nanos(&self, at: Moment, sample: u64) {
        let sample = float(sample);
        self.update(at, |known| {
            let Some(known) = known else { return Some((sample, 1.0)) };
            if known.is_silent && sample < known.mean * MUCH_FASTER {
                return Some((sample, 1.0));
            }
            let weight = (known.weight + 1.0).min(HEAVIEST);
            let sample = sample.min(known.mean * FARTHEST);
            Some((known.mean + (sample - known.mean) / weight, weight))
        });
    }

    /// Moves the value towards the quantile under which `share` of the samples lie, and counts the sample.
    ///
    /// After a silence one that is much faster does not count, and takes the place of what has faded below a sample's worth: by
    /// steps alone a high quantile would take a thousand samples to come down, of an endpoint that is asked now and then.
    pub(crate) fn move_to_quantile(&self, at: Moment, sample: u64, share: f32) {
        let sample = float(sample);
        self.update(at, |known| {
            let Some(known) = known else { return Some((sample, 1.0)) };
            let weight = (known.weight + 1.0).min(HEAVIEST);
            // In proportion, so that no unit matters; the less is known, the farther.
            let step = (LONGEST_STEP / weight.sqrt()).max(SHORTEST_STEP);
            let by = if sample > known.mean { share } else { share - 1.0 };
            let moved = (known.mean * (1.0 + step * by)).max(1.0);
            if known.is_silent && sample < known.mean * MUCH_FASTER {
                return Some((sample + (moved - sample) * known.weight.min(1.0), known.weight));
            }
            Some((moved, weight))
        });
    }

    /// Takes a latency that was cut off: it would have been at least `sample`. It can only raise the mean.
    ///
    /// Above the mean it is time spent that no answer stands for: it is added, and not counted. That is how the mean of
    /// exponential latencies is told where some are cut off.
    pub fn observe_at_least(&self, at: Moment, sample: Duration) {
        let sample = float(nanos(sample));
        self.update(at, |known| {
            let Some(known) = known else { return Some((sample, 1.0)) };
            let weight = known.weight.max(1.0);
            (sample > known.mean).then(|| (known.mean + sample / weight, weight))
        });
    }

    /// Takes an attempt that failed: `spent` is time for nothing, which comes on top of what the endpoint takes, and it
    /// casts doubt on the history. At most `most` comes of it.
    pub fn fail(&self, at: Moment, spent: Duration, most: f32) {
        let spent = float(nanos(spent));
        self.update(at, |known| {
            let Some(known) = known else { return Some((spent, 1.0)) };
            let weight = known.weight.clamp(1.0, DOUBTED);
            Some(((known.mean + spent / weight).min(most.max(known.mean)), weight))
        });
    }

    /// Makes the mean so many times as long.
    pub(crate) fn scale(&self, factor: f32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (mean, weight, tick) = unpack(word);
            (word != 0).then(|| pack((mean * factor).max(1.0), weight, tick))
        });
    }

    /// What is known, or `None` without history.
    #[inline]
    pub fn known(&self, at: Moment) -> Option<Known> {
        let word = self.0.load(Relaxed);
        (word != 0).then(|| known(word, at).0)
    }

    /// Replaces mean and weight by what `change` makes of them.
    #[inline]
    fn update(&self, at: Moment, change: impl Fn(Option<Known>) -> Option<(f32, f32)>) {
        let mut word = self.0.load(Relaxed);
        for _ in 0..TRIES {
            let (now, tick) = known(word, at);
            let Some((mean, weight)) = change((word != 0).then_some(now)) else { return };
            match self.0.compare_exchange_weak(word, pack(mean, weight, tick), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

/// What a word says at some time, and the tick of a word that is written then: a late sample does not turn the clock back.
#[inline]
fn known(word: u64, at: Moment) -> (Known, u32) {
    let (mean, weight, stamp) = unpack(word);
    let passed = at.tick().wrapping_sub(stamp) & TICKS;
    if word != 0 && passed > TICKS - AHEAD {
        return (Known { mean, weight, is_silent: false }, stamp);
    }
    let (faded, is_silent) = at.fades(passed, SILENT);
    (Known { mean, weight: weight * faded, is_silent }, at.tick() & TICKS)
}

#[inline]
pub(super) fn nanos(sample: Duration) -> u64 {
    u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX)
}

/// At least 1, so that a word with history is never 0.
#[inline]
fn float(sample: u64) -> f32 {
    // Signed, because that is one instruction to convert.
    (sample.min(i64::MAX as u64) as i64 as f32).max(1.0)
}

#[inline]
fn pack(mean: f32, weight: f32, tick: u32) -> u64 {
    let weight = (weight * STEPS) as u32;
    // Rounded up: what took at least so long is not told as shorter.
    let mean = (mean.to_bits() + (1 << DROPPED) - 1) >> DROPPED;
    u64::from(mean) << MEAN_SHIFT | u64::from(weight) << TICK_BITS | u64::from(tick)
}

#[inline]
fn unpack(word: u64) -> (f32, f32, u32) {
    let mean = f32::from_bits(((word >> MEAN_SHIFT) as u32) << DROPPED);
    let weight = (word >> TICK_BITS) as u32 & ((1 << WEIGHT_BITS) - 1);
    (mean, weight as i32 as f32 / STEPS, word as u32 & TICKS)
}

impl Default for FadingMean {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FadingMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, weight, tick) = unpack(self.0.load(Relaxed));
        let mut show = f.debug_struct("FadingMean");
        show.field("nanoseconds", &mean).field("weight", &weight).field("tick", &tick).finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::estimate::Decay;

    const HALF_LIFE: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn start() -> (Instant, Decay, FadingMean) {
        let epoch = crate::clock::now();
        (epoch, Decay::half_life(epoch, HALF_LIFE), FadingMean::new())
    }

    fn near(found: f32, expected: f64) -> bool {
        (f64::from(found) - expected).abs() <= expected * 0.03
    }

    #[test]
    fn there_is_nothing_known_without_history() {
        let (epoch, decay, mean) = start();
        assert_eq!(mean.known(decay.at(epoch)), None);
    }

    #[test]
    fn it_is_the_mean_of_its_samples_and_counts_them() {
        let (epoch, decay, mean) = start();
        for sample in [10, 20, 60] {
            mean.observe(decay.at(epoch), ms(sample));
        }
        let known = mean.known(decay.at(epoch)).unwrap();
        assert!(near(known.mean, 3e7) && near(known.weight, 3.0), "{known:?}");
    }

    #[test]
    fn one_bad_sample_does_not_outweigh_a_good_history() {
        let (epoch, decay, mean) = start();
        (0..100).for_each(|_| mean.observe(decay.at(epoch), ms(10)));
        mean.observe(decay.at(epoch), ms(60));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| near(known.mean, 1e7 + 5e7 / 32.0)));
    }

    #[test]
    fn a_sample_that_is_far_off_counts_as_eight_times_the_mean() {
        let (epoch, decay, mean) = start();
        (0..100).for_each(|_| mean.observe(decay.at(epoch), ms(10)));
        mean.observe(decay.at(epoch), ms(60_000));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| near(known.mean, 1e7 + 7e7 / 32.0)));
        // What is always that slow is known to be within a few dozen.
        (0..60).for_each(|_| mean.observe(decay.at(epoch), ms(1_000)));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean > 7e8));
    }

    #[test]
    fn what_is_known_fades_by_half_in_each_half_life_and_reading_does_not_change_it() {
        let (epoch, decay, mean) = start();
        (0..100).for_each(|_| mean.observe(decay.at(epoch), ms(10)));
        for halvings in [1, 2, 5] {
            let later = decay.at(epoch + HALF_LIFE * halvings);
            let known = mean.known(later).unwrap();
            assert!(near(known.weight, 31.97 / f64::from(1 << halvings)), "{halvings}: {known:?}");
            assert!(near(known.mean, 1e7) && known.is_silent);
        }
        assert!(mean.known(decay.at(epoch + HALF_LIFE * 1_000)).is_some_and(|known| known.weight < 1e-20));
    }

    #[test]
    fn it_follows_a_change_within_some_thirty_samples() {
        let (epoch, decay, mean) = start();
        (0..1_000).for_each(|_| mean.observe(decay.at(epoch), ms(10)));
        (0..32).for_each(|_| mean.observe(decay.at(epoch), ms(100)));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean > 6e7));
    }

    #[test]
    fn after_a_silence_a_much_faster_answer_begins_anew_and_a_little_faster_one_does_not() {
        let after = |sample| {
            let (epoch, decay, mean) = start();
            (0..100).for_each(|_| mean.observe(decay.at(epoch), ms(400)));
            mean.observe(decay.at(epoch + ms(6_000)), ms(sample));
            mean.known(decay.at(epoch + ms(6_000))).unwrap()
        };
        assert!(near(after(40).mean, 4e7) && near(after(40).weight, 1.0));
        assert!(after(300).mean > 3.9e8);
    }

    #[test]
    fn a_censored_sample_raises_and_never_lowers() {
        let (epoch, decay, mean) = start();
        mean.observe(decay.at(epoch), ms(50));
        mean.observe_at_least(decay.at(epoch), ms(1));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| near(known.mean, 5e7)));
        mean.observe(decay.at(epoch), ms(50));
        mean.observe_at_least(decay.at(epoch), ms(100));
        let known = mean.known(decay.at(epoch)).unwrap();
        assert!(near(known.mean, 1e8) && near(known.weight, 2.0), "{known:?}");
    }

    #[test]
    fn what_took_at_least_so_long_is_not_told_as_shorter() {
        for nanos in [1, 199_999_999, 200_000_001, 5_000_000_003, u64::MAX] {
            let (epoch, decay, mean) = start();
            mean.observe_at_least(decay.at(epoch), Duration::from_nanos(nanos));
            assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean >= nanos.min(1 << 62) as f32));
        }
    }

    #[test]
    fn each_failure_makes_it_slower_however_fast_it_was_up_to_a_bound() {
        let (epoch, decay, mean) = start();
        (0..100).for_each(|_| mean.observe(decay.at(epoch), ms(10)));
        let mut last = 1e7;
        for _ in 0..10 {
            mean.fail(decay.at(epoch), ms(40), 5e9);
            let now = mean.known(decay.at(epoch)).unwrap().mean;
            assert!(now >= last + 9.9e6, "{now} after {last}");
            last = now;
        }
        (0..10_000).for_each(|_| mean.fail(decay.at(epoch), ms(40), 5e9));
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean <= 5.01e9));
    }

    #[test]
    fn time_that_runs_backwards_counts_as_none() {
        let (epoch, decay, mean) = start();
        mean.observe(decay.at(epoch + ms(60_000)), ms(100));
        mean.observe(decay.at(epoch), ms(50));
        let known = mean.known(decay.at(epoch + ms(60_000))).unwrap();
        assert!(near(known.mean, 7.5e7) && near(known.weight, 2.0), "{known:?}");
    }

    #[test]
    fn a_sample_of_nothing_or_of_everything_is_taken() {
        let (epoch, decay, mean) = start();
        mean.observe(decay.at(epoch), Duration::ZERO);
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean == 1.0));
        mean.observe(decay.at(epoch), Duration::MAX);
        assert!(mean.known(decay.at(epoch)).is_some_and(|known| known.mean.is_finite()));
    }

    #[test]
    fn a_count_that_has_faded_to_nothing_does_not_make_the_next_sample_infinite() {
        let (epoch, decay, mean) = start();
        mean.observe(decay.at(epoch), ms(10));
        mean.observe(decay.at(epoch + HALF_LIFE * 100_000), ms(20));
        let known = mean.known(decay.at(epoch + HALF_LIFE * 100_000)).unwrap();
        assert!(near(known.mean, 2e7) && near(known.weight, 1.0), "{known:?}");
    }

    proptest! {
        #[test]
        fn the_mean_lies_between_the_least_and_the_greatest_sample_and_the_weight_within_its_bounds(
            samples in prop::collection::vec((0_u64..30_000, 1_u64..5_000), 1..100),
        ) {
            let (mut now, decay, mean) = start();
            let (mut least, mut most) = (f32::MAX, 0.0_f32);
            for (wait, sample) in samples {
                now += ms(wait);
                let nanos = (sample * 1_000_000) as f32;
                (least, most) = (least.min(nanos), most.max(nanos));
                mean.observe(decay.at(now), ms(sample));
                let known = mean.known(decay.at(now)).unwrap();
                prop_assert!(known.mean >= least * 0.999 && known.mean <= most * 1.001, "{known:?}");
                prop_assert!(known.weight >= 0.96 && known.weight <= HEAVIEST, "{known:?}");
            }
        }
    }
}
