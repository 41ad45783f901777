//! What a client tells about itself, as plain data.

use std::{sync::Arc, time::Duration};

use tower::{BoxError, Service};

use super::service::Core;
use crate::{
    balance::BalanceStatus,
    breaker::{BreakerHandle, BreakerStatus},
    clock,
    estimate::Counts,
    hedge::Pace,
    limit::LimitStatus,
    telemetry::Counter,
};

/// What a client knows, does and has done, of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientStatus {
    /// The label in errors, events and metrics.
    pub label: Arc<str>,
    /// Requests whose last attempt succeeded.
    pub successes: u64,
    /// Requests that failed, retries included, or were refused.
    pub failures: u64,
    /// Requests that their callers gave up.
    pub cancelled: u64,
    /// Attempts after the first ones.
    pub retries: u64,
    /// Retries that the budget did not allow.
    pub budget_exhausted: u64,
    /// Attempts sent beside others that had not answered.
    pub hedges: u64,
    /// Those of them that answered first.
    pub hedges_won: u64,
    /// Those that were due and not sent: no share, no budget, no room, no other endpoint or no time was left.
    pub hedges_withheld: u64,
    /// After which time an attempt is hedged at present; `None` while nothing is.
    pub hedge_delay: Option<Duration>,
    /// Retries that the budget would allow right now.
    pub budget_available: u32,
    /// Latencies of whole requests that succeeded, over the last 30 to 60 s.
    pub latency: Latency,
    /// How many requests the rate would let in right now, if there is one.
    pub rate_available: Option<u32>,
    /// The share of the requests that the throttle refuses right now, from 0 to 1, if there is one.
    pub throttled: Option<f64>,
    /// The concurrency limit of the whole client, if one is wanted.
    pub limit: Option<LimitStatus>,
    /// The breaker of the whole client, if one is wanted.
    pub breaker: Option<BreakerStatus>,
    /// The balancer and its endpoints.
    pub balance: BalanceStatus,
}

/// Quantiles of recent latencies; within 1/14 of the true value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50: Option<Duration>,
    /// The 90th percentile.
    pub p90: Option<Duration>,
    /// The 99th percentile.
    pub p99: Option<Duration>,
    /// The 99.9th percentile.
    pub p999: Option<Duration>,
}

impl Latency {
    pub(crate) fn of(counts: &Counts) -> Self {
        let latencies = counts.to_hdr();
        let quantile = |quantile: f64| {
            (!latencies.is_empty()).then(|| Duration::from_nanos(latencies.value_at_quantile(quantile)))
        };
        Self {
            count: latencies.len(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
        }
    }
}

impl ClientStatus {
    pub(super) fn of<S, Req>(core: &Core<S, Req>) -> Self
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Response: 'static,
        S::Error: Into<BoxError>,
        Req: 'static,
    {
        let (now, tally) = (clock::now(), &core.parts.tally);
        Self {
            label: core.label.clone(),
            successes: tally.sum(Counter::Successes),
            failures: tally.sum(Counter::Failures),
            cancelled: tally.sum(Counter::Cancelled),
            retries: tally.sum(Counter::Retries),
            budget_exhausted: tally.sum(Counter::BudgetExhausted),
            hedges: tally.sum(Counter::Hedges),
            hedges_won: tally.sum(Counter::HedgesWon),
            hedges_withheld: tally.sum(Counter::HedgesWithheld),
            hedge_delay: core.pace().and_then(Pace::last),
            budget_available: core.parts.budget.available(now),
            latency: Latency::of(&core.latencies(now)),
            rate_available: core.rate().map(|rate| rate.available()),
            throttled: core.throttle().map(|throttle| throttle.probability(now)),
            limit: core.limiter().map(|limiter| limiter.status()),
            breaker: core.breaker().map(BreakerHandle::status),
            balance: core.balance.status(),
        }
    }
}
