//! What is a plain type: asked before a call, and told after it.

use std::{convert::Infallible, hint::black_box, num::NonZeroU32, sync::Arc, time::Duration};

use failsafe::{CircuitBreaker as _, backoff, failure_policy};
use governor::{Quota, RateLimiter, clock::MonotonicClock};
use mainstay::{
    Ratio, Verdict,
    breaker::{BreakerOptions, CircuitBreaker, Window},
    clock,
    limit::rate::{Gcra, RateLimitOptions},
    random::Entropy,
};

use crate::{Calls, Case};

/// A row whose callers share `shared`.
fn case<T: Send + Sync + 'static>(
    kind: &'static str,
    name: &'static str,
    shared: T,
    call: impl Fn(&T) + Send + Sync + 'static,
) -> Case {
    let (shared, call) = (Arc::new(shared), Arc::new(call));
    let caller = move || -> Calls {
        let (shared, call) = (shared.clone(), call.clone());
        Box::new(move |calls| (0..calls).for_each(|_| call(&shared)))
    };
    Case { kind, name, caller: Box::new(caller) }
}

fn fine() -> Result<u64, Infallible> {
    Ok(black_box(1))
}

fn ours(options: BreakerOptions) -> CircuitBreaker {
    CircuitBreaker::new(options, clock::now()).expect("sound options")
}

/// Asked and told, with the time where it is needed.
fn timed(breaker: &CircuitBreaker) {
    if let (Ok(admission), _) = breaker.admit(clock::now()) {
        let _ = fine();
        breaker.finish(admission, Verdict::success(), clock::now(), &Entropy);
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let epoch = clock::now();
    let million = NonZeroU32::MAX;
    let often = RateLimitOptions::default().rate(u32::MAX, Duration::from_secs(1)).burst(u32::MAX >> 8);
    let steps = backoff::constant(Duration::from_secs(5));
    vec![
        case("clock", "tokio::time::Instant::now", (), |()| {
            black_box(clock::now());
        }),
        // These two need no time while they are closed: it is read once, outside.
        case("breaker", "mainstay, last 100", ours(BreakerOptions::default()), move |breaker| {
            if let (Ok(admission), _) = breaker.admit(epoch) {
                let _ = fine();
                breaker.finish(admission, Verdict::success(), epoch, &Entropy);
            }
        }),
        case(
            "breaker",
            "mainstay, in a row",
            ours(BreakerOptions::default().failure_rate(None).consecutive(5)),
            move |breaker| {
                if let (Ok(admission), _) = breaker.admit(epoch) {
                    let _ = fine();
                    breaker.finish(admission, Verdict::success(), epoch, &Entropy);
                }
            },
        ),
        case(
            "breaker",
            "mainstay, last 60 s, two clock reads",
            ours(BreakerOptions::default().window(Window::Time(Duration::from_secs(60)))),
            timed,
        ),
        case(
            "breaker",
            "mainstay, last 100 and slow calls, two reads",
            ours(BreakerOptions::default().slow(Ratio::percent::<50>(), Duration::from_secs(1))),
            timed,
        ),
        case("breaker", "recloser 1.4", recloser::Recloser::custom().closed_len(100).build(), |breaker| {
            let _ = black_box(breaker.call(fine));
        }),
        case(
            "breaker",
            "failsafe 1.3, in a row",
            failsafe::Config::new().failure_policy(failure_policy::consecutive_failures(5, steps)).build(),
            |breaker| {
                let _ = black_box(breaker.call(fine));
            },
        ),
        case("breaker", "failsafe 1.3, as it comes", failsafe::Config::new().build(), |breaker| {
            let _ = black_box(breaker.call(fine));
        }),
        case("rate limit", "mainstay", Gcra::new(&often, epoch), |limit| {
            let _ = black_box(limit.admit(clock::now(), 1));
        }),
        case(
            "rate limit",
            "governor 0.10, the std clock",
            RateLimiter::direct_with_clock(Quota::per_second(million).allow_burst(million), MonotonicClock),
            |limit| {
                let _ = black_box(limit.check());
            },
        ),
    ]
}
