//! What the builder takes and what it refuses.

use std::time::Duration;

use mainstay::{
    Invalid, Ratio,
    backoff::{Backoff, Jitter},
    balance::{BalanceOptions, Load, Panic, SlowStart},
    budget::BudgetOptions,
    client::ClientOptions,
    health::HealthOptions,
    resolve,
    retry::RetryPolicy,
};

use crate::fleet::*;

fn fields(invalid: &Invalid) -> Vec<&str> {
    invalid.problems().iter().map(|problem| problem.field.as_str()).collect()
}

#[test]
fn a_client_of_nothing_is_told_all_that_is_missing() {
    let invalid = Client::builder("users").build().unwrap_err();
    assert_eq!(fields(&invalid), ["resolve", "connect"]);
    assert!(invalid.problems().iter().all(|problem| problem.rule.starts_with("needed")), "{invalid}");
}

#[test]
fn every_mistake_is_told_at_once_with_field_value_and_rule() {
    let invalid = Client::builder("users")
        .resolve(resolve::system("http://users.internal"))
        .deadline(Duration::ZERO)
        .attempt_limit(secs(4))
        .retry(RetryPolicy::default().max_attempts(0).backoff(Backoff::exponential(ms(10)).factor(0.5)))
        .budget(BudgetOptions::default().window(ms(1)))
        .build()
        .unwrap_err();
    let expected = [
        "connect",
        "resolve.system.name",
        "deadline",
        "retry.max_attempts",
        "retry.backoff.factor",
        "budget.window",
        "balance.attempt_limit",
    ];
    assert_eq!(fields(&invalid), expected, "{invalid}");
    let said = invalid.to_string();
    for part in ["http://users.internal", "0ns", "1 to 10", "0.5", "1ms", "4s", "at most deadline"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn rules_between_options_are_checked_and_nothing_is_bent_to_fit() {
    let stage = Stage::default();
    let build = |deadline, limit: Option<Duration>| {
        let builder = builder(&stage, resolve::fixed(["a:1"])).deadline(deadline);
        match limit {
            Some(limit) => builder.attempt_limit(limit).build(),
            None => builder.build(),
        }
    };
    let invalid = build(secs(1), Some(ms(1_001))).unwrap_err();
    assert_eq!(fields(&invalid), ["balance.attempt_limit"]);
    let client = build(secs(1), Some(secs(1))).unwrap();
    assert_eq!(client.options().balance.attempt_limit, Some(secs(1)));
    // Nobody chose the default limit: it means what is left, at most 3 s.
    let client = build(ms(100), None).unwrap();
    assert_eq!(
        (client.options().deadline, client.options().balance.attempt_limit),
        (Some(ms(100)), Some(secs(3)))
    );
}

#[test]
fn the_largest_and_the_smallest_numbers_are_refused_or_taken_and_never_a_panic() {
    let stage = Stage::default();
    for wild in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let mut options = ClientOptions::default();
        options.deadline = Some(wild);
        options.balance.attempt_limit = Some(wild);
        options.balance.first_resolution = wild;
        options.balance.connect_timeout = wild;
        options.balance.grace = wild;
        options.balance.keep_removed = wild;
        options.balance.load = Load::PeakEwma { decay: wild };
        options.balance.slow_start = SlowStart::new(wild, Ratio::ZERO);
        options.balance.health.window = wild;
        options.balance.health.probe_wait = wild;
        options.balance.dials = 0;
        options.retry.max_attempts = u32::MAX;
        options.budget.window = wild;
        let invalid = builder(&stage, resolve::fixed(["a:1"])).options(options).build().unwrap_err();
        assert!(fields(&invalid).contains(&"balance.dials"), "{invalid}");
        assert!(fields(&invalid).contains(&"retry.max_attempts"), "{invalid}");
        let deadline = fields(&invalid).contains(&"deadline");
        assert_eq!(deadline, wild != Duration::from_nanos(1), "{invalid}");
    }
}

#[test]
fn the_defaults_are_the_promised_ones() {
    let options = ClientOptions::default();
    assert_eq!(options.deadline, Some(secs(10)));
    assert_eq!(options.retry.max_attempts, 3);
    let backoff = Backoff::exponential(ms(25)).factor(2.0).cap(ms(250)).jitter(Jitter::Full);
    assert_eq!(options.retry.backoff, backoff);
    let BudgetOptions { share, window, reserve, .. } = options.budget;
    assert_eq!((share, window, reserve), (Ratio::percent::<20>(), secs(10), 1));

    let BalanceOptions {
        load,
        choices,
        panic,
        panic_below,
        slow_start,
        statistics,
        attempt_limit,
        max_waiting,
        first_resolution,
        grace,
        keep_removed,
        connect_timeout,
        redial,
        redial_spread,
        health,
        ..
    } = options.balance;
    assert_eq!((load, choices), (Load::Latency { half_life: secs(10) }, 4));
    assert_eq!((panic, panic_below), (Panic::FailOpen, Ratio::percent::<50>()));
    assert_eq!(slow_start, SlowStart::new(secs(10), Ratio::percent::<10>()));
    assert!(statistics);
    assert_eq!(attempt_limit, Some(secs(3)));
    assert_eq!(max_waiting, 1_024);
    assert_eq!(
        (first_resolution, grace, keep_removed, connect_timeout),
        (secs(5), secs(30), secs(60), secs(1))
    );
    assert_eq!(redial, Backoff::exponential(ms(100)).factor(2.0).cap(secs(30)).jitter(Jitter::Full));
    assert_eq!(redial_spread, secs(30));

    let HealthOptions {
        enabled,
        consecutive,
        failures,
        of_last,
        success_rate,
        window,
        window_failures,
        ejection,
        max_ejected,
        probe_limit,
        probe_wait,
        back_off,
        back_off_cap,
        ..
    } = health;
    assert!(enabled);
    assert_eq!((consecutive, failures, of_last), (5, 6, 20));
    assert_eq!((success_rate, window, window_failures), (Ratio::percent::<80>(), secs(30), 5));
    assert_eq!(ejection, Backoff::exponential(secs(5)).factor(2.0).cap(secs(300)).jitter(Jitter::Equal));
    assert_eq!(max_ejected, Ratio::percent::<50>());
    assert_eq!((probe_limit, probe_wait, back_off, back_off_cap), (secs(1), secs(30), secs(1), secs(300)));
}

#[test]
fn building_needs_no_runtime_and_starts_nothing() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    assert!(!client.status().balance.resolved);
    assert_eq!(stage.server("a:1").made(), 0);
}

#[test]
fn handles_are_shared_freely_and_futures_are_sent() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn sent<T: Future + Send + std::fmt::Debug + 'static>(_: &T) {}
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    shared(&client);
    sent(&client.send(0));
}
