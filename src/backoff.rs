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
//! march in step. The waits of gRPC ([`Backoff::grpc`]) and of Envoy ([`Backoff::envoy`]) are there by name.
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
    /// From a fifth below the ceiling to a fifth above it, what gRFC A6 has: the cap is one for the ceiling, and a wait may be
    /// a fifth longer.
    Fifth,
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
    /// The ceiling is one base less than the power of the number of the try: what Envoy has.
    Envoy,
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

    /// The waits of gRFC A6: `min(initial * multiplier^(n - 1), max)`, a fifth less to a fifth more, before retry `n`.
    pub const fn grpc(initial: Duration, max: Duration, multiplier: f64) -> Self {
        Self::exponential(initial).factor(multiplier).cap(max).jitter(Jitter::Fifth)
    }

    /// The waits of Envoy: up to `(2^n - 1) * base` before retry `n`, and at most ten times the base, with full jitter. Envoy's
    /// own base is 25 ms, which makes 25, 75, 175 and from then on 250 ms.
    pub const fn envoy(base: Duration) -> Self {
        let mut own = Self::exponential(base);
        own.growth = Growth::Envoy;
        own
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
    /// With ceiling `c = min(cap, base * factor^(attempt - 1))` the wait lies in `[c, c]`, `[0, c]`, `[c / 2, c]` or
    /// `[0.8 c, 1.2 c]` as the [`Jitter`] says, with `base * (factor^attempt - 1)` in Envoy's; a decorrelated one in
    /// `[base, min(cap, factor * max(previous, base))]`. It never exceeds the cap, or with [`Jitter::Fifth`] a fifth more than
    /// that, and never panics whatever the policy.
    pub fn delay(&self, attempt: u32, previous: Duration, random: &dyn Random) -> Duration {
        match self.growth {
            Growth::Exponential | Growth::Envoy => {
                let tries = i32::try_from(attempt.max(1) - 1).unwrap_or(i32::MAX);
                let ceiling = match self.growth {
                    Growth::Envoy => self.capped(self.base, self.factor.powi(tries.saturating_add(1)) - 1.0),
                    _ => self.capped(self.base, self.factor.powi(tries)),
                };
                match self.jitter {
                    Jitter::None => ceiling,
                    Jitter::Full => between(Duration::ZERO, ceiling, random),
                    Jitter::Equal => between(ceiling / 2, ceiling, random),
                    Jitter::Fifth => {
                        let fifth = ceiling / 5;
                        between(ceiling - fifth, ceiling.saturating_add(fifth), random)
                    }
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
        match (self.growth, self.jitter) {
            (Growth::Exponential | Growth::Envoy, Jitter::Fifth) => {
                let tenths = self.cap.saturating_mul(12);
                match tenths.checked_div(10) {
                    Some(longest) => longest,
                    None => self.cap,
                }
            }
            _ => self.cap,
        }
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
        for jitter in [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Fifth] {
            let backoff = Backoff::default().jitter(jitter);
            let (low, high) = (backoff.delay(1, ZERO, &Always(0)), backoff.delay(1, ZERO, &Always(u64::MAX)));
            let expected = match jitter {
                Jitter::None => ms(25),
                Jitter::Full => ZERO,
                Jitter::Equal => Duration::from_micros(12_500),
                Jitter::Fifth => ms(20),
            };
            let most = if jitter == Jitter::Fifth { ms(30) } else { ms(25) };
            assert_eq!((low, high), (expected, most));
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

    /// That a million draws stay in their range, and come near both of its ends.
    fn in_a_million(policy: Backoff, attempt: u32, previous: Duration, low: Duration, high: Duration) {
        let random = Seeded::new(u64::from(attempt) ^ 11);
        let (mut least, mut most) = (Duration::MAX, ZERO);
        for _ in 0..1_000_000 {
            let delay = policy.delay(attempt, previous, &random);
            (least, most) = (least.min(delay), most.max(delay));
        }
        assert!(least >= low && most <= high, "{policy:?}: {least:?} to {most:?} of {low:?} to {high:?}");
        let near = (high - low) / 10_000;
        assert!(least - low <= near && high - most <= near, "{policy:?}: {least:?} to {most:?}");
    }

    #[test]
    fn a_million_draws_of_each_kind_fill_their_range_and_never_leave_it_at_the_cap_too() {
        for (attempt, ceiling) in [(1, ms(25)), (4, ms(200)), (60, ms(250))] {
            in_a_million(Backoff::default(), attempt, ZERO, ZERO, ceiling);
            in_a_million(Backoff::default().jitter(Jitter::Equal), attempt, ZERO, ceiling / 2, ceiling);
            in_a_million(Backoff::default().jitter(Jitter::None), attempt, ZERO, ceiling, ceiling);
        }
        // gRFC A6, C01: 100 ms doubling to 1 s.
        let grpc = Backoff::grpc(ms(100), ms(1_000), 2.0);
        for (attempt, low, high) in [(1, ms(80), ms(120)), (2, ms(160), ms(240)), (9, ms(800), ms(1_200))] {
            in_a_million(grpc, attempt, ZERO, low, high);
        }
        // Envoy, C30.
        for (attempt, ceiling) in [(1, ms(25)), (2, ms(75)), (3, ms(175)), (4, ms(250)), (40, ms(250))] {
            in_a_million(Backoff::envoy(ms(25)), attempt, ZERO, ZERO, ceiling);
        }
        for (previous, ceiling) in [(ZERO, ms(75)), (ms(40), ms(120)), (ms(200), ms(250))] {
            in_a_million(Backoff::decorrelated(ms(25), ms(250)), 2, previous, ms(25), ceiling);
        }
        in_a_million(Backoff::fixed(ms(7)), 3, ZERO, ms(7), ms(7));
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
        prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::Fifth)]
    }

    proptest! {
        #[test]
        fn no_policy_overflows_or_exceeds_its_cap(
            base in any_duration(), cap in any_duration(), previous in any_duration(), factor in any::<f64>(),
            attempt in any::<u32>(), jitter in any_jitter(), word in any::<u64>(),
        ) {
            for policy in [Backoff::exponential(base).cap(cap), Backoff::decorrelated(base, cap)] {
                let policy = policy.factor(factor).jitter(jitter);
                let delay = policy.delay(attempt, previous, &Always(word));
                let more = if jitter == Jitter::Fifth { cap / 5 } else { ZERO };
                prop_assert!(delay <= cap.saturating_add(more));
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
            let low = match jitter {
                Jitter::None => ceiling, Jitter::Full => 0.0, Jitter::Equal => ceiling / 2.0, Jitter::Fifth => ceiling * 0.8,
            };
            let ceiling = if jitter == Jitter::Fifth { ceiling * 1.2 } else { ceiling };
            prop_assert!(delay >= low - 4e-9 && delay <= ceiling + 4e-9, "{} of {}..{}", delay, low, ceiling);
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
