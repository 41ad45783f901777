//! A latency estimate that jumps up and glides down.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::slices::nanos_since;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A tick is 2^24 ns, about 16.8 ms: 32 bits of them go round in 2.28 years.
const TICK_BITS: u32 = 24;

/// Up to this many ticks (4.9 h) from one time back to another are time that ran backwards, more are an idle turn.
const AHEAD: u32 = 1 << 20;

/// How often a sample is offered to a contended word before it is dropped.
const TRIES: usize = 3;

/// How fast estimates forget. One serves all the endpoints of a client, so that each stores only its word.
#[derive(Clone, Copy, Debug)]
pub struct Decay {
    epoch: Instant,
    /// `tick / tau * log2(e)`: the halvings per tick.
    rate: f32,
}

impl Decay {
    /// An idle estimate falls to 1/e in `tau` (Finagle and linkerd use 10 s), with time counted from `epoch`.
    ///
    /// Time is told in ticks of 16.8 ms, so a `tau` under about 0.2 s is coarse. A `tau` of 0 is taken as 1 ns.
    pub fn new(epoch: Instant, tau: Duration) -> Self {
        let tick = f64::from(1_u32 << TICK_BITS);
        let tau = tau.as_nanos().max(1) as f64;
        Self { epoch, rate: (tick / tau * std::f64::consts::LOG2_E) as f32 }
    }

    /// An idle estimate falls to a half in `half_life`, with time counted from `epoch`.
    pub fn half_life(epoch: Instant, half_life: Duration) -> Self {
        let tick = f64::from(1_u32 << TICK_BITS);
        let half_life = half_life.as_nanos().max(1) as f64;
        Self { epoch, rate: (tick / half_life) as f32 }
    }

    /// The halvings in a tick.
    pub(crate) fn rate(&self) -> f32 {
        self.rate
    }

    /// `now` as the estimates count it: once per pick, for all the endpoints that are compared.
    #[inline]
    pub fn at(&self, now: Instant) -> Moment {
        self.at_nanos(nanos_since(self.epoch, now))
    }

    /// The same, of a time that is known in nanoseconds since the epoch.
    #[inline]
    pub(crate) fn at_nanos(&self, nanos: u64) -> Moment {
        Moment::new(nanos, self.rate)
    }
}

/// A time, and how fast estimates fade until then: from [`Decay::at`].
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    tick: u32,
    rate: f32,
}

impl Moment {
    /// So many nanoseconds after the epoch, with `rate` halvings in a tick.
    #[inline]
    pub(crate) fn new(nanos: u64, rate: f32) -> Self {
        Self { tick: (nanos >> TICK_BITS) as u32, rate }
    }

    #[inline]
    pub(super) fn tick(self) -> u32 {
        self.tick
    }

    /// What is left of 1 after so many ticks, and whether they are more than so many half-lives.
    #[inline]
    pub(super) fn fades(self, ticks: u32, half_lives: f32) -> (f32, bool) {
        let passed = ticks as i32 as f32 * self.rate;
        (if ticks == 0 { 1.0 } else { half_to_the(passed) }, passed > half_lives)
    }

    /// What is left at this time of a weight of 1 given at `stamp`; all of it within the same tick, or if `stamp` lies ahead.
    #[inline]
    fn remains(self, stamp: u32) -> f32 {
        if self.is_still(stamp) { 1.0 } else { half_to_the(self.tick.wrapping_sub(stamp) as f32 * self.rate) }
    }

    /// Whether no tick has passed since `stamp`, or `stamp` lies ahead.
    #[inline]
    fn is_still(self, stamp: u32) -> bool {
        stamp.wrapping_sub(self.tick) <= AHEAD
    }
}

