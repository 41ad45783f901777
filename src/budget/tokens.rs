//! The throttle of gRFC A6: a bucket that successes fill and failures drain.

use crate::{
    invalid::{Check, Invalid},
    sync::{AtomicU32, Ordering::Relaxed},
};

/// What A6 allows `maxTokens` to be at the most.
const MOST: u32 = 1_000;
/// Tokens are counted in thousandths, which A6 cuts `tokenRatio` to.
const TOKEN: u32 = 1_000;

/// Tokens, from none to a maximum that they start at. A failure takes one away, a success gives a part of one, and there are
/// retries and hedges while more than half of them are left.
#[derive(Debug)]
pub(super) struct Tokens {
    max: u32,
    ratio: u32,
    left: AtomicU32,
}

impl Tokens {
    pub(super) fn new(max: u32, ratio: f64) -> Result<Self, Invalid> {
        let mut check = Check::default();
        check.rule((1..=MOST).contains(&max), "max_tokens", max, "1 to 1,000").rule(
            ratio >= 0.001 && ratio <= f64::from(MOST),
            "token_ratio",
            ratio,
            "0.001 to 1,000",
        );
        check.finish()?;
        // 0.29 is 289.99 thousandths in binary, and 290 of them all the same.
        let ratio = (ratio * f64::from(TOKEN) + 1e-6) as u32;
        Ok(Self { max: max * TOKEN, ratio, left: AtomicU32::new(max * TOKEN) })
    }

    /// While all is well nothing is written: the bucket is full.
    #[inline]
    pub(super) fn succeeded(&self) {
        let more = |left: u32| (left < self.max).then(|| left.saturating_add(self.ratio).min(self.max));
        let _ = self.left.fetch_update(Relaxed, Relaxed, more);
    }

    pub(super) fn failed(&self) {
        let _ = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(TOKEN)));
    }

    /// Whether there may be retries and hedges.
    pub(super) fn allows(&self) -> bool {
        self.left.load(Relaxed) > self.max / 2
    }

    /// How many tokens there are above the half.
    pub(super) fn available(&self) -> u32 {
        let above = self.left.load(Relaxed).saturating_sub(self.max / 2);
        above.div_ceil(TOKEN)
    }

    #[cfg(test)]
    pub(super) fn thousandths(&self) -> u32 {
        self.left.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn ratio(&self) -> u32 {
        self.ratio
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_cases_of_grfc_a6_hold() {
        // C08: 10 tokens, ratio 0.1; four failures leave 6 and retries go on, the fifth leaves 5, which is not more than half.
        let tokens = Tokens::new(10, 0.1).unwrap();
        for left in [9, 8, 7, 6] {
            tokens.failed();
            assert_eq!((tokens.thousandths(), tokens.allows()), (left * TOKEN, true));
        }
        tokens.failed();
        assert_eq!((tokens.thousandths(), tokens.allows()), (5 * TOKEN, false));
        // A tenth more than half is more than half.
        tokens.succeeded();
        assert!(tokens.allows());

        // C11: the bucket is never more than full, and never less than empty.
        (0..1_000).for_each(|_| tokens.succeeded());
        assert_eq!(tokens.thousandths(), 10 * TOKEN);
        (0..1_000).for_each(|_| tokens.failed());
        assert_eq!(tokens.thousandths(), 0);

        // C13: three places after the point, the rest is cut off.
        assert_eq!(Tokens::new(10, 0.5466).unwrap().ratio(), 546);
        assert_eq!(Tokens::new(10, 0.29).unwrap().ratio(), 290);

        // C14: 0 and 1,001 are refused.
        for bad in [0, 1_001] {
            let invalid = Tokens::new(bad, 0.1).unwrap_err();
            assert_eq!(invalid.problems()[0].field, "max_tokens");
        }
        assert!(Tokens::new(1_000, 0.1).is_ok());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Tokens::new(10, bad).unwrap_err().problems()[0].field, "token_ratio");
        }
    }
}
