//! All the numbers of a client.

use std::time::Duration;

use crate::{
    balance::BalanceOptions,
    breaker::BreakerOptions,
    budget::BudgetOptions,
    hedge::{Delay, HedgeOptions},
    invalid::{Check, Invalid},
    limit::{ConcurrencyLimitOptions, rate::RateLimitOptions, throttle::ThrottleOptions},
    retry::RetryPolicy,
};

/// Everything that can be set on a [`Client`](super::Client), and replaced while it runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long a request may take in all \[10 s\]; `None` for as long as its caller's deadline allows.
    pub deadline: Option<Duration>,
    /// How many requests go in a time \[any number\].
    pub rate: Option<RateLimitOptions>,
    /// How much is kept back of what the servers turn away \[nothing\].
    pub throttle: Option<ThrottleOptions>,
    /// How often a request is tried.
    pub retry: RetryPolicy,
    /// How much extra load retries may make. Ignored where a budget was given that other clients share.
    pub budget: BudgetOptions,
    /// When a request is sent a second time while its first attempt goes on, and how often \[never\].
    pub hedge: Option<HedgeOptions>,
    /// How many attempts of the client run at a time \[any number\]. It is asked before the breaker.
    pub limit: Option<ConcurrencyLimitOptions>,
    /// The breaker of the whole client \[none\].
    pub breaker: Option<BreakerOptions>,
    /// How endpoints are picked, and when they are set aside.
    pub balance: BalanceOptions,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Some(Duration::from_secs(10)),
            rate: None,
            throttle: None,
            retry: RetryPolicy::default(),
            budget: BudgetOptions::default(),
            hedge: None,
            limit: None,
            breaker: None,
            balance: BalanceOptions::default(),
        }
    }
}

impl ClientOptions {
    /// Checks every option and the rules between them.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        if let Some(deadline) = self.deadline {
            check.duration("deadline", deadline);
        }
        check
            .part("rate", |check| check_rate(self.rate.as_ref(), check))
            .part("throttle", |check| check_throttle(self.throttle.as_ref(), check))
            .part("retry", |check| self.retry.check(check))
            .part("budget", |check| self.budget.check(check))
            .part("hedge", |check| check_hedge(self.hedge.as_ref(), check))
            .part("limit", |check| check_limit(self.limit.as_ref(), check))
            .part("breaker", |check| check_breaker(self.breaker.as_ref(), check))
            .part("balance", |check| self.balance.check(check));
        self.check_order(check);
    }

    /// The rules between parts.
    fn check_order(&self, check: &mut Check) {
        // The default limit means "what is left, at most 3 s": it goes with any deadline.
        let limit = self.balance.attempt_limit;
        if let (Some(limit), Some(deadline)) = (limit, self.deadline) {
            let chosen = self.balance.attempt_limit != BalanceOptions::default().attempt_limit;
            check.rule(
                !chosen || limit <= deadline,
                "balance.attempt_limit",
                limit,
                format!("at most deadline ({deadline:?})"),
            );
        }
        if let Some(Delay::Fixed(delay)) = self.hedge.as_ref().map(|hedge| hedge.delay)
            && let Some(deadline) = self.deadline
        {
            check.rule(
                delay < deadline,
                "hedge.delay",
                delay,
                format!("less than deadline ({deadline:?}): no hedge would ever be sent"),
            );
        }
        let bounded =
            self.limit.is_some() || self.balance.limit.is_some() || self.balance.max_in_flight.is_some();
        check.rule(
            bounded || self.retry.max_utilisation.is_none(),
            "retry.max_utilisation",
            self.retry.max_utilisation,
            "needs a capacity: limit, balance.max_in_flight or balance.limit",
        );
        let measured = self.hedge.as_ref().is_some_and(|hedge| !matches!(hedge.delay, Delay::Fixed(_)));
        check.rule(
            !measured || self.balance.statistics,
            "balance.statistics",
            self.balance.statistics,
            "true: a hedge delay that is a percentile of latency needs them",
        );
    }

    /// Checks that `next` may replace these options while the client runs, with a throttle of this `window` if it has ever
    /// had one.
    pub(crate) fn check_update(&self, next: &Self, window: Option<Duration>, check: &mut Check) {
        if let Some(deadline) = next.deadline {
            check.duration("deadline", deadline);
        }
        check
            .part("rate", |check| check_rate(next.rate.as_ref(), check))
            .part("throttle", |check| {
                check_throttle(next.throttle.as_ref(), check);
                if let (Some(window), Some(next)) = (window, &next.throttle) {
                    check.rule(
                        next.window == window,
                        "window",
                        next.window,
                        format!("cannot change while the client runs ({window:?})"),
                    );
                }
            })
            .part("retry", |check| next.retry.check(check))
            .part("budget", |check| {
                next.budget.check(check);
                check.rule(
                    next.budget.window == self.budget.window,
                    "window",
                    next.budget.window,
                    format!("cannot change while the client runs ({:?})", self.budget.window),
                );
            })
            .part("hedge", |check| check_hedge(next.hedge.as_ref(), check))
            .part("limit", |check| check_limit(next.limit.as_ref(), check))
            .part("breaker", |check| check_breaker(next.breaker.as_ref(), check))
            .part("balance", |check| self.balance.check_update(&next.balance, check));
        next.check_order(check);
    }
}

fn check_breaker(options: Option<&BreakerOptions>, check: &mut Check) {
    if let Some(options) = options {
        options.check(check);
    }
}

fn check_hedge(options: Option<&HedgeOptions>, check: &mut Check) {
    if let Some(options) = options {
        options.check(check);
    }
}

fn check_limit(options: Option<&ConcurrencyLimitOptions>, check: &mut Check) {
    if let Some(options) = options {
        options.check(check);
    }
}

fn check_rate(options: Option<&RateLimitOptions>, check: &mut Check) {
    if let Some(options) = options {
        options.check(check);
    }
}

fn check_throttle(options: Option<&ThrottleOptions>, check: &mut Check) {
    if let Some(options) = options {
        options.check(check);
    }
}
