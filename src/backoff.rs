//! How long to wait before the next try.
//!
//! # Problem
//! Clients that fail together and wait equally long come back together. Chance must spread them, at every length of the
//! wait, and no two may draw the same sequence.
//!
//! # Idea
//! A [`Backoff`] is plain data: a policy that turns the number of the try, the wait before it and a random word into a
//! wait. It has no state, so nothing can be shared by accident: two users of one policy differ as their [`Random`]s do.
//! Jitter is drawn below the ceiling after the cap was applied, so it is not lost at the cap.
//!
//! # When to use it
//! Between tries of anything. Full jitter spreads load best and is the default; equal jitter never waits less than
//! half, for what must not be touched at once (a redial); none is for tests. A fixed wait without jitter lets clients
//! march in step.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::{backoff::{Backoff, Jitter}, random::Seeded};
//!
//! let ms = Duration::from_millis;
//! let redial = Backoff::exponential(ms(100)).cap(ms(30_000)).jitter(Jitter::Equal);
//! let random = Seeded::new(7);
//! let third = redial.delay(3, ms(0), &random);
//! assert!(third >= ms(200) && third <= ms(400));
//! ```
//!
//! # Cost
//! A power, a draw and a few conversions, off the path of a request that succeeds.
//!
//! # Sources
//! M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): full, equal and decorrelated jitter. There
//! decorrelated waits are cut at the cap after the draw, which makes most of them equal to it; here the range is cut.

use std::time::Duration;

use crate::{
    invalid::{Check, FOREVER},
    random::{Random, unit},
};

/// How chance spreads a wait below its ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// The ceiling itself.
    None,
    /// From 0 to the ceiling (the default).
    #[default]
    Full,
    /// From half the ceiling to the ceiling.
    Equal,
}

/// A policy of waits between tries.
///
/// The default is exponential with full jitter: 25 ms, times 2, at most 250 ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    growth: Growth,
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// The ceiling grows with the number of the try.
    Exponential,
    /// The ceiling grows with the wait before.
    Decorrelated,
}

impl Backoff {
    /// Ceilings of `base`, `base * factor`, `base * factor^2`, ... up to the cap, with jitter below them.
    ///
    /// The factor is \[2\], the cap \[ten times `base`\], the jitter [`Jitter::Full`].
    pub const fn exponential(base: Duration) -> Self {
        let cap = base.saturating_mul(10);
        Self { growth: Growth::Exponential, base, factor: 2.0, cap, jitter: Jitter::Full }
    }

    /// From `base` to three times the wait before, at most `cap`: how far a wait goes depends on chance alone, not on the
    /// number of the try. Its own draw takes the place of a [`Jitter`], which it ignores.
    pub const fn decorrelated(base: Duration, cap: Duration) -> Self {
        Self { growth: Growth::Decorrelated, base, factor: 3.0, cap, jitter: Jitter::None }
    }

    /// Always `delay`, without jitter unless it is asked for. 0 means not to wait at all.
    pub const fn fixed(delay: Duration) -> Self {
        Self { growth: Growth::Exponential, base: delay, factor: 1.0, cap: delay, jitter: Jitter::None }
    }

    /// What the ceiling is multiplied by from try to try \[2; 3 for decorrelated waits\]: a finite number, at least 1.
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The longest wait, at least the base.
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How waits are spread below their ceiling.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The wait before try `attempt`: 1 is the first retry (0 is taken as 1). `previous` is the wait before the last one, 0 if
    /// there was none; only decorrelated waits look at it.
    ///
    /// With ceiling `c = min(cap, base * factor^(attempt - 1))` the wait lies in `[c, c]`, `[0, c]` or `[c / 2, c]` as the
    /// [`Jitter`] says; a decorrelated one in `[base, min(cap, factor * max(previous, base))]`. It never exceeds the cap,
    /// and never panics whatever the policy.
    pub fn delay(&self, attempt: u32, previous: Duration, random: &dyn Random) -> Duration {
        match self.growth {
            Growth::Exponential => {
                let tries = i32::try_from(attempt.max(1) - 1).unwrap_or(i32::MAX);
                let ceiling = self.capped(self.base, self.factor.powi(tries));
                match self.jitter {
                    Jitter::None => ceiling,
                    Jitter::Full => between(Duration::ZERO, ceiling, random),
                    Jitter::Equal => between(ceiling / 2, ceiling, random),
                }
            }
            Growth::Decorrelated => {
                let ceiling = self.capped(previous.max(self.base), self.factor);
                between(self.base.min(ceiling), ceiling, random)
            }
        }
    }