/// An exponentially weighted moving average of latencies that takes a worse sample at once: one word.
///
/// A sample above the estimate becomes the estimate. One below moves it by `1 - exp(-dt / tau)` of the difference, where
/// `dt` is the time since the estimate was last moved. Between samples the estimate falls by `exp(-dt / tau)` towards
/// nothing, so that an endpoint which nobody uses is tried again. Both act together: with steady traffic a peak is
/// forgotten twice as fast as without any.
///
/// Reading never changes it. A lower sample within the tick (16.8 ms) of the last change has no weight yet and is not
/// written, which keeps a busy endpoint's cache line quiet. A sample that loses three races in a row is dropped: the
/// estimate has just been moved by others. Time that runs backwards counts as none; so
/// does an idle time of 2.28 years, where the ticks go round.
///
/// Source: Finagle's `PeakEwma`, whose reads change it; here they do not.
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// An estimate without history.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes a measured latency into the estimate. One under a nanosecond counts as a nanosecond.
    #[inline]
    pub fn observe(&self, at: Moment, sample: Duration) {
        self.observe_nanos(at, u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The same of a latency in nanoseconds.
    #[inline]
    pub(crate) fn observe_nanos(&self, at: Moment, sample: u64) {
        self.update(at, sample, |current, sample, remains| Some(sample + (current - sample) * remains));
    }

    /// Takes a latency that was cut off: it would have been at least `sample`. It can only raise the estimate.
    #[inline]
    pub fn observe_at_least(&self, at: Moment, sample: Duration) {
        self.update(at, u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX), |_, _, _| None);
    }

    /// The estimate in nanoseconds, from 0 up, or `None` without history.
    ///
    /// About a dozen instructions within the tick of the last change, 35 later. The fading is approximated to within 0.011 % of the true value; what is left after 88 `tau`
    /// stays.
    #[inline]
    pub fn value(&self, at: Moment) -> Option<f32> {
        let word = self.0.load(Relaxed);
        let (cost, stamp) = unpack(word);
        (word != 0).then(|| cost * at.remains(stamp))
    }

    /// Makes the estimate so many times as long.
    pub(crate) fn scale(&self, factor: f32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (cost, tick) = unpack(word);
            (word != 0).then(|| pack(cost * factor, tick))
        });
    }

    /// Replaces the estimate by a higher sample, or else by what `lower` makes of it, the sample and what remains of 1.
    #[inline]
    fn update(&self, at: Moment, sample: u64, lower: impl Fn(f32, f32, f32) -> Option<f32>) {
        // At least 1, so that a word with history is never 0.
        let sample = (sample.min(i64::MAX as u64) as i64 as f32).max(1.0);
        let mut word = self.0.load(Relaxed);
        for _ in 0..TRIES {
            let (cost, stamp) = unpack(word);
            let remains = at.remains(stamp);
            let current = cost * remains;
            let still = word != 0 && at.is_still(stamp);
            let next = if word == 0 || sample > current {
                sample
            } else if let Some(moved) = lower(current, sample, remains).filter(|_| !still) {
                moved
            } else {
                return;
            };
            // A late sample does not turn the clock back, or the estimate would fade twice.
            let tick = if still { stamp } else { at.tick };
            match self.0.compare_exchange_weak(word, pack(next, tick), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PeakEwma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cost, tick) = unpack(self.0.load(Relaxed));
        f.debug_struct("PeakEwma").field("nanoseconds", &cost).field("tick", &tick).finish()
    }
}

#[inline]
fn pack(cost: f32, tick: u32) -> u64 {
    u64::from(cost.to_bits()) << 32 | u64::from(tick)
}

#[inline]
fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

