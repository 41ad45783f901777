//! The numbers behind hedges.

use std::time::Duration;

use crate::invalid::{Check, FOREVER, Invalid, Ratio};

/// When the next attempt goes out while those before it have not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Delay {
    /// After the percentile of recent latency that half of the [`share`](HedgeOptions::share) exceeds: 99 % for a share of
    /// 2 %. Half of the share is left for times that are worse than the last minute.
    #[default]
    ByShare,
    /// After this percentile of recent latency.
    Percentile(Ratio),
    /// After this time, measured or not; 0 for all attempts at once.
    Fixed(Duration),
}

/// When a request is sent a second time although its first attempt may still be answered, and how often that may be.
///
/// The default hedges 2 % of requests at the most, after the 99th percentile of recent latency.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgeOptions {
    /// When the next attempt goes out \[the percentile that half of the share exceeds\].
    pub delay: Delay,
    /// Hedges per request that was waited for, over 10 s, exactly \[2 %\]. They draw on the budget of the retries besides. `None`
    /// for that budget alone.
    pub share: Option<Ratio>,
    /// Attempts of one request that may be under way at a time, the first included \[2, 2 to 5\].
    pub max_attempts: u32,
    /// Latencies that must be known before a percentile of them is believed \[100\].
    pub samples: u32,
    /// How many attempts of this client the servers can work on at a time: its part of their slots \[the client's own
    /// [`limit`](crate::client::ClientOptions::limit), or `max_in_flight` at all its endpoints; if there is neither,
    /// unknown\].
    pub capacity: Option<u32>,
    /// Of the capacity, where that is known, how much first attempts and hedges together may use, on average over the last
    /// minute \[80 %\]. With a delay by [`share`](Self::share) that share shrinks to what is to spare, so that it may be
    /// large; where nothing is, there are no hedges. Whether the capacity is known or not, nothing is hedged while requests
    /// wait for an endpoint or in the line of a limit, while the client's throttle turns requests away, or while its breaker
    /// is not closed.
    pub max_utilisation: Ratio,
}

impl Default for HedgeOptions {
    fn default() -> Self {
        Self {
            delay: Delay::ByShare,
            share: Some(Ratio::percent::<2>()),
            max_attempts: 2,
            samples: 100,
            capacity: None,
            max_utilisation: Ratio::percent::<80>(),
        }
    }
}

impl HedgeOptions {
    /// Attempts that may be under way at a time at the most: what gRPC A6 caps them at.
    pub const MOST: u32 = 5;

    /// Hedging as gRFC A6 has it: the first attempt now, the next after each `delay` (0: all at once) or as soon as one has
    /// failed, up to `max_attempts`, of which more than 5 count as 5. There is no share of its own: give the client, or the
    /// layer, a [`Budget::grpc`](crate::budget::Budget::grpc) for A6's throttle, which its retries share.
    pub fn grpc(max_attempts: u32, delay: Duration) -> Self {
        Self {
            delay: Delay::Fixed(delay),
            share: None,
            max_attempts: max_attempts.min(Self::MOST),
            samples: 0,
            capacity: None,
            max_utilisation: Ratio::ONE,
        }
    }

    /// Sets [`delay`](Self::delay).
    #[must_use]
    pub fn delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn share(mut self, share: impl Into<Option<Ratio>>) -> Self {
        self.share = share.into();
        self
    }

    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`samples`](Self::samples).
    #[must_use]
    pub fn samples(mut self, samples: u32) -> Self {
        self.samples = samples;
        self
    }

    /// Sets [`capacity`](Self::capacity).
    #[must_use]
    pub fn capacity(mut self, capacity: impl Into<Option<u32>>) -> Self {
        self.capacity = capacity.into();
        self
    }

    /// Sets [`max_utilisation`](Self::max_utilisation).
    #[must_use]
    pub fn max_utilisation(mut self, utilisation: Ratio) -> Self {
        self.max_utilisation = utilisation;
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        match self.delay {
            Delay::ByShare => {
                check.rule(
                    self.share.is_some(),
                    "share",
                    self.share,
                    "needed: the delay is the percentile that half of it exceeds",
                );
            }
            Delay::Percentile(of) => {
                check.rule(
                    of > Ratio::ZERO && of < Ratio::ONE,
                    "delay",
                    of,
                    "more than 0 and less than 100 %",
                );
            }
            Delay::Fixed(delay) => {
                check.rule(delay <= FOREVER, "delay", delay, "at most 10 years");
            }
        }
        check
            .rule(
                self.share.is_none_or(|share| share > Ratio::ZERO),
                "share",
                self.share,
                "more than 0, or none",
            )
            .rule(
                self.capacity != Some(0),
                "capacity",
                self.capacity,
                "at least 1, or none where it is not known",
            )
            .rule((2..=Self::MOST).contains(&self.max_attempts), "max_attempts", self.max_attempts, "2 to 5")
            .rule(
                self.max_utilisation > Ratio::ZERO,
                "max_utilisation",
                self.max_utilisation,
                "more than 0: without hedges leave hedging off",
            );
    }

    /// The percentile of latency that is the delay, with so much to spare per request; `None` where it is fixed.
    pub(super) fn percentile(&self, spare: f64) -> Option<f64> {
        match self.delay {
            Delay::ByShare => Some(1.0 - self.share.map_or(0.0, Ratio::get).min(spare) / 2.0),
            Delay::Percentile(of) => Some(of.get()),
            Delay::Fixed(_) => None,
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    fn fields(options: &HedgeOptions) -> Vec<String> {
        let problems = options.validate().map_or_else(|invalid| invalid.problems().to_vec(), |()| vec![]);
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn the_defaults_are_what_their_documentation_says() {
        let options = HedgeOptions::default();
        assert_eq!((options.percentile(1.0), options.percentile(0.01)), (Some(0.99), Some(0.995)));
        assert_eq!((options.share, options.max_attempts, options.samples), (Ratio::new(0.02).ok(), 2, 100));
        assert!(fields(&options).is_empty());
    }

    #[test]
    fn every_mistake_is_told() {
        let bad = HedgeOptions::default().share(None).max_attempts(6).max_utilisation(Ratio::ZERO);
        assert_eq!(fields(&bad), ["share", "max_attempts", "max_utilisation"]);
        assert_eq!(fields(&HedgeOptions::default().delay(Delay::Percentile(Ratio::ONE))), ["delay"]);
        assert_eq!(fields(&HedgeOptions::default().delay(Delay::Fixed(Duration::MAX))), ["delay"]);
    }

    #[test]
    fn grpc_caps_attempts_at_five_and_takes_a_delay_of_nothing() {
        let options = HedgeOptions::grpc(9, Duration::ZERO);
        assert_eq!((options.max_attempts, options.share, options.percentile(1.0)), (5, None, None));
        assert!(fields(&options).is_empty());
        assert_eq!(fields(&HedgeOptions::grpc(1, Duration::ZERO)), ["max_attempts"]);
    }
}
