//! From the first call to the end.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures::FutureExt as _;
use mainstay::{Reason, clock, resolve};

use crate::fleet::*;

#[tokio::test(start_paused = true)]
async fn ready_waits_for_a_first_endpoint_and_ends_with_a_reason() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = client(&stage, channel);
    assert!(client.ready().now_or_never().is_none());
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.ready().await });
    feed.set(["a:1"]);
    waiting.await.unwrap().unwrap();
    client.close(ms(0)).await;
    assert_eq!(client.ready().await.unwrap_err().reason(), Reason::Closed);
}

#[tokio::test(start_paused = true)]
async fn close_refuses_waits_and_lets_the_resolver_go() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = client(&stage, resolver);
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let under_way = tokio::spawn(client.send(0));
    settle().await;
    let start = clock::now();
    let (closed, refused) = tokio::join!(client.close(secs(30)), async {
        tokio::time::sleep(ms(1)).await;
        client.send(0).await
    });
    assert!(closed);
    assert_eq!(reason(&refused), Some(Reason::Closed));
    let took = clock::now().saturating_duration_since(start);
    assert!(took >= secs(2) && took < ms(2_010), "{took:?}");
    assert!(under_way.await.unwrap().is_ok());
    assert!(dropped.load(SeqCst));
    assert!(client.status().balance.closed);
    assert_eq!((client.status().successes, client.status().failures, client.status().retries), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_a_request_in_backoff_which_still_succeeds() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    let client = builder(&stage, resolver).retry(every(secs(1), 3)).build().unwrap();
    let under_way = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(500)).await;
    stage.server("a:1").set(Mode::Answer(ms(10)));
    assert!(client.close(secs(5)).await);
    assert!(under_way.is_finished(), "it was waited for");
    assert_eq!(under_way.await.unwrap().unwrap(), "a:1");
    assert!(dropped.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn close_refuses_a_request_that_waits_for_an_endpoint_even_as_a_retry() {
    let stage = Stage::default();
    let (_feed, channel) = fed(["a:1"]);
    stage.server("a:1").set(Mode::Fail(ms(1)));
    let client = builder(&stage, channel).retry(every(secs(1), 3)).build().unwrap();
    let under_way = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(500)).await;
    stage.server("a:1").gate(Gate::Shut);
    assert!(client.close(secs(5)).await);
    assert_eq!(reason(&under_way.await.unwrap()), Some(Reason::Closed));
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_waiting_in_time_and_what_is_left_goes_on() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let client = client(&stage, resolve::fixed(["a:1"]));
    let under_way = tokio::spawn(client.send(0));
    settle().await;
    assert!(!client.close(secs(1)).await);
    assert!(under_way.await.unwrap().is_ok());
    assert!(client.close(Duration::ZERO).await);
}

#[tokio::test(start_paused = true)]
async fn the_background_task_ends_within_a_second_of_the_last_handle() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = client(&stage, resolver);
    client.send(0).await.unwrap();
    let view = client.method("GetUser");
    drop(client);
    tokio::time::sleep(secs(1)).await;
    assert!(!dropped.load(SeqCst), "a view is a handle");
    drop(view);
    tokio::time::sleep(secs(1)).await;
    assert!(dropped.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_request_outlives_the_last_handle_even_in_backoff() {
    for mode in [Mode::Answer(secs(2)), Mode::Fail(ms(1))] {
        let stage = Stage::default();
        let (resolver, dropped) = told();
        stage.server("a:1").set(mode);
        let client = builder(&stage, resolver).retry(every(secs(2), 3)).build().unwrap();
        let under_way = tokio::spawn(client.send(0));
        settle().await;
        drop(client);
        tokio::time::sleep(secs(1)).await;
        stage.server("a:1").set(Mode::Answer(ms(10)));
        assert_eq!(under_way.await.unwrap().unwrap(), "a:1");
        tokio::time::sleep(secs(1)).await;
        assert!(dropped.load(SeqCst));
        assert_eq!(stage.server("a:1").services(), 0);
    }
}

#[test]
fn it_works_on_a_second_runtime_when_the_first_has_ended() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1", "b:1"]));
    for round in 1..=3 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        assert_eq!(runtime.block_on(load(&client, 5, 50)), 0, "runtime {round}");
        // One that dies with its runtime is cancelled like any other.
        let cut_off = client.send(0);
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            cut_off.await
        });
        runtime.block_on(settle());
        drop(runtime);
        let status = client.status();
        assert_eq!((status.successes, status.cancelled), (50 * round, round));
        assert!(status.balance.endpoints.iter().all(|row| row.in_flight == 0));
    }
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let reply = client.send(0).now_or_never().unwrap();
    assert_eq!(reason(&reply), Some(Reason::NoRuntime));
    assert_eq!(client.status().failures, 1);
}
