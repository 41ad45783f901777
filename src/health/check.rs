//! Active checks: questions that nobody but us asks.
//!
//! They know less than requests do: a page that answers proves that a process runs, not that it works, and one that does not
//! may be the page's own fault. So requests outvote them, by one rule: **checks take out only what no request has shown to be
//! well since they began to fail, and bring back only what they have taken out.**

use std::time::{Duration, Instant};

use super::{Health, HealthOptions, Ledger, Transition, Trip, state::Phase};
use crate::{
    invalid::{Check, Ratio},
    random::{Random, unit},
    sync::lock,
};

/// How often endpoints are checked, and how many checks decide. Nothing is checked unless something says how:
/// [`BalanceBuilder::check`](crate::balance::BalanceBuilder::check).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// The time between the end of a check and the next, of an endpoint that is well and has requests \[10 s\].
    pub interval: Duration,
    /// The same where the last check ended otherwise than those before, or the endpoint is out \[2 s\].
    pub unsure_interval: Duration,
    /// The same where no request has ended since the last check \[60 s\].
    pub idle_interval: Duration,
    /// By how much each of them varies, up and down \[10 %\], so that clients do not march in step.
    pub jitter: Ratio,
    /// How long a check may take \[1 s\].
    pub timeout: Duration,
    /// Checks in a row that must fail \[3\].
    pub failures: u32,
    /// Checks in a row that must pass \[2\].
    pub passes: u32,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            unsure_interval: Duration::from_secs(2),
            idle_interval: Duration::from_secs(60),
            jitter: Ratio::percent::<10>(),
            timeout: Duration::from_secs(1),
            failures: 3,
            passes: 2,
        }
    }
}

impl CheckOptions {
    pub(crate) fn check(&self, check: &mut Check) {
        check
            .duration("interval", self.interval)
            .duration("unsure_interval", self.unsure_interval)
            .duration("idle_interval", self.idle_interval)
            .duration("timeout", self.timeout)
            .rule(self.failures >= 1, "failures", self.failures, "at least 1")
            .rule(self.passes >= 1, "passes", self.passes, "at least 1");
    }
}

/// What a run of checks comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Enough in a row have failed, and no request has succeeded since the first of them.
    Fails,
    /// Enough in a row have passed.
    Passes,
}

/// What an endpoint says of itself unasked, as gRPC's health protocol has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServingStatus {
    /// It serves.
    Serving,
    /// It does not.
    NotServing,
    /// Nothing is known: it has not said anything yet, or nobody hears it.
    NotKnown,
    /// It has no way to say so, and counts as serving.
    Unimplemented,
}

/// The checks of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Checks in a row that ended as the last did.
    run: u32,
    passed: bool,
    /// Requests that had succeeded when the run began.
    successes: u64,
    /// Requests that had ended at the last check, and whether none has since the one before.
    ended: u64,
    is_idle: bool,
}

impl Checks {
    /// No check was made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how a check has ended, with the successes and failures that requests have shown in all.
    pub fn note(
        &mut self,
        passed: bool,
        (successes, failures): (u64, u64),
        options: &CheckOptions,
    ) -> Option<Finding> {
        // A request that succeeded while checks failed is the better witness: the run begins anew.
        let contradicted = !passed && successes > self.successes;
        if self.run == 0 || passed != self.passed || contradicted {
            (self.run, self.passed, self.successes) = (0, passed, successes);
        }
        self.run = self.run.saturating_add(1);
        self.is_idle = self.ended == successes + failures;
        self.ended = successes + failures;
        if passed {
            (self.run >= options.passes).then_some(Finding::Passes)
        } else {
            (self.run >= options.failures).then_some(Finding::Fails)
        }
    }

