//! Endpoints that ask to be left alone.

use std::time::Duration;

use mainstay::{Endpoint, Error, Reason, balance::Balance, resolve};
use tower::{BoxError, service_fn};

use crate::stage::*;

/// `a:1` asks for `after` once, and then would answer.
async fn asks(stage: &Stage, client: &Client, after: Option<Duration>) {
    let a = stage.server("a:1");
    a.set(Mode::BackOff(after));
    let before = a.served();
    while a.served() == before {
        let _ = client.send(0).await;
    }
    a.set(Mode::Answer(ms(1)));
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_left_alone_for_as_long_as_it_asks() {
    for (asked, granted) in [
        (Some(secs(7)), secs(7)),
        (None, secs(1)),
        (Some(secs(9_999)), secs(300)),
        (Some(Duration::MAX), secs(300)),
    ] {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1", "b:1"]));
        stage.server("b:1").set(Mode::Answer(ms(0)));
        asks(&stage, &client, asked).await;
        assert_eq!(status(&client, "a:1").word(), "backing off");
        stage.forget_served();
        tokio::time::sleep(granted - ms(2)).await;
        load(&client, 2, 20).await;
        assert_eq!(stage.server("a:1").served(), 0, "{asked:?}");
        tokio::time::sleep(ms(4)).await;
        assert_eq!(status(&client, "a:1").word(), "available", "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_is_load_and_no_failure() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    for _ in 0..10 {
        asks(&stage, &client, None).await;
        tokio::time::sleep(secs(2)).await;
    }
    let a = status(&client, "a:1");
    assert_eq!((a.failures, a.word()), (0, "available"));
}

#[tokio::test(start_paused = true)]
async fn when_all_have_asked_requests_are_refused_at_once_with_the_shortest_time() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    stage.server("a:1").set(Mode::BackOff(Some(secs(9))));
    stage.server("b:1").set(Mode::BackOff(Some(secs(4))));
    client.send(0).await.unwrap_err();
    client.send(0).await.unwrap_err();
    stage.forget_served();
    settle().await;
    let start = mainstay::clock::now();
    let reply = client.send(0).await;
    assert_eq!(
        (reason(&reply), mainstay::clock::now().saturating_duration_since(start)),
        (Some(Reason::BackingOff), ms(0))
    );
    let error = reply.unwrap_err();
    assert_eq!(Error::find(&*error).and_then(Error::retry_after), Some(secs(4)));
    assert_eq!(stage.served(), [0, 0], "panic does not override a server's own word");
    stage.server("b:1").set(Mode::Answer(ms(1)));
    tokio::time::sleep(secs(4) + ms(1)).await;
    assert_eq!(client.send(0).await.unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn a_longer_word_is_not_cut_short_by_a_shorter_one() {
    // The later of two requests that are under way at once is asked for less.
    let client = Balance::new(resolve::fixed(["a:1"]), |_: &Endpoint| {
        service_fn(|(takes, asks): (Duration, Duration)| async move {
            tokio::time::sleep(takes).await;
            Err::<(), BoxError>(Error::new(Reason::BackingOff).with_retry_after(asks).into())
        })
    });
    client.ready().await.unwrap();
    let (long, short) = tokio::join!(client.send((ms(10), secs(20))), client.send((ms(20), secs(2))));
    assert!(long.is_err() && short.is_err());
    tokio::time::sleep(secs(19)).await;
    let error = client.send((ms(0), secs(1))).await.unwrap_err();
    let error = Error::find(&*error).unwrap();
    assert_eq!((error.reason(), error.retry_after()), (Reason::BackingOff, Some(ms(990))));
}
