//! Requests that their callers give up.

use std::{pin::pin, task::Context};

use futures::FutureExt as _;
use mainstay::{budget::Budget, resolve};

use crate::fleet::*;

#[tokio::test(start_paused = true)]
async fn dropped_before_its_first_poll_it_counts_for_nothing() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    drop(client.send(0));
    settle().await;
    let status = client.status();
    assert_eq!((status.successes, status.failures, status.cancelled), (0, 0, 0));
    assert!(!status.balance.resolved, "not even the background task was started");
}

#[tokio::test(start_paused = true)]
async fn dropped_under_way_it_is_cancelled_and_gives_everything_back() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    client.send(0).await.unwrap();
    stage.server("a:1").set(Mode::Hang);
    let mut request = Box::pin(client.send(0));
    assert!(request.as_mut().now_or_never().is_none());
    assert_eq!((stage.server("a:1").active(), client.status().balance.endpoints[0].in_flight), (1, 1));
    drop(request);
    assert_eq!((stage.server("a:1").active(), client.status().balance.endpoints[0].in_flight), (0, 0));
    let status = client.status();
    assert_eq!((status.successes, status.failures, status.cancelled), (1, 0, 1));
    assert!(client.close(ms(0)).await, "nothing is left in flight");
}

#[tokio::test(start_paused = true)]
async fn dropped_while_it_waits_for_an_endpoint_it_leaves_its_place() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = client(&stage, channel);
    let mut request = Box::pin(client.send(0));
    assert!(request.as_mut().now_or_never().is_none());
    assert_eq!(client.status().balance.waiting, 1);
    drop(request);
    assert_eq!((client.status().balance.waiting, client.status().cancelled), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn dropped_in_backoff_it_gives_its_withdrawal_back() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    let budget = Budget::new(reserve(1)).unwrap();
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .retry(every(secs(1), 3))
        .shared_budget(budget)
        .build()
        .unwrap();
    assert!(tokio::time::timeout(ms(500), client.send(0)).await.is_err());
    let status = client.status();
    assert_eq!((status.budget_available, status.retries, status.cancelled), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_it_is_counted_exactly_once() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Fail(ms(3)));
    stage.server("b:1").set(Mode::Vary);
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).budget(reserve(10_000)).build().unwrap();
    for tenths in 0..400 {
        let _ = tokio::time::timeout(ms(1) * tenths / 10, client.send(0)).await;
    }
    let status = client.status();
    // A limit of nothing polls its request once all the same.
    assert_eq!(status.successes + status.failures + status.cancelled, 400);
    assert!(status.cancelled > 20 && status.successes > 100, "{status:?}");
    assert!(status.balance.endpoints.iter().all(|row| row.in_flight == 0));
    assert_eq!((stage.server("a:1").active(), stage.server("b:1").active()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn polled_after_its_end_it_does_no_harm() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let mut request = pin!(client.send(0));
    request.as_mut().await.unwrap();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(request.as_mut().poll(&mut cx).is_pending());
    tokio::time::advance(secs(60)).await;
    assert!(request.as_mut().poll(&mut cx).is_pending());
    assert_eq!((client.status().successes, client.status().failures), (1, 0));
}