    /// Notes what the endpoint has just said of itself: as much as a run of checks that ended so.
    pub fn told(
        &mut self,
        is_well: bool,
        (successes, failures): (u64, u64),
        options: &CheckOptions,
    ) -> Finding {
        (self.run, self.passed) = (options.failures.max(options.passes), is_well);
        self.successes = successes;
        self.is_idle = self.ended == successes + failures;
        self.ended = successes + failures;
        if is_well { Finding::Passes } else { Finding::Fails }
    }

    /// Whether enough in a row have failed.
    pub(crate) fn fails(&self, options: &CheckOptions) -> bool {
        !self.passed && self.run >= options.failures
    }

    /// When the next check is made after one that ended at `now`; `out` says whether the endpoint is.
    pub fn next(&self, now: Instant, out: bool, options: &CheckOptions, random: &dyn Random) -> Instant {
        let jitter = options.jitter.get();
        let interval = self.interval(out, options);
        now + interval.mul_f64(1.0 - jitter + 2.0 * jitter * unit(random.next()))
    }

    fn interval(&self, out: bool, options: &CheckOptions) -> Duration {
        if out || !self.passed || self.run < options.passes {
            options.unsure_interval
        } else if self.is_idle {
            options.idle_interval
        } else {
            options.interval
        }
    }

    /// Options were replaced: when a check that was to be made at `at` is made instead, if that is longer than they would have it
    /// wait now. At random within their interval, as a first one is.
    pub(crate) fn hastened(
        &self,
        at: Instant,
        now: Instant,
        out: bool,
        options: &CheckOptions,
        random: &dyn Random,
    ) -> Option<Instant> {
        let interval = if self.run == 0 { options.interval } else { self.interval(out, options) };
        let longest = interval.mul_f64(1.0 + options.jitter.get());
        (at > now + longest).then(|| now + interval.mul_f64(unit(random.next())))
    }

    /// When an endpoint that was never checked is: at random within an interval, so that a fleet is not asked at once.
    pub fn first(now: Instant, options: &CheckOptions, random: &dyn Random) -> Instant {
        now + options.interval.mul_f64(unit(random.next()))
    }
}

