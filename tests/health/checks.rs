//! Active checks, through the balancer.

use mainstay::{
    health::{CheckOptions, State, Trip},
    resolve,
    telemetry::Event,
};
use tower::ServiceExt as _;

use crate::stage::*;

/// A client of services that dial, whose checks ask a server of their own for each endpoint: `check a:1` for `a:1`.
fn client_of(stage: &Stage, names: &[&str], heard: &Heard, change: impl FnOnce(&mut CheckOptions)) -> Client {
    let asked = stage.clone();
    stage
        .dialing(resolve::fixed(names.to_vec()))
        .options(options(|options| change(&mut options.health.checks)))
        .check(move |_, endpoint| {
            let own = asked.server(&format!("check {}", endpoint.address()));
            let ask = Conn::to(own).oneshot(0);
            async move { ask.await.map(drop) }
        })
        .observe(heard.observer())
        .build()
        .unwrap()
}

fn ejected_by_checks(heard: &Heard) -> usize {
    let by_checks = |event: &Event| matches!(event, Event::Ejected { why: Trip::Check, .. });
    heard.all().iter().filter(|event| by_checks(event)).count()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_checks_fail_is_out_before_a_request_finds_out_and_back_when_they_pass() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard, |_| {});
    client.ready().await.unwrap();
    tokio::time::sleep(secs(30)).await;
    assert_eq!(ejected_by_checks(&heard), 0);
    let check = stage.server("check a:1");
    check.set(Mode::Fail(ms(1)));
    stage.server("a:1").set(Mode::Fail(ms(1)));
    tokio::time::sleep(secs(70)).await;
    let out = status(&client, "a:1");
    assert!(
        matches!(out.state, State::Ejected { why: Trip::Check, .. } | State::Probation { .. }),
        "{out:?}"
    );
    assert_eq!(load(&client, 4, 40).await, 0, "without a copy nobody is its probe");
    check.set(Mode::Answer(ms(1)));
    tokio::time::sleep(secs(6)).await;
    assert!(status(&client, "a:1").is_available());
    assert!(heard.all().iter().any(|event| matches!(event, Event::Restored { proven: true, .. })));
}

#[tokio::test(start_paused = true)]
async fn checks_never_outvote_requests() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |_| {});
    client.ready().await.unwrap();
    stage.server("check a:1").set(Mode::Fail(ms(1)));
    for _ in 0..300 {
        load(&client, 2, 8).await;
        tokio::time::sleep(ms(500)).await;
    }
    assert!(stage.server("check a:1").served() > 20);
    assert_eq!(ejected_by_checks(&heard), 0, "requests show that it is well");
    eject(&stage, &client, "b:1").await;
    tokio::time::sleep(secs(4)).await;
    assert_ne!(status(&client, "b:1").word(), "available", "checks that pass do not bring it back");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_has_failed() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |_| {});
    client.ready().await.unwrap();
    stage.server("check a:1").set(Mode::Hang);
    tokio::time::sleep(secs(80)).await;
    assert!(ejected_by_checks(&heard) >= 1);
    assert!(stage.server("check a:1").active() <= 1);
}

#[tokio::test(start_paused = true)]
async fn checks_keep_to_their_intervals_and_end_with_the_client() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |checks| checks.idle_interval = secs(20));
    client.ready().await.unwrap();
    tokio::time::sleep(secs(10)).await;
    stage.forget_served();
    tokio::time::sleep(secs(400)).await;
    let asked = stage.server("check a:1").served();
    assert!((17..=24).contains(&asked), "{asked} in 20 intervals of 20 s");
    drop(client);
    settle().await;
    stage.forget_served();
    tokio::time::sleep(secs(100)).await;
    assert_eq!(stage.server("check a:1").served(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_connected_is_not_checked_and_is_again_once_it_is() {
    let (stage, heard) = (Stage::default(), Heard::default());
    stage.server("a:1").refuse_dials(true);
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |_| {});
    client.ready().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(stage.server("check a:1").served(), 0);
    stage.server("a:1").refuse_dials(false);
    tokio::time::sleep(secs(60)).await;
    assert!(stage.server("check a:1").served() >= 2);
}

#[tokio::test(start_paused = true)]
async fn the_options_of_checks_are_replaced_while_they_run_and_held_to_their_rules() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |_| {});
    client.ready().await.unwrap();
    tokio::time::sleep(secs(120)).await;
    let mut options = client.options();
    options.health.checks.failures = 0;
    assert!(client.update(options.clone()).is_err());
    (options.health.checks.failures, options.health.checks.idle_interval) = (1, secs(5));
    client.update(options).unwrap();
    tokio::time::sleep(secs(61)).await;
    stage.forget_served();
    stage.server("check a:1").set(Mode::Fail(ms(1)));
    tokio::time::sleep(secs(10)).await;
    assert!(ejected_by_checks(&heard) >= 1);
}

#[tokio::test(start_paused = true)]
async fn shorter_intervals_hold_for_the_check_that_is_waited_for() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard, |options| options.idle_interval = secs(3_600));
    client.ready().await.unwrap();
    tokio::time::sleep(secs(120)).await;
    stage.forget_served();
    // Other options do not bring it nearer.
    client.update(client.options()).unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(stage.server("check a:1").served(), 0);
    let mut options = client.options();
    options.health.checks.idle_interval = secs(5);
    client.update(options).unwrap();
    tokio::time::sleep(secs(60)).await;
    let served = stage.server("check a:1").served();
    assert!((10..=15).contains(&served), "{served}");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_has_failed_and_takes_nobody_along() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let (feed, channel) = fed(["a:1", "b:1", "c:1"]);
    let client = stage
        .builder(channel)
        .check(|_, endpoint| {
            let name = endpoint.address().to_string();
            assert!(name != "a:1", "at once");
            async move {
                tokio::time::sleep(ms(1)).await;
                assert!(name != "b:1", "later");
                Ok(())
            }
        })
        .observe(heard.observer())
        .build()
        .unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(secs(90)).await;
    assert!(ejected_by_checks(&heard) >= 1, "{:?}", client.status());
    assert!(status(&client, "c:1").is_available());
    // What goes on is that endpoints are followed.
    feed.set(["d:1"]);
    tokio::time::sleep(secs(31)).await;
    assert_eq!(client.send(0).await.unwrap(), "d:1");
}
