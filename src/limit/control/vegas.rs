//! A queue of a few, told from the least latency there was.

use super::{Controller, ENOUGH, Pace, Round, SECOND, check_range, whole};
use crate::{
    invalid::{Check, Invalid},
    limit::Algorithm,
    random::{Random as _, Seeded, unit},
};

/// The numbers of [`Vegas`], with the defaults of Netflix's `VegasLimit`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct VegasOptions {
    /// What it begins with \[20\].
    pub initial: u32,
    /// The lowest limit \[1\].
    pub least: u32,
    /// The highest limit \[1,000\].
    pub most: u32,
    /// It forgets the least latency after half to all of so many times its limit in rounds \[30\].
    pub probe: u32,
}

impl Default for VegasOptions {
    fn default() -> Self {
        Self { initial: 20, least: 1, most: 1_000, probe: 30 }
    }
}

impl VegasOptions {
    /// Sets [`initial`](Self::initial), [`least`](Self::least) and [`most`](Self::most).
    pub const fn range(mut self, initial: u32, least: u32, most: u32) -> Self {
        (self.initial, self.least, self.most) = (initial, least, most);
        self
    }

    /// Sets [`probe`](Self::probe).
    pub const fn probe(mut self, factor: u32) -> Self {
        self.probe = factor;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check_range(check, self.initial, self.least, self.most);
        check.rule(self.probe >= 1, "probe", self.probe, "at least 1");
    }
}

/// Netflix's `VegasLimit`, after TCP Vegas: it takes what latency exceeds the least for a queue, and keeps that between three
/// and six times the logarithm of the limit.
///
/// After a long overload the least latency is that of the overload: it recovers when it is probed anew, and not before.
#[derive(Debug)]
pub struct Vegas {
    options: VegasOptions,
    limit: f64,
    least: f64,
    rounds: f64,
    jitter: f64,
    random: Seeded,
}

impl Vegas {
    /// With its initial limit.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: VegasOptions) -> Result<Self, Invalid> {
        Check::of(|check| options.check(check))?;
        let random = Seeded::new(u64::from(options.initial));
        let mut vegas =
            Self { limit: f64::from(options.initial), options, least: 0.0, rounds: 0.0, jitter: 0.0, random };
        vegas.draw();
        Ok(vegas)
    }

    fn draw(&mut self) {
        self.jitter = 0.5 + unit(self.random.next()) / 2.0;
    }
}

impl Controller for Vegas {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn round(&mut self, round: &Round) -> u32 {
        if round.samples < ENOUGH && round.dropped == 0 {
            return self.limit();
        }
        let mean = round.mean.as_secs_f64();
        self.rounds += 1.0;
        if self.jitter * f64::from(self.options.probe) * self.limit <= self.rounds {
            self.draw();
            (self.rounds, self.least) = (0.0, mean);
            return self.limit();
        }
        if self.least == 0.0 || (mean > 0.0 && mean < self.least) {
            self.least = mean;
            // Where all are dropped there is no latency to learn from, and none is needed.
            if round.dropped == 0 {
                return self.limit();
            }
        }
        let step = self.limit.log10().floor().max(1.0);
        let queue = (self.limit * (1.0 - self.least / mean)).ceil();
        self.limit += if round.dropped > 0 {
            -step
        } else if f64::from(round.most) * 2.0 < self.limit {
            0.0
        } else if queue <= step {
            6.0 * step
        } else if queue < 3.0 * step {
            step
        } else if queue > 6.0 * step {
            -step
        } else {
            0.0
        };
        self.limit = self.limit.clamp(f64::from(self.options.least), f64::from(self.options.most));
        self.limit()
    }

    fn retune(&mut self, algorithm: &Algorithm) -> bool {
        let Algorithm::Vegas(options) = algorithm else { return false };
        self.options = *options;
        self.limit = self.limit.clamp(f64::from(options.least), f64::from(options.most));
        true
    }

    fn pace(&self) -> Pace {
        SECOND
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_has_seen_nothing_but_drops_backs_off() {
        let mut vegas = Vegas::new(VegasOptions::default()).unwrap();
        let dropped = Round { dropped: 20, most: 20, ..Round::new(Duration::from_secs(1)) };
        let limits: Vec<_> = (0..3).map(|_| vegas.round(&dropped)).collect();
        assert_eq!(limits, [19, 18, 17]);
    }
}
