//! What refuses or delays requests, each alone around the instant service.

use std::time::Duration;

use mainstay::{
    Ratio,
    breaker::{Breaker, BreakerLayer, BreakerOptions, Window},
    deadline::DeadlineLayer,
    describe::Idempotent,
    limit::{
        Algorithm, ConcurrencyLimit, ConcurrencyLimitLayer, ConcurrencyLimitOptions,
        rate::{RateLimitLayer, RateLimitOptions},
        throttle::{ThrottleLayer, ThrottleOptions},
    },
    retry::{RetryLayer, RetryPolicy},
};
use tower::Layer as _;

use crate::{
    case::Case,
    endpoint::{AtOnce, request},
};

pub(crate) fn cases() -> Vec<Case> {
    let minute = Window::Time(Duration::from_secs(60));
    vec![
        Case::shared("breaker", request, |_| breaker(BreakerOptions::default())),
        Case::shared("breaker_time", request, move |_| breaker(BreakerOptions::default().window(minute))),
        Case::shared("breaker_slow", request, |_| {
            breaker(BreakerOptions::default().slow(Ratio::percent::<50>(), Duration::from_secs(1)))
        }),
        Case::shared("limit_fixed", request, |_| limited(ConcurrencyLimitOptions::default())),
        Case::shared("limit_adaptive", request, |_| {
            limited(ConcurrencyLimitOptions::default().algorithm(Algorithm::adaptive()))
        }),
        Case::shared("rate_limit", request, |_| {
            let often =
                RateLimitOptions::default().rate(1_000_000_000, Duration::from_secs(1)).burst(1_000_000);
            RateLimitLayer::new(often).expect("sound options").layer(AtOnce)
        }),
        Case::shared("throttle", request, |_| {
            ThrottleLayer::new(ThrottleOptions::default()).expect("sound options").layer(AtOnce)
        }),
        // A deadline around retries, of requests whose copy is free.
        Case::shared("retry_deadline", request, |_| {
            let retries =
                RetryLayer::new(RetryPolicy::default()).expect("sound options").describe(Idempotent);
            DeadlineLayer::new(Duration::from_secs(10)).layer(retries.layer(AtOnce))
        }),
    ]
}

fn limited(options: ConcurrencyLimitOptions) -> ConcurrencyLimit<AtOnce> {
    ConcurrencyLimitLayer::new(options).expect("sound options").layer(AtOnce)
}

fn breaker(options: BreakerOptions) -> Breaker<AtOnce, u64> {
    BreakerLayer::new(options).expect("sound options").layer(AtOnce)
}