impl Health {
    /// Does what a run of checks has come to: as a judgement, under the cap; and only for what checks have taken out.
    pub fn checked(
        &self,
        finding: Finding,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        let by_checks = detail.phase != Phase::In && detail.why == Trip::Check;
        match (finding, detail.phase) {
            (Finding::Passes, Phase::Ejected | Phase::Probation) if by_checks => {
                Some(self.restore(&mut detail, now, true, ledger))
            }
            (Finding::Fails, Phase::In) if options.enabled => {
                self.eject(&mut detail, now, Trip::Check.into(), options, ledger, random)
            }
            // Or time would bring it back unproven, while it is known to be dead.
            (Finding::Fails, Phase::Probation) if options.enabled && by_checks => {
                self.eject(&mut detail, now, Trip::Check.into(), options, ledger, random)
            }
            // A request is deciding, or has decided, or checks have nothing new to say.
            _ => None,
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::{clock, health::State, random::Seeded};

    struct Pair {
        options: HealthOptions,
        ledger: Ledger,
        random: Seeded,
        healths: [Health; 2],
        now: Instant,
    }

    impl Pair {
        fn new() -> Self {
            let (options, ledger, now) = (HealthOptions::default(), Ledger::default(), clock::now());
            let healths = [Health::new(now, &options), Health::new(now, &options)];
            healths.iter().for_each(|health| ledger.join(health));
            Self { options, ledger, random: Seeded::new(1), healths, now }
        }

        fn find(&self, which: usize, finding: Finding) -> Option<Transition> {
            self.healths[which].checked(finding, self.now, &self.options, &self.ledger, &self.random)
        }

        fn fail(&self, which: usize) {
            for _ in 0..5 {
                let generation = self.healths[which].generation();
                self.healths[which].failure(self.now, generation, &self.options, &self.ledger, &self.random);
            }
        }
    }

    #[test]
    fn three_failed_checks_in_a_row_are_needed_and_two_that_pass() {
        let (mut checks, options) = (Checks::new(), CheckOptions::default());
        let mut note = |passed| checks.note(passed, (0, 0), &options);
        assert_eq!([false, false, true].map(&mut note), [None; 3]);
        assert_eq!([false, false, false].map(&mut note), [None, None, Some(Finding::Fails)]);
        assert_eq!([true, true].map(&mut note), [None, Some(Finding::Passes)]);
    }

    #[test]
    fn a_request_that_succeeds_between_failed_checks_outvotes_those_before_it() {
        let (mut checks, options) = (Checks::new(), CheckOptions::default());
        for successes in 0..100 {
            assert_eq!(checks.note(false, (successes, 0), &options), None);
        }
        assert_eq!(checks.note(false, (99, 5), &options), None, "failures are no witness");
        assert_eq!(checks.note(false, (99, 9), &options), Some(Finding::Fails));
    }

    #[test]
    fn what_requests_took_out_no_check_brings_back() {
        let pair = Pair::new();
        pair.fail(0);
        assert_eq!(pair.find(0, Finding::Passes), None);
        assert!(matches!(pair.healths[0].state().0, State::Ejected { why: Trip::Consecutive, .. }));
    }

    #[test]
    fn what_checks_took_out_checks_bring_back_and_they_keep_it_out_while_they_fail() {
        let mut pair = Pair::new();
        assert!(pair.find(0, Finding::Fails).is_some());
        pair.now += Duration::from_secs(6);
        pair.healths[0].due(pair.now, &pair.options, &pair.ledger);
        assert!(matches!(pair.healths[0].state().0, State::Probation { .. }));
        assert!(matches!(pair.find(0, Finding::Fails), Some(Transition::Ejected { why: Trip::Check, .. })));
        assert_eq!(pair.find(0, Finding::Passes), Some(Transition::Restored { proven: true }));
        assert_eq!(pair.ledger.available(), (2, 2));
    }

    #[test]
    fn checks_never_take_the_last_endpoint_nor_more_than_the_cap() {
        let pair = Pair::new();
        assert!(pair.find(0, Finding::Fails).is_some());
        assert_eq!(pair.find(1, Finding::Fails), None);
    }

    #[test]
    fn a_probe_that_is_deciding_is_not_overruled() {
        let mut pair = Pair::new();
        pair.find(0, Finding::Fails);
        pair.now += Duration::from_secs(6);
        pair.healths[0].due(pair.now, &pair.options, &pair.ledger);
        let lease = pair.healths[0].lease(pair.now, &pair.options, &pair.ledger).unwrap();
        assert_eq!(pair.find(0, Finding::Fails), None);
        assert_eq!(pair.find(0, Finding::Passes), None);
        let shown = crate::outcome::Class::Success;
        let (options, ledger, random) = (&pair.options, &pair.ledger, &pair.random);
        assert!(pair.healths[0].settle(lease, shown, pair.now, options, ledger, random).is_some());
    }

    #[test]
    fn intervals_differ_by_state_and_stay_within_their_jitter() {
        let (options, random, now) = (CheckOptions::default(), Seeded::new(1), clock::now());
        let mut checks = Checks::new();
        let wait = |checks: &Checks, out| (checks.next(now, out, &options, &random) - now).as_secs_f64();
        let near = |wait: f64, interval: f64| (0.9 * interval..=1.1 * interval).contains(&wait);
        checks.note(true, (5, 0), &options);
        assert!(near(wait(&checks, false), 2.0), "one is not sure yet");
        checks.note(true, (9, 0), &options);
        assert!(near(wait(&checks, false), 10.0));
        assert!(near(wait(&checks, true), 2.0), "it is out");
        checks.note(true, (9, 0), &options);
        assert!(near(wait(&checks, false), 60.0), "nobody asks it anything");
        checks.note(false, (9, 0), &options);
        assert!(near(wait(&checks, false), 2.0));
    }
}
