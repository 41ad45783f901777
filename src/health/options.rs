//! The numbers behind endpoint health.

use std::time::Duration;

use super::{CheckOptions, OperationOptions, outlier::Outliers};
use crate::{
    backoff::{Backoff, Jitter},
    invalid::{Check, FOREVER, Ratio},
};

/// When an endpoint is set aside, for how long, and how it comes back.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthOptions {
    /// Whether endpoints are ejected at all \[true\]. Where that is switched off while the client runs, those that are out come
    /// back, but for those that were ejected by hand.
    pub enabled: bool,
    /// Failures in a row that make an endpoint unavailable \[5, at least 1\].
    pub consecutive: u32,
    /// Failures among the last [`of_last`](Self::of_last) attempts that eject it \[6, 1 to 64\]. The default catches an
    /// endpoint that fails half of its requests within some 20 of them; at 1 % errors six among twenty come once in
    /// 10^8 attempts.
    pub failures: u32,
    /// The attempts that [`failures`](Self::failures) are counted among \[20\].
    pub of_last: u32,
    /// A success rate below this, over [`window`](Self::window), ejects it \[0.8\].
    pub success_rate: Ratio,
    /// The window of the success rate \[30 s\].
    pub window: Duration,
    /// Failures that the window must hold before the rate counts \[5\].
    pub window_failures: u32,
    /// How endpoints are compared with each other \[by median and chance; `None` for not at all\].
    pub outliers: Option<Outliers>,
    /// Health per operation, where [`Describe::operation`](crate::Describe::operation) names one \[off\]: an operation that
    /// fails at one endpoint, where others succeed, is kept from there by the same rules and for the same times, and the
    /// endpoint stays for the rest. See [`health`](super).
    pub per_operation: Option<OperationOptions>,
    /// How often endpoints are checked, where something says how
    /// ([`BalanceBuilder::check`](crate::balance::BalanceBuilder::check)).
    pub checks: CheckOptions,
    /// How long an ejection lasts \[5 s, doubling to 300 s, equal jitter\]. An endpoint that stays healthy for as long as
    /// its last ejection lasted is forgiven one doubling.
    pub ejection: Backoff,
    /// The share of the endpoints that may be ejected by judgement \[50 %, rounded up; at least one stays\].
    pub max_ejected: Ratio,
    /// How long the request that decides over an endpoint's return may take \[1 s\].
    pub probe_limit: Duration,
    /// After how long without such a request the endpoint returns unproven \[30 s\].
    pub probe_wait: Duration,
    /// How long an endpoint is left alone that asks for it without saying how long \[1 s\].
    pub back_off: Duration,
    /// The longest an endpoint may ask to be left alone \[300 s\].
    pub back_off_cap: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive: 5,
            failures: 6,
            of_last: 20,
            success_rate: Ratio::percent::<80>(),
            window: Duration::from_secs(30),
            window_failures: 5,
            outliers: Some(Outliers::default()),
            per_operation: None,
            checks: CheckOptions::default(),
            ejection: Backoff::exponential(Duration::from_secs(5))
                .factor(2.0)
                .cap(Duration::from_secs(300))
                .jitter(Jitter::Equal),
            max_ejected: Ratio::percent::<50>(),
            probe_limit: Duration::from_secs(1),
            probe_wait: Duration::from_secs(30),
            back_off: Duration::from_secs(1),
            back_off_cap: Duration::from_secs(300),
        }
    }
}

impl HealthOptions {
    pub(crate) fn check(&self, check: &mut Check) {
        check
            .rule(self.consecutive >= 1, "consecutive", self.consecutive, "at least 1")
            .rule((1..=64).contains(&self.failures), "failures", self.failures, "1 to 64")
            .rule(
                self.of_last >= self.failures,
                "of_last",
                self.of_last,
                format!("at least failures ({})", self.failures),
            )
            .duration("window", self.window)
            .rule(
                (1..=1024).contains(&self.window_failures),
                "window_failures",
                self.window_failures,
                "1 to 1,024",
            )
            .part("outliers", |check| {
                if let Some(rules) = &self.outliers {
                    rules.check(check);
                }
            })
            .part("per_operation", |check| {
                if let Some(operations) = &self.per_operation {
                    operations.check(check);
                }
            })
            .part("checks", |check| self.checks.check(check))
            .part("ejection", |check| {
                self.ejection.check(check);
                check.rule(!self.ejection.longest().is_zero(), "cap", self.ejection.longest(), "more than 0");
            })
            .duration("probe_limit", self.probe_limit)
            .duration("probe_wait", self.probe_wait)
            .duration("back_off", self.back_off)
            .rule(
                self.back_off_cap >= self.back_off && self.back_off_cap <= FOREVER,
                "back_off_cap",
                self.back_off_cap,
                format!("at least back_off ({:?}) and at most 10 years", self.back_off),
            );
    }
}
