//! Additive increase, multiplicative decrease.

use super::{Controller, ENOUGH, Pace, Round, SECOND, check_range, whole};
use crate::{
    Ratio,
    invalid::{Check, Invalid},
    limit::Algorithm,
};

/// The numbers of [`Aimd`], with the defaults of Netflix's `AIMDLimit`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AimdOptions {
    /// What it begins with \[20\].
    pub initial: u32,
    /// The lowest limit \[20\].
    pub least: u32,
    /// The highest limit \[200\].
    pub most: u32,
    /// What is left of it after a round with a drop \[90 %, 50 % to 100 %\].
    pub back_off: Ratio,
}

impl Default for AimdOptions {
    fn default() -> Self {
        Self { initial: 20, least: 20, most: 200, back_off: Ratio::percent::<90>() }
    }
}

impl AimdOptions {
    /// Sets [`initial`](Self::initial), [`least`](Self::least) and [`most`](Self::most).
    pub const fn range(mut self, initial: u32, least: u32, most: u32) -> Self {
        (self.initial, self.least, self.most) = (initial, least, most);
        self
    }

    /// Sets [`back_off`](Self::back_off).
    pub const fn back_off(mut self, share: Ratio) -> Self {
        self.back_off = share;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check_range(check, self.initial, self.least, self.most);
        check.rule(self.back_off.get() >= 0.5, "back_off", self.back_off, "50 % to 100 %");
    }
}

/// One more with every round that used at least half of the limit; a tenth less with one that had a drop. It needs no latency,
/// and no server that answers at an even pace: what a client can trust.
#[derive(Clone, Debug)]
pub struct Aimd {
    options: AimdOptions,
    limit: f64,
}

impl Aimd {
    /// With its initial limit.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: AimdOptions) -> Result<Self, Invalid> {
        Check::of(|check| options.check(check))?;
        Ok(Self { limit: f64::from(options.initial), options })
    }
}

impl Controller for Aimd {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn round(&mut self, round: &Round) -> u32 {
        if round.dropped > 0 {
            self.limit *= self.options.back_off.get();
        } else if round.samples >= ENOUGH && f64::from(round.most) * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(f64::from(self.options.least), f64::from(self.options.most));
        self.limit()
    }

    fn retune(&mut self, algorithm: &Algorithm) -> bool {
        let Algorithm::Aimd(options) = algorithm else { return false };
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

    fn round(most: u32, dropped: u64) -> Round {
        Round { samples: 100, most, dropped, ..Round::new(Duration::from_secs(1)) }
    }

    #[test]
    fn it_grows_by_one_where_it_is_used_and_falls_by_a_tenth() {
        let mut aimd = Aimd::new(AimdOptions::default()).unwrap();
        assert_eq!([round(9, 0), round(10, 0), round(21, 0)].map(|round| aimd.round(&round)), [20, 21, 22]);
        let mut aimd = Aimd::new(AimdOptions::default().range(100, 10, 200)).unwrap();
        assert_eq!([round(100, 1), round(90, 5)].map(|round| aimd.round(&round)), [90, 81]);
    }

    #[test]
    fn it_stays_within_its_range() {
        let mut aimd = Aimd::new(AimdOptions::default().range(20, 15, 22)).unwrap();
        (0..9).for_each(|_| {
            aimd.round(&round(22, 0));
        });
        assert_eq!(aimd.limit(), 22);
        (0..9).for_each(|_| {
            aimd.round(&round(22, 1));
        });
        assert_eq!(aimd.limit(), 15);
    }
}
