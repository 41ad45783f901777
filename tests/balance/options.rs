//! Options, at build and while running.

use mainstay::{
    Reason,
    backoff::Backoff,
    balance::{Balance, BalanceOptions, Load, Panic},
    resolve,
};

use crate::stage::*;

fn broken() -> BalanceOptions {
    options(|options| {
        options.attempt_limit = Some(ms(0));
        options.dials = 0;
        options.health.consecutive = 0;
        options.redial = Backoff::exponential(ms(0)).cap(ms(1));
        options.grace = std::time::Duration::MAX;
        options.keep_removed = std::time::Duration::MAX;
        options.slow_start.lasts = std::time::Duration::MAX;
        options.health.back_off_cap = std::time::Duration::MAX;
    })
}

const BROKEN: [&str; 8] = [
    "attempt_limit",
    "health.consecutive",
    "health.back_off_cap",
    "slow_start.lasts",
    "grace",
    "keep_removed",
    "redial.base",
    "dials",
];

fn fields(invalid: &mainstay::Invalid) -> Vec<&str> {
    invalid.problems().iter().map(|problem| &*problem.field).collect()
}

#[test]
fn everything_wrong_with_the_options_is_told_at_once_at_build() {
    let invalid = Stage::default().builder(resolve::fixed(["a:1"])).options(broken()).build().unwrap_err();
    assert_eq!(fields(&invalid), BROKEN);
}

#[test]
fn a_balancer_that_cannot_connect_is_not_built() {
    let invalid = Balance::<Conn, u32>::builder(resolve::fixed(["a:1"])).build().unwrap_err();
    assert_eq!(fields(&invalid), ["connect"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_does_not_hold_together_changes_nothing() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    client.send(0).await.unwrap();
    let invalid = client.update(broken()).unwrap_err();
    assert_eq!(fields(&invalid), BROKEN);
    assert_eq!(client.options(), BalanceOptions::default());
    client.send(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_histories_are_made_of_cannot_be_changed_while_running() {
    let client = Stage::default().client(resolve::fixed(["a:1"]));
    let invalid = client
        .update(options(|options| {
            options.health.window = secs(1);
        }))
        .unwrap_err();
    assert_eq!(fields(&invalid), ["health.window"]);
}

#[tokio::test(start_paused = true)]
async fn the_kind_of_load_and_the_number_of_choices_may_change_while_running() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1"]));
    stage.server("a:1").set(Mode::Answer(ms(200)));
    let loads = [
        Load::PeakEwma { decay: secs(1) },
        Load::InFlight,
        Load::PeakEwma { decay: secs(20) },
        Load::Latency { half_life: secs(1) },
    ];
    for (load, choices) in loads.into_iter().zip([1, 2, 8, 3]) {
        client.update(options(|options| (options.load, options.choices) = (load, choices))).unwrap();
        assert_eq!(crate::stage::load(&client, 4, 200).await, 0);
        assert_eq!((client.options().load, client.options().choices), (load, choices));
    }
    assert!(status(&client, "a:1").estimate.is_some_and(|estimate| estimate > ms(150)));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_forgets_at_once_and_no_choice_are_told() {
    let wrong = |load, choices| {
        let wrong = options(|options| (options.load, options.choices) = (load, choices));
        fields(&wrong.validate().unwrap_err()).join(" ")
    };
    assert_eq!(wrong(Load::Latency { half_life: secs(0) }, 0), "load.half_life choices");
    assert_eq!(wrong(Load::PeakEwma { decay: secs(0) }, 9), "load.decay choices");
}

#[tokio::test(start_paused = true)]
async fn a_good_update_acts_at_once_and_keeps_all_state() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    load(&client, 2, 40).await;
    let before = status(&client, "a:1").successes;
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Hang);
    client.update(options(|options| options.attempt_limit = Some(ms(50)))).unwrap();
    let start = crate::stage::now();
    assert_eq!(reason(&client.send(0).await), Some(Reason::AttemptTimeout));
    assert_eq!(start.elapsed(), ms(50));
    assert_eq!(status(&client, "a:1").successes, before);
}

#[tokio::test(start_paused = true)]
async fn the_panic_policy_can_be_changed_in_the_middle_of_a_panic() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    load(&client, 4, 60).await;
    stage.forget_served();
    client.update(options(|options| options.panic = Panic::FailClosed)).unwrap();
    assert_eq!(reason(&client.send(0).await), Some(Reason::NoEndpoint));
    assert_eq!(stage.served(), [0, 0]);
    client.update(BalanceOptions::default()).unwrap();
    assert_eq!(reason(&client.send(0).await), None);
    assert_eq!(stage.served().iter().sum::<usize>(), 1);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let options = BalanceOptions::default();
    assert_eq!(options.attempt_limit, Some(secs(3)));
    assert_eq!((options.connect_timeout, options.first_resolution), (secs(1), secs(5)));
    assert_eq!((options.grace, options.keep_removed), (secs(30), secs(60)));
    assert_eq!((options.max_waiting, options.panic), (1_024, Panic::FailOpen));
    assert_eq!(options.panic_below.get(), 0.5);
    assert_eq!((options.slow_start.lasts, options.slow_start.from.get()), (secs(10), 0.1));
    assert_eq!(options.redial, Backoff::exponential(ms(100)).factor(2.0).cap(secs(30)));
    let health = options.health;
    assert_eq!((health.consecutive, health.failures, health.of_last), (5, 6, 20));
    assert_eq!((health.success_rate.get(), health.window, health.window_failures), (0.8, secs(30), 5));
    assert_eq!(health.max_ejected.get(), 0.5);
    assert_eq!((health.probe_limit, health.probe_wait), (secs(1), secs(30)));
    assert_eq!((health.back_off, health.back_off_cap), (secs(1), secs(300)));
    let equal = Backoff::exponential(secs(5)).factor(2.0).cap(secs(300));
    assert_eq!(health.ejection, equal.jitter(mainstay::backoff::Jitter::Equal));
}
