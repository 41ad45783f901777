//! How long an endpoint takes, by the estimate that the balancer goes by.

use std::time::Duration;

use super::options::Load;
use crate::{
    estimate::{Decay, FadingMean, Known, Moment, PeakEwma},
    sync::{AtomicU64, Ordering::Relaxed},
};

/// A peak is what it is, however few samples it stands on.
const CERTAIN: f32 = 1e9;

/// Which estimate is kept, and how fast it forgets: one word, so that it can be replaced while attempts are under way.
#[derive(Debug)]
pub(crate) struct Estimator(AtomicU64);

/// Which estimate, as the upper half of the word tells: a mean, a peak, or else the quantile under which so many 2^24ths of
/// the samples lie.
type Kind = u32;

const MEAN: Kind = 0;
const PEAK: Kind = 1 << 24;
const SHARES: f32 = (1 << 24) as f32;

/// Which estimate, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    kind: Kind,
    moment: Moment,
}

impl Estimator {
    pub(crate) fn new(load: Load) -> Self {
        Self(AtomicU64::new(word(load)))
    }

    pub(crate) fn set(&self, load: Load) {
        self.0.store(word(load), Relaxed);
    }

    /// So many nanoseconds after the epoch.
    #[inline]
    pub(crate) fn at(&self, nanos: u64) -> At {
        let word = self.0.load(Relaxed);
        At { kind: (word >> 32) as Kind, moment: Moment::new(nanos, f32::from_bits(word as u32)) }
    }
}

/// What goes by requests in flight alone keeps a mean, for the status and for what a failure costs.
fn word(load: Load) -> u64 {
    let epoch = crate::clock::now();
    match load {
        Load::PeakEwma { decay } => {
            u64::from(PEAK) << 32 | u64::from(Decay::new(epoch, decay).rate().to_bits())
        }
        Load::Quantile { share, half_life } => {
            let share = (share.get() * f64::from(SHARES)).clamp(1.0, f64::from(SHARES) - 1.0) as u64;
            share << 32 | u64::from(Decay::half_life(epoch, half_life).rate().to_bits())
        }
        Load::Latency { half_life } | Load::HotCold { half_life, .. } => {
            u64::from(Decay::half_life(epoch, half_life).rate().to_bits())
        }
        Load::InFlight => word(Load::default()),
    }
}

/// The latency estimates of one endpoint. Only the one that is gone by is kept up to date.
#[derive(Debug)]
pub(crate) struct Latency {
    mean: FadingMean,
    peak: PeakEwma,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { mean: FadingMean::new(), peak: PeakEwma::new() }
    }

    /// An attempt has ended well after so many nanoseconds.
    #[inline]
    pub(crate) fn observe(&self, at: At, nanos: u64) {
        match at.kind {
            MEAN => self.mean.observe_nanos(at.moment, nanos),
            PEAK => self.peak.observe_nanos(at.moment, nanos),
            share => self.mean.move_to_quantile(at.moment, nanos, share as f32 / SHARES),
        }
    }

    /// An attempt was cut off, or says nothing but that it would have taken at least so long.
    pub(crate) fn observe_at_least(&self, at: At, latency: Duration) {
        match at.kind {
            PEAK => self.peak.observe_at_least(at.moment, latency),
            _ => self.mean.observe_at_least(at.moment, latency),
        }
    }

    /// An attempt has failed after `elapsed`. It counts as `penalty` more than is expected of the endpoint, so that what
    /// fails looks slower with each failure, whatever it answered how fast; no estimate goes beyond `most` for that.
    pub(crate) fn fail(&self, at: At, elapsed: Duration, penalty: Duration, most: f32) {
        match at.kind {
            PEAK => {
                let penalty = penalty.as_nanos() as f32;
                let expected = self.peak.value(at.moment).unwrap_or(penalty);
                let slower = Duration::from_nanos((expected + penalty).min(most) as u64);
                self.peak.observe(at.moment, elapsed.max(slower));
            }
            _ => self.mean.fail(at.moment, elapsed.max(penalty), most),
        }
    }

    /// All that is known of was so many times as long.
    #[cold]
    pub(crate) fn scale(&self, factor: f32) {
        self.mean.scale(factor);
        self.peak.scale(factor);
    }

    /// What is known.
    #[inline]
    pub(crate) fn known(&self, at: At) -> Option<Known> {
        match at.kind {
            PEAK => {
                let value = self.peak.value(at.moment)?;
                Some(Known { mean: value, weight: CERTAIN, is_silent: false })
            }
            _ => self.mean.known(at.moment),
        }
    }
}
