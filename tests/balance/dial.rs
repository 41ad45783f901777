//! Connections that are made ahead of requests.

use mainstay::{Endpoint, Reason, endpoint::Reported, resolve, telemetry::Event};

use crate::stage::*;

#[tokio::test(start_paused = true)]
async fn a_request_is_given_only_to_a_connection_that_stands() {
    let stage = Stage::default();
    stage.server("a:1").refuse_dials(true);
    let client = stage.dialing(resolve::fixed(["a:1", "b:1"])).build().unwrap();
    assert_eq!(load(&client, 10, 1_000).await, 0);
    assert_eq!(stage.server("a:1").served(), 0);
    assert_eq!(status(&client, "a:1").word(), "not connected");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_first_connection_instead_of_failing_with_a_dial() {
    let stage = Stage::default();
    stage.server("a:1").refuse_dials(true);
    let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(10)).await;
    assert!(!waiting.is_finished());
    stage.server("a:1").refuse_dials(false);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_waits_between_dials_grow_and_stay_within_their_range() {
    let stage = Stage::default();
    stage.server("a:1").refuse_dials(true);
    let heard = Heard::default();
    let client = stage.dialing(resolve::fixed(["a:1"])).observe(heard.observer()).build().unwrap();
    let _waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(3_600)).await;
    let waits: Vec<_> = heard
        .all()
        .iter()
        .filter_map(|event| match event {
            Event::Disconnected { redial, .. } => Some(*redial),
            _ => None,
        })
        .collect();
    for (number, wait) in waits.iter().enumerate() {
        assert!(*wait <= (ms(100) * 2_u32.pow(number.min(12) as u32)).min(secs(30)), "{number}: {wait:?}");
    }
    let late: f64 =
        waits[10..].iter().map(std::time::Duration::as_secs_f64).sum::<f64>() / (waits.len() - 10) as f64;
    assert!((late - 15.0).abs() < 4.0, "full jitter below 30 s: {late}");
    assert!(
        waits[10..].iter().any(|wait| *wait < secs(10)) && waits[10..].iter().any(|wait| *wait > secs(20))
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_as_soon_as_it_stands_is_made_less_and_less_often() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Unsent);
    let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
    let until = crate::stage::now() + secs(60);
    while crate::stage::now() < until {
        client.send(0).await.unwrap_err();
        settle().await;
    }
    assert!(stage.server("a:1").made() < 30, "{}", stage.server("a:1").made());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_is_cut_off_after_a_second() {
    let stage = Stage::default();
    stage.server("a:1").hang_dials(true);
    let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(999)).await;
    assert_eq!(status(&client, "a:1").cause, None);
    tokio::time::sleep(ms(2)).await;
    assert!(status(&client, "a:1").cause.unwrap().contains("after 1s"));
    stage.server("a:1").hang_dials(false);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_found_gone_is_made_anew() {
    let stage = Stage::default();
    let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
    client.send(0).await.unwrap();
    assert_eq!(stage.server("a:1").made(), 1);
    stage.server("a:1").set(Mode::Unsent);
    client.send(0).await.unwrap_err();
    settle().await;
    assert_eq!(status(&client, "a:1").word(), "not connected");
    stage.server("a:1").set(Mode::Answer(ms(1)));
    client.send(0).await.unwrap();
    assert_eq!(stage.server("a:1").made(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_requests_that_find_one_connection_gone_lead_to_one_new_one() {
    let stage = Stage::default();
    let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
    client.send(0).await.unwrap();
    stage.server("a:1").set(Mode::Unsent);
    for reply in futures::future::join_all((0..20).map(|_| client.send(0))).await {
        assert_eq!(reason(&reply), Some(Reason::Connect));
    }
    settle().await;
    stage.server("a:1").set(Mode::Answer(ms(1)));
    client.send(0).await.unwrap();
    assert_eq!(stage.server("a:1").made(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_dials_are_under_way_than_allowed_and_all_are_made() {
    let stage = Stage::default();
    let names: Vec<String> = (0..50).map(|index| format!("{index}:1")).collect();
    for name in &names {
        stage.server(name).hang_dials(true);
    }
    let client = stage
        .dialing(resolve::fixed(names.clone()))
        .options(options(|options| options.dials = 4))
        .build()
        .unwrap();
    let _waiting = tokio::spawn(client.send(0));
    settle().await;
    let tried = || names.iter().filter(|name| stage.server(name).made() > 0).count();
    assert_eq!(tried(), 4);
    for name in &names {
        stage.server(name).hang_dials(false);
    }
    tokio::time::sleep(secs(2)).await;
    assert_eq!(tried(), 50);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_cannot_be_connected_do_not_count_as_those_that_stay() {
    let stage = Stage::default();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).refuse_dials(true);
    }
    let client = stage.dialing(resolve::fixed(["a:1", "b:1", "c:1", "d:1"])).build().unwrap();
    client.send(0).await.unwrap();
    // One of three fails: a judgement, and there is nobody else.
    for round in 0..60 {
        stage.server("d:1").set(if round % 3 == 0 { Mode::Fail(ms(1)) } else { Mode::Answer(ms(1)) });
        let _ = client.send(0).await;
    }
    assert_eq!(status(&client, "d:1").word(), "available");
}

/// Thirty endpoints that are all connected, and then all gone.
async fn thirty_are_lost(spread: std::time::Duration) -> (Stage, Client) {
    let stage = Stage::default();
    let names: Vec<_> = (0..30).map(|number| format!("e{number}:1")).collect();
    let endpoints: Vec<_> = names.iter().map(|name| mainstay::Endpoint::new(name.as_str())).collect();
    let options = options(|options| options.redial_spread = spread);
    let client = stage.dialing(resolve::fixed(endpoints)).options(options).build().unwrap();
    load(&client, 10, 500).await;
    for name in &names {
        stage.server(name).refuse_dials(true);
        stage.server(name).gate(Gate::Broken);
    }
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(20)).await;
    waiting.abort();
    (stage, client)
}

fn dials(stage: &Stage) -> usize {
    (0..30).map(|number| stage.server(&format!("e{number}:1")).made()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_lost_its_fleet_knocks_as_one() {
    // The first connections, some twenty in the first second, and one each second from then on.
    let (stage, _client) = thirty_are_lost(secs(30)).await;
    let made = dials(&stage);
    assert!((30 + 15..=30 + 50).contains(&made), "{made}");
    let (stage, _client) = thirty_are_lost(secs(0)).await;
    assert!(dials(&stage) > 150, "each for itself: {}", dials(&stage));
}

#[tokio::test(start_paused = true)]
async fn one_connection_is_enough_to_go_on_with_and_the_others_follow() {
    let (stage, client) = thirty_are_lost(secs(30)).await;
    for number in 0..30 {
        stage.server(&format!("e{number}:1")).refuse_dials(false);
        stage.server(&format!("e{number}:1")).gate(Gate::Open);
    }
    let start = now();
    client.send(0).await.unwrap();
    assert!(start.elapsed() <= secs(3), "{:?}", start.elapsed());
    // Who is accepted at once is followed by the others at once, but for those whose own backoff is longer.
    tokio::time::sleep(secs(31)).await;
    assert!(client.status().endpoints.iter().all(|endpoint| endpoint.connected));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_for_a_moment_does_not_wait_for_those_that_are_gone_for_good() {
    let (stage, client) = thirty_are_lost(secs(30)).await;
    let blinks = stage.server("e0:1");
    blinks.refuse_dials(false);
    blinks.gate(Gate::Open);
    tokio::time::sleep(secs(300)).await;
    client.send(0).await.unwrap();
    blinks.gate(Gate::Broken);
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(200)).await;
    let start = now();
    blinks.gate(Gate::Open);
    waiting.await.unwrap().unwrap();
    assert!(start.elapsed() <= secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_removed_while_it_waits_for_its_turn_takes_none() {
    let stage = Stage::default();
    let names: Vec<_> = (0..30).map(|number| format!("e{number}:1")).collect();
    let (feed, channel) = mainstay::resolve::channel();
    feed.set(names.iter().map(|name| mainstay::Endpoint::new(name.as_str())));
    let client = stage.dialing(channel).build().unwrap();
    load(&client, 10, 500).await;
    for name in &names {
        stage.server(name).refuse_dials(true);
        stage.server(name).gate(Gate::Broken);
    }
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(1)).await;
    feed.set(["new:1"]);
    settle().await;
    waiting.await.unwrap().unwrap();
    let before = dials(&stage);
    tokio::time::sleep(secs(120)).await;
    assert_eq!(dials(&stage), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_connected_for_the_first_time_is_waited_for_beside_one_that_may_not_be_used() {
    let stage = Stage::default();
    let draining = Endpoint::new("a:1").with_reported(Reported::Draining);
    let one_by_one = options(|options| options.dials = 1);
    let set = [draining, Endpoint::new("b:1")];
    let client = stage.dialing(resolve::fixed(set)).options(one_by_one).build().unwrap();
    assert_eq!(client.send(0).await.unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn a_dial_from_before_an_absence_says_nothing_after_it() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage.dialing(channel).observe(heard.observer()).build().unwrap();
    let a = stage.server("a:1");
    a.hang_dials(true);
    client.ready().await.unwrap();
    feed.set(["b:1"]);
    settle().await;
    a.hang_dials(false);
    feed.set(["a:1", "b:1"]);
    tokio::time::sleep(secs(5)).await;
    assert_eq!((a.made(), heard.count("disconnected")), (2, 0));
    assert!(status(&client, "a:1").is_available());
}
