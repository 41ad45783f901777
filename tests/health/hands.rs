//! Drained, ejected and put back by hand.

use mainstay::{Endpoint, Reason, balance::EndpointHandle, health::Trip, resolve, telemetry::Event};

use crate::stage::*;

async fn client_of(stage: &Stage, names: &[&str], heard: &Heard) -> Client {
    let client = stage.builder(resolve::fixed(names.to_vec())).observe(heard.observer()).build().unwrap();
    client.ready().await.unwrap();
    client
}

fn hand(client: &Client, name: &str) -> EndpointHandle {
    client.endpoint(Endpoint::new(name).identity()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_drained_endpoint_gets_nothing_more_and_finishes_what_it_has() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard).await;
    stage.server("a:1").set(Mode::Answer(ms(500)));
    stage.server("b:1").set(Mode::Answer(ms(500)));
    let calls: Vec<_> = (0..4).map(|request| tokio::spawn(client.send(request))).collect();
    settle().await;
    let before = stage.server("a:1").served();
    assert!(before > 0 && hand(&client, "a:1").drain() && !hand(&client, "a:1").drain());
    assert_eq!(load(&client, 4, 40).await, 0);
    assert_eq!(stage.server("a:1").served(), before);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(status(&client, "a:1").word(), "drained");
    assert_eq!(heard.count("drained"), 1);
}

#[tokio::test(start_paused = true)]
async fn panic_does_not_use_what_was_drained() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard).await;
    hand(&client, "a:1").drain();
    hand(&client, "b:1").drain();
    assert_eq!(reason(&client.send(0).await), Some(Reason::NoEndpoint));
    assert_eq!(stage.served(), [0, 0]);
    assert!(hand(&client, "b:1").restore());
    assert_eq!(client.send(0).await.unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn what_was_drained_stays_so_over_new_resolutions_and_short_absences() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage.client(channel);
    client.ready().await.unwrap();
    hand(&client, "a:1").drain();
    feed.set([Endpoint::new("b:1")]);
    settle().await;
    assert!(client.endpoint(Endpoint::new("a:1").identity()).is_none());
    tokio::time::sleep(secs(30)).await;
    feed.set([Endpoint::new("a:1").with_weight(2.0), Endpoint::new("b:1")]);
    settle().await;
    assert_eq!(status(&client, "a:1").word(), "drained");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_ejected_by_hand_comes_back_as_others_do() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard).await;
    assert!(hand(&client, "a:1").eject(Some(secs(7))));
    let lasts = heard.all().into_iter().find_map(|event| match event {
        Event::Ejected { why: Trip::ByHand, lasts, .. } => Some(lasts),
        _ => None,
    });
    assert_eq!(lasts, Some(secs(7)));
    load(&client, 4, 40).await;
    assert_eq!(stage.server("a:1").served(), 0);
    tokio::time::sleep(secs(7)).await;
    assert_eq!(status(&client, "a:1").word(), "probation");
    tokio::time::sleep(secs(30) + ms(1)).await;
    assert!(status(&client, "a:1").is_available());
}

#[tokio::test(start_paused = true)]
async fn ejecting_the_last_one_by_hand_is_panic_and_loses_no_request() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1"], &heard).await;
    hand(&client, "a:1").eject(None);
    assert_eq!(status(&client, "a:1").word(), "ejected");
    assert_eq!(client.send(0).await.unwrap(), "a:1");
}

#[tokio::test(start_paused = true)]
async fn restoring_ends_an_ejection_and_what_was_asked_for_and_begins_the_ramp() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1"], &heard).await;
    assert!(!hand(&client, "a:1").restore(), "nothing keeps it out");
    eject(&stage, &client, "a:1").await;
    assert!(hand(&client, "a:1").restore());
    settle().await;
    let back = status(&client, "a:1");
    assert!(back.is_available() && back.ramp < 0.2, "{back:?}");
    stage.server("a:1").set(Mode::BackOff(Some(secs(60))));
    while status(&client, "a:1").is_available() {
        let _ = client.send(0).await;
    }
    assert!(hand(&client, "a:1").restore());
    assert!(status(&client, "a:1").is_available());
    assert_eq!(heard.count("restored_by_hand"), 2);
}

#[tokio::test(start_paused = true)]
async fn each_state_says_since_when_and_what_comes_next() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard).await;
    tokio::time::sleep(secs(3)).await;
    hand(&client, "a:1").drain();
    hand(&client, "b:1").eject(Some(secs(4)));
    let at = now();
    tokio::time::sleep(secs(1)).await;
    let (a, b) = (status(&client, "a:1"), status(&client, "b:1"));
    assert_eq!((a.since, a.state.until()), (at.into_std(), None));
    assert_eq!((b.since, b.state.until()), (at.into_std(), Some((at + secs(4)).into_std())));
    assert_eq!(
        b.explain(mainstay::clock::now()),
        "ejected for 1s: by hand; in 3s: the next request that may be repeated is offered to it"
    );
    assert_eq!(a.explain(mainstay::clock::now()), "drained for 1s: returns when it is restored by hand");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_only_endpoint_is_drained_is_not_ready_until_it_is_back() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1"], &heard).await;
    hand(&client, "a:1").drain();
    settle().await;
    assert!(tokio::time::timeout(secs(60), client.ready()).await.is_err());
    hand(&client, "a:1").restore();
    client.ready().await.unwrap();
}
