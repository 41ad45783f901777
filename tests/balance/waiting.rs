//! Requests for which there is nothing yet.

use mainstay::{Reason, outcome::Sent, resolve};

use crate::stage::*;

#[tokio::test(start_paused = true)]
async fn the_first_resolution_is_waited_for_and_no_longer_than_five_seconds() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let start = crate::stage::now();
    let reply = client.send(0).await;
    assert_eq!(reason(&reply), Some(Reason::Unresolved));
    assert_eq!(start.elapsed(), secs(5));
    let error = reply.unwrap_err();
    assert_eq!(mainstay::Error::find(&*error).map(mainstay::Error::sent), Some(Sent::No));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_goes_as_soon_as_there_is_a_resolution() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(4)).await;
    feed.set(["a:1"]);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pending_resolution_says_nothing() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = stage.client(channel);
    feed.send(resolve::Resolution::Pending);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    assert!(!waiting.is_finished());
    feed.set(["a:1"]);
    settle().await;
    feed.send(resolve::Resolution::Pending);
    waiting.await.unwrap().unwrap();
    client.send(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_a_first_endpoint() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let ready = tokio::spawn({
        let client = client.clone();
        async move { client.ready().await }
    });
    tokio::time::sleep(secs(60)).await;
    assert!(!ready.is_finished());
    feed.set(["a:1"]);
    ready.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn ready_is_told_that_the_name_stands_for_nothing() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    feed.send(resolve::Resolution::Absent);
    let client = stage.client(channel);
    assert_eq!(client.ready().await.unwrap_err().reason(), Reason::Absent);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_time_is_over_is_waited_for_until_that_is_seen() {
    for asked in [1, 50, 1_000] {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1"]));
        stage.server("a:1").set(Mode::BackOff(Some(ms(asked))));
        client.send(0).await.unwrap_err();
        stage.server("a:1").set(Mode::Answer(ms(0)));
        let refused = client.send(0).await;
        assert_eq!(reason(&refused), Some(Reason::BackingOff));
        let before = now();
        tokio::time::sleep(ms(asked)).await;
        client.send(0).await.unwrap();
        assert!(now() - before <= ms(asked + 3), "{asked}: {:?}", now() - before);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_waited_for_beside_one_that_may_not_be_used() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    client.ready().await.unwrap();
    let drained = client.endpoint(mainstay::Endpoint::new("a:1").identity()).unwrap();
    drained.drain();
    stage.server("b:1").set(Mode::BackOff(Some(ms(50))));
    client.send(0).await.unwrap_err();
    stage.server("b:1").set(Mode::Answer(ms(0)));
    client.send(0).await.unwrap_err();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(client.send(0).await.unwrap(), "b:1");
}