/// `2^-x` for `x >= 0`, to within 0.011 %; `2^-126` from there on. Exactly 1 at 0, never above.
///
/// Adding 1.5 * 2^23 rounds to a whole number that stands in the low bits: it becomes the exponent. A cubic does the rest,
/// from -1/2 to 1/2; its coefficients make the largest relative error small and meet at the ends.
#[inline]
fn half_to_the(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = x.min(126.0);
    let rounded = x + MAGIC;
    let rest = (rounded - MAGIC) - x;
    let whole = rounded.to_bits() & 0xFF;
    let scale = f32::from_bits((127 - whole) << 23);
    scale * (1.0 + rest * (0.6932817 + rest * (0.24222 + rest * 0.05502)))
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAU: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn near(a: f32, b: f64) -> bool {
        (f64::from(a) - b).abs() <= b * 0.003
    }

    #[test]
    fn the_approximation_is_within_its_bound_and_never_above_one() {
        assert_eq!(half_to_the(0.0), 1.0);
        let mut worst = 0.0_f64;
        for step in 0..1_260_000_u32 {
            let x = step as f32 / 10_000.0;
            let (found, truth) = (f64::from(half_to_the(x)), (-f64::from(x) * std::f64::consts::LN_2).exp());
            worst = worst.max((found / truth - 1.0).abs());
            assert!(found <= 1.0);
        }
        assert!(worst <= 1.1e-4, "{worst}");
        assert!(half_to_the(f32::INFINITY) < 1e-37);
    }

    #[test]
    fn what_remains_never_grows_with_time() {
        let mut last = 1.0;
        for step in 0..1_260_000_u32 {
            let now = half_to_the(step as f32 / 10_000.0);
            assert!(now <= last * 1.000_001, "at {step}: {now} after {last}");
            last = now;
        }
    }

    #[test]
    fn there_is_no_estimate_without_history() {
        let decay = Decay::new(crate::clock::now(), TAU);
        let ewma = PeakEwma::new();
        assert_eq!(ewma.value(decay.at(crate::clock::now())), None);
    }

    #[test]
    fn a_worse_sample_counts_at_once_and_a_better_one_by_the_time_that_passed() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
        ewma.observe(decay.at(epoch), ms(10));
        ewma.observe(decay.at(epoch), ms(100));
        assert_eq!(ewma.value(decay.at(epoch)), Some(1e8));
        let later = decay.at(epoch + ms(1_000));
        ewma.observe(later, ms(10));
        let (faded, kept) = (1e8 * (-0.1_f64).exp(), (-0.1_f64).exp());
        let expected = 1e7 + (faded - 1e7) * kept;
        assert!(ewma.value(later).is_some_and(|value| near(value, expected)));
    }

    #[test]
    fn an_idle_estimate_fades_by_tau_and_reading_does_not_change_it() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
        ewma.observe(decay.at(epoch), ms(100));
        for _ in 0..1_000 {
            ewma.value(decay.at(epoch + TAU * 3));
        }
        assert!(
            ewma.value(decay.at(epoch + TAU)).is_some_and(|value| near(value, 1e8 / std::f64::consts::E))
        );
        assert!(ewma.value(decay.at(epoch + TAU * 1_000)).is_some_and(|value| value < 1e-20));
    }

    #[test]
    fn a_censored_sample_raises_and_never_lowers() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
        ewma.observe_at_least(decay.at(epoch), ms(50));
        ewma.observe_at_least(decay.at(epoch + ms(500)), ms(1));
        assert_eq!(ewma.value(decay.at(epoch)), Some(5e7));
        ewma.observe_at_least(decay.at(epoch + ms(500)), ms(80));
        assert_eq!(ewma.value(decay.at(epoch + ms(500))), Some(8e7));
    }

    #[test]
    fn time_that_runs_backwards_counts_as_none() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
        ewma.observe(decay.at(epoch + ms(60_000)), ms(100));
        ewma.observe(decay.at(epoch), ms(1));
        ewma.observe(decay.at(epoch), ms(200));
        assert_eq!(ewma.value(decay.at(epoch)), Some(2e8));
        assert_eq!(ewma.value(decay.at(epoch + ms(60_000))), Some(2e8));
    }

    #[test]
    fn ticks_may_go_round_between_two_samples() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
        let turn = Duration::from_nanos(1 << (32 + TICK_BITS));
        ewma.observe(decay.at(epoch + turn - ms(5_000)), ms(100));
        let expected = 1e8 * (-1.0_f64).exp();
        assert!(ewma.value(decay.at(epoch + turn + ms(5_000))).is_some_and(|value| near(value, expected)));
    }

    #[test]
    fn a_sample_of_nothing_or_of_everything_is_taken() {
        let epoch = crate::clock::now();
        let (decay, ewma) = (Decay::new(epoch, Duration::ZERO), PeakEwma::new());
        ewma.observe(decay.at(epoch), Duration::ZERO);
        assert_eq!(ewma.value(decay.at(epoch)), Some(1.0));
        ewma.observe(decay.at(epoch), Duration::MAX);
        assert!(ewma.value(decay.at(epoch)).is_some_and(f32::is_finite));
    }

    proptest! {
        #[test]
        fn just_after_a_sample_the_estimate_lies_between_the_least_and_the_greatest(
            samples in prop::collection::vec((0_u64..30_000, 1_u64..5_000), 1..100),
        ) {
            let epoch = crate::clock::now();
            let (decay, ewma) = (Decay::new(epoch, TAU), PeakEwma::new());
            let (mut now, mut least, mut most) = (epoch, f32::MAX, 0.0_f32);
            for (wait, sample) in samples {
                now += ms(wait);
                let nanos = (sample * 1_000_000) as f32;
                (least, most) = (least.min(nanos), most.max(nanos));
                ewma.observe(decay.at(now), ms(sample));
                let value = ewma.value(decay.at(now)).unwrap();
                prop_assert!(nanos * 0.999_999 <= value, "{} under the sample {}", value, nanos);
                prop_assert!(least * 0.999_999 <= value && value <= most, "{} of {}..{}", value, least, most);
            }
        }

        #[test]
        fn a_worse_sample_never_leaves_a_lower_estimate(
            first in 1_u64..1_000_000, better in 1_u64..1_000_000, worse in 1_u64..1_000_000, wait in 0_u64..40_000,
        ) {
            let (better, worse) = (better.min(worse), better.max(worse));
            let epoch = crate::clock::now();
            let decay = Decay::new(epoch, TAU);
            let after = |second| {
                let ewma = PeakEwma::new();
                ewma.observe(decay.at(epoch), Duration::from_micros(first));
                ewma.observe(decay.at(epoch + ms(wait)), Duration::from_micros(second));
                ewma.value(decay.at(epoch + ms(wait))).unwrap()
            };
            prop_assert!(after(better) <= after(worse) * 1.000_001);
        }
    }
}
