//! Attempts that end before there is an answer.

use std::time::Duration;

use futures::FutureExt as _;
use mainstay::{
    balance::Load,
    clock,
    context::{self, Inherited},
    health::{State, Trip},
    resolve,
};

use crate::stage::*;

/// Cuts off `count` requests to `a:1` after `after`; the others answer fast.
async fn cut_off(client: &Client, stage: &Stage, after: Duration, count: usize) {
    let a = stage.server("a:1");
    let until = a.served() + count;
    while a.served() < until && status(client, "a:1").is_available() {
        let _ = tokio::time::timeout(after, client.send(0)).await;
    }
    settle().await;
}

async fn with_peers(limit: Option<Duration>) -> (Stage, Client) {
    let stage = Stage::default();
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
        .options(options(|options| {
            options.load = Load::InFlight;
            options.attempt_limit = limit;
        }))
        .build()
        .unwrap();
    load(&client, 3, 300).await;
    stage.server("a:1").set(Mode::Hang);
    (stage, client)
}

#[tokio::test(start_paused = true)]
async fn a_caller_s_own_timeouts_do_not_hide_a_dead_endpoint() {
    let (stage, client) = with_peers(None).await;
    // Its peers answer within 10 ms: 100 ms are overlong.
    cut_off(&client, &stage, ms(100), 4).await;
    assert_eq!(status(&client, "a:1").word(), "available");
    cut_off(&client, &stage, ms(100), 1).await;
    assert_eq!(status(&client, "a:1").word(), "ejected");
}

#[tokio::test(start_paused = true)]
async fn an_ending_is_overlong_from_four_times_the_p99_of_its_peers_on() {
    let (stage, client) = with_peers(None).await;
    cut_off(&client, &stage, ms(38), 20).await;
    assert_eq!(status(&client, "a:1").failures, 0);
    cut_off(&client, &stage, ms(50), 5).await;
    assert_eq!((status(&client, "a:1").word(), status(&client, "a:1").failures), ("ejected", 5));
}

#[tokio::test(start_paused = true)]
async fn a_short_cancellation_is_no_answer_and_breaks_no_row() {
    let (stage, client) = with_peers(None).await;
    for _ in 0..4 {
        cut_off(&client, &stage, ms(100), 1).await;
        cut_off(&client, &stage, ms(30), 3).await;
    }
    assert_eq!(status(&client, "a:1").word(), "available");
    cut_off(&client, &stage, ms(100), 1).await;
    assert!(matches!(status(&client, "a:1").state, State::Ejected { why: Trip::Consecutive, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_unpolled_after_the_endpoint_s_limit_is_a_failure() {
    let stage = Stage::default();
    let client = stage
        .builder(resolve::fixed(["a:1"]))
        .options(options(|options| options.attempt_limit = Some(ms(50))))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    stage.server("a:1").set(Mode::Hang);
    for (lasts, failures) in [(ms(40), 0), (ms(60), 1)] {
        let mut call = Box::pin(client.send(0));
        assert!((&mut call).now_or_never().is_none());
        tokio::time::sleep(lasts).await;
        drop(call);
        assert_eq!(status(&client, "a:1").failures, failures, "after {lasts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_s_deadline_that_is_overlong_for_an_attempt_is_a_failure_of_the_endpoint() {
    let (stage, client) = with_peers(None).await;
    let a = stage.server("a:1");
    let until = a.served() + 5;
    while a.served() < until {
        let deadline = Inherited::default().with_deadline(clock::now() + ms(100));
        let _ = context::scope(deadline, client.send(0)).await;
    }
    settle().await;
    let a = status(&client, "a:1");
    assert_eq!((a.word(), a.failures, a.cancelled), ("ejected", 5, 0));
}

#[tokio::test(start_paused = true)]
async fn short_cancellations_are_no_failures_but_censored_samples() {
    let (stage, client) = with_peers(None).await;
    cut_off(&client, &stage, ms(30), 50).await;
    let a = status(&client, "a:1");
    assert_eq!((a.word(), a.failures, a.cancelled), ("available", 0, 50));
    assert!(a.estimate.unwrap() >= ms(28), "{:?}", a.estimate);
}

#[tokio::test(start_paused = true)]
async fn five_timeouts_by_the_attempt_s_own_limit_eject() {
    let (stage, client) = with_peers(Some(ms(50))).await;
    cut_off(&client, &stage, secs(9), 5).await;
    assert_eq!((status(&client, "a:1").word(), status(&client, "a:1").failures), ("ejected", 5));
}

#[tokio::test(start_paused = true)]
async fn a_caller_s_own_timeouts_do_not_hide_a_dead_endpoint_from_a_client_with_little_traffic() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1"]));
    stage.server("a:1").set(Mode::Hang);
    let mut lost = 0;
    for _ in 0..600 {
        lost += usize::from(!matches!(tokio::time::timeout(secs(1), client.send(0)).await, Ok(Ok(_))));
        tokio::time::sleep(secs(1)).await;
    }
    // The first of them are not known to be overlong; the rest are failures, and eject it.
    let failures = status(&client, "a:1").failures;
    assert!(failures >= 5 && lost <= 20, "{lost} of 600 lost, {failures} failures");
}