    /// The longest wait that it can ask for.
    pub const fn longest(&self) -> Duration {
        self.cap
    }

    /// `base * factor`, at most the cap.
    fn capped(&self, base: Duration, factor: f64) -> Duration {
        if base.is_zero() {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(base.as_secs_f64() * factor).map_or(self.cap, |delay| delay.min(self.cap))
    }

    /// Checks base, factor and cap, and the order of base and cap.
    pub(crate) fn check(&self, check: &mut Check) {
        let none = self.base.is_zero() && self.cap.is_zero();
        check
            .rule(
                none || (!self.base.is_zero() && self.base <= FOREVER),
                "base",
                self.base,
                "more than 0 and at most 10 years",
            )
            .rule(
                self.factor.is_finite() && self.factor >= 1.0,
                "factor",
                self.factor,
                "a finite number, at least 1",
            )
            .rule(
                self.cap >= self.base && self.cap <= FOREVER,
                "cap",
                self.cap,
                "at least `base` and at most 10 years",
            );
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(25))
    }
}

/// A uniform draw from `[low, high]`.
fn between(low: Duration, high: Duration, random: &dyn Random) -> Duration {
    let span = high.saturating_sub(low);
    let part = Duration::try_from_secs_f64(span.as_secs_f64() * unit(random.next())).unwrap_or(span);
    low + part.min(span)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Entropy, Seeded};

    /// Always the same word.
    struct Always(u64);

    impl Random for Always {
        fn next(&self) -> u64 {
            self.0
        }
    }

    const ZERO: Duration = Duration::ZERO;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn problems(backoff: Backoff) -> Vec<String> {
        let mut check = Check::default();
        backoff.check(&mut check);
        check.finish().map_or_else(
            |invalid| invalid.problems().iter().map(|problem| problem.field.clone()).collect(),
            |()| vec![],
        )
    }

    #[test]
    fn the_default_is_what_its_documentation_says() {
        let default = Backoff::default();
        assert_eq!(default, Backoff::exponential(ms(25)).factor(2.0).cap(ms(250)).jitter(Jitter::Full));
        let ceilings: Vec<_> =
            (1..=6).map(|n| default.jitter(Jitter::None).delay(n, ZERO, &Always(0))).collect();
        assert_eq!(ceilings, [ms(25), ms(50), ms(100), ms(200), ms(250), ms(250)]);
    }

    #[test]
    fn the_lowest_and_the_highest_draw_stay_in_range() {
        for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
            let backoff = Backoff::default().jitter(jitter);
            let (low, high) = (backoff.delay(1, ZERO, &Always(0)), backoff.delay(1, ZERO, &Always(u64::MAX)));
            let expected = match jitter {
                Jitter::None => ms(25),
                Jitter::Full => ZERO,
                Jitter::Equal => Duration::from_micros(12_500),
            };
            assert_eq!((low, high), (expected, ms(25)));
        }
    }

    #[test]
    fn two_users_of_one_policy_do_not_share_a_sequence() {
        let policy = Backoff::default().cap(ms(60_000));
        let draws = || (1..=8).map(|n| policy.delay(n, ZERO, &Entropy)).collect::<Vec<_>>();
        assert_ne!(draws(), draws());
    }

    #[test]
    fn jitter_is_not_lost_at_the_cap() {
        let random = Seeded::new(3);
        for policy in [
            Backoff::default(),
            Backoff::default().jitter(Jitter::Equal),
            Backoff::decorrelated(ms(25), ms(250)),
        ] {
            let at_cap = (0..1_000).filter(|_| policy.delay(40, ms(250), &random) == ms(250)).count();
            assert!(at_cap <= 1, "{policy:?}: {at_cap} of 1000");
        }
    }

    #[test]
    fn draws_at_the_cap_fill_their_range_evenly() {
        let random = Seeded::new(5);
        for (policy, middle) in [
            (Backoff::default(), 125.0),
            (Backoff::default().jitter(Jitter::Equal), 187.5),
            (Backoff::decorrelated(ms(25), ms(250)), 137.5),
        ] {
            let sum: f64 = (0..4_000).map(|_| policy.delay(9, ms(250), &random).as_secs_f64() * 1e3).sum();
            assert!((sum / 4_000.0 - middle).abs() < 5.0, "{policy:?}: {}", sum / 4_000.0);
        }
    }

    #[test]
    fn a_fixed_wait_of_nothing_is_no_wait() {
        assert_eq!(Backoff::fixed(ZERO).delay(5, ms(9), &Entropy), ZERO);
        assert_eq!(Backoff::fixed(ms(9)).delay(5, ZERO, &Entropy), ms(9));
        assert!(problems(Backoff::fixed(ZERO)).is_empty());
    }

    #[test]
    fn every_mistake_in_a_policy_is_told() {
        assert!(problems(Backoff::default()).is_empty());
        assert_eq!(problems(Backoff::exponential(ZERO).cap(ms(1)).factor(f64::NAN)), ["base", "factor"]);
        assert_eq!(problems(Backoff::exponential(ms(10)).cap(ms(1)).factor(0.5)), ["factor", "cap"]);
        assert_eq!(problems(Backoff::decorrelated(ms(10), Duration::MAX)), ["cap"]);
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(ZERO),
            Just(Duration::MAX),
            (0_u64..100_000).prop_map(Duration::from_micros),
            (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        ]
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal)]
    }

    proptest! {
        #[test]
        fn no_policy_overflows_or_exceeds_its_cap(
            base in any_duration(), cap in any_duration(), previous in any_duration(), factor in any::<f64>(),
            attempt in any::<u32>(), jitter in any_jitter(), word in any::<u64>(),
        ) {
            for policy in [Backoff::exponential(base).cap(cap), Backoff::decorrelated(base, cap)] {
                let delay = policy.factor(factor).jitter(jitter).delay(attempt, previous, &Always(word));
                prop_assert!(delay <= cap);
            }
        }

        #[test]
        fn every_draw_lies_in_the_documented_range(
            base in 1_u64..100_000, more in 0_u64..10_000_000, attempt in 0_u32..80, factor in 1.0_f64..4.0,
            jitter in any_jitter(), word in any::<u64>(),
        ) {
            let (base, cap) = (Duration::from_micros(base), Duration::from_micros(base + more));
            let policy = Backoff::exponential(base).cap(cap).factor(factor).jitter(jitter);
            let delay = policy.delay(attempt, ZERO, &Always(word)).as_secs_f64();
            let ceiling = (base.as_secs_f64() * factor.powf(f64::from(attempt.max(1) - 1))).min(cap.as_secs_f64());
            let low = match jitter { Jitter::None => ceiling, Jitter::Full => 0.0, Jitter::Equal => ceiling / 2.0 };
            prop_assert!(delay >= low - 2e-9 && delay <= ceiling + 2e-9, "{} of {}..{}", delay, low, ceiling);
        }

        #[test]
        fn decorrelated_draws_lie_between_the_base_and_thrice_the_last(
            base in 1_u64..100_000, more in 0_u64..10_000_000, previous in 0_u64..20_000_000, word in any::<u64>(),
        ) {
            let (base, cap) = (Duration::from_micros(base), Duration::from_micros(base + more));
            let previous = Duration::from_micros(previous);
            let delay = Backoff::decorrelated(base, cap).delay(2, previous, &Always(word));
            prop_assert!(delay >= base && delay <= (previous.max(base) * 3).min(cap));
        }
    }
}
