//! The gradient between a long and a short average of latency.

use super::{Controller, ENOUGH, Pace, Round, SECOND, check_range, whole};
use crate::{
    Ratio,
    invalid::{Check, Invalid},
    limit::Algorithm,
};

/// The numbers of [`Gradient2`], with the defaults of Netflix's `Gradient2Limit`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gradient2Options {
    /// What it begins with \[20\].
    pub initial: u32,
    /// The lowest limit \[20\].
    pub least: u32,
    /// The highest limit \[200\].
    pub most: u32,
    /// What a limit is allowed beyond the gradient \[4\].
    pub queue: u32,
    /// How much longer than the long average a latency may be, as a factor \[1.5, 1 to 10\].
    pub tolerance: f64,
    /// How much of a new limit is taken over at once \[20 %\].
    pub smoothing: Ratio,
    /// Over how many rounds the long average goes \[600\].
    pub long_window: u32,
}

impl Default for Gradient2Options {
    fn default() -> Self {
        Self {
            initial: 20,
            least: 20,
            most: 200,
            queue: 4,
            tolerance: 1.5,
            smoothing: Ratio::percent::<20>(),
            long_window: 600,
        }
    }
}

impl Gradient2Options {
    /// Sets [`initial`](Self::initial), [`least`](Self::least) and [`most`](Self::most).
    pub const fn range(mut self, initial: u32, least: u32, most: u32) -> Self {
        (self.initial, self.least, self.most) = (initial, least, most);
        self
    }

    /// Sets [`queue`](Self::queue).
    pub const fn queue(mut self, queue: u32) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`tolerance`](Self::tolerance).
    pub const fn tolerance(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Sets [`smoothing`](Self::smoothing).
    pub const fn smoothing(mut self, share: Ratio) -> Self {
        self.smoothing = share;
        self
    }

    /// Sets [`long_window`](Self::long_window).
    pub const fn long_window(mut self, rounds: u32) -> Self {
        self.long_window = rounds;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check_range(check, self.initial, self.least, self.most);
        check
            .rule((1.0..=10.0).contains(&self.tolerance), "tolerance", self.tolerance, "1 to 10")
            .rule(self.smoothing > Ratio::ZERO, "smoothing", self.smoothing, "more than 0")
            .rule(self.long_window >= 1, "long_window", self.long_window, "at least 1");
    }
}

/// Netflix's `Gradient2Limit`: as long as latency is near its long average the limit may grow by a queue's length; when it
/// rises beyond the tolerance, the limit shrinks in proportion, by half at most.
///
/// The long average learns an overload that lasts: then the limit stays where it is.
#[derive(Clone, Debug)]
pub struct Gradient2 {
    options: Gradient2Options,
    limit: f64,
    long: f64,
    /// Rounds up to ten: the average begins as a plain mean.
    warm_up: u32,
}

/// Netflix's `ExpAvgMeasurement` takes so many as a plain mean.
const WARM_UP: u32 = 10;

impl Gradient2 {
    /// With its initial limit.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: Gradient2Options) -> Result<Self, Invalid> {
        Check::of(|check| options.check(check))?;
        Ok(Self { limit: f64::from(options.initial), options, long: 0.0, warm_up: 0 })
    }

    fn average(&mut self, short: f64) {
        if self.warm_up < WARM_UP {
            self.warm_up += 1;
            self.long += (short - self.long) / f64::from(self.warm_up);
        } else {
            self.long += (short - self.long) * 2.0 / (f64::from(self.options.long_window) + 1.0);
        }
    }
}

impl Controller for Gradient2 {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn round(&mut self, round: &Round) -> u32 {
        let short = round.mean.as_secs_f64();
        if round.samples < ENOUGH || short == 0.0 {
            return self.limit();
        }
        self.average(short);
        // What was slow for long and has got fast again is forgotten sooner.
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if f64::from(round.most) < self.limit / 2.0 {
            return self.limit();
        }
        let gradient = (self.options.tolerance * self.long / short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + f64::from(self.options.queue);
        let smoothing = self.options.smoothing.get();
        self.limit = (self.limit * (1.0 - smoothing) + wanted * smoothing)
            .clamp(f64::from(self.options.least), f64::from(self.options.most));
        self.limit()
    }

    fn retune(&mut self, algorithm: &Algorithm) -> bool {
        let Algorithm::Gradient2(options) = algorithm else { return false };
        self.options = *options;
        self.limit = self.limit.clamp(f64::from(options.least), f64::from(options.most));
        true
    }

    fn pace(&self) -> Pace {
        SECOND
    }
}
