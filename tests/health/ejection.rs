//! When endpoints are set aside, and how they come back without being asked.

use std::time::Duration;

use mainstay::{
    Endpoint,
    balance::{Load, Panic},
    health::{State, Trip},
    resolve,
    telemetry::Event,
};

use crate::stage::*;

/// A client whose picks do not shun failures by themselves, so that every endpoint goes on being tried.
fn client_of(stage: &Stage, names: &[&str], heard: &Heard) -> Client {
    stage
        .builder(resolve::fixed(names.to_vec()))
        .options(options(|options| options.load = Load::InFlight))
        .observe(heard.observer())
        .build()
        .unwrap()
}

fn ejections(heard: &Heard) -> Vec<(String, Trip, Duration)> {
    let ejected = |event: Event| match event {
        Event::Ejected { endpoint, why, lasts } => Some((endpoint.to_string(), why, lasts)),
        _ => None,
    };
    heard.all().into_iter().filter_map(ejected).collect()
}

/// Sends until `a:1` has been given `sequence`: true is an answer. All others answer.
async fn give(stage: &Stage, client: &Client, sequence: impl IntoIterator<Item = bool>) {
    let a = stage.server("a:1");
    for good in sequence {
        a.set(if good { Mode::Answer(ms(0)) } else { Mode::Fail(ms(0)) });
        let before = a.served();
        for _ in 0..10_000 {
            let _ = client.send(0).await;
            if a.served() > before || status(client, "a:1").word() != "available" {
                break;
            }
        }
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_and_four_do_not() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    give(&stage, &client, [false; 4]).await;
    assert_eq!(status(&client, "a:1").word(), "available");
    give(&stage, &client, [false]).await;
    assert_eq!(status(&client, "a:1").word(), "ejected");
    assert_eq!(ejections(&heard)[0].1, Trip::Consecutive);
}

#[tokio::test(start_paused = true)]
async fn six_failures_of_the_last_twenty_eject() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    give(&stage, &client, (0..200).map(|_| true)).await; // the rate stays high
    give(&stage, &client, (0..15).map(|number| number % 3 != 0)).await;
    assert_eq!(status(&client, "a:1").word(), "available", "five of fifteen");
    give(&stage, &client, [false]).await;
    assert_eq!(ejections(&heard)[0].1, Trip::Count);
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_under_four_fifths_ejects() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    give(&stage, &client, (0..20).map(|number| number % 4 != 3)).await;
    assert_eq!(ejections(&heard).first().map(|ejection| ejection.1), Some(Trip::Rate));
}

#[tokio::test(start_paused = true)]
async fn judgements_take_half_of_the_endpoints_rounded_up_and_no_more() {
    for (names, most) in
        [(&["a:1", "b:1"][..], 1), (&["a:1", "b:1", "c:1"], 2), (&["a:1", "b:1", "c:1", "d:1"], 2)]
    {
        let (stage, heard) = (Stage::default(), Heard::default());
        let client = client_of(&stage, names, &heard);
        // Every third request fails everywhere: never five in a row.
        for round in 0..600 {
            for name in names {
                let server = stage.server(name);
                server.set(if server.served() % 3 == 2 { Mode::Fail(ms(0)) } else { Mode::Answer(ms(0)) });
            }
            let _ = client.send(round).await;
        }
        let out = client.status().endpoints.iter().filter(|endpoint| !endpoint.is_available()).count();
        assert_eq!(out, most, "of {}", names.len());
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_no_cap_for_endpoints_that_fail_every_time() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let names = ["a:1", "b:1", "c:1", "d:1"];
    let client = client_of(&stage, &names, &heard);
    for name in &names[..3] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    load(&client, 8, 200).await;
    let out = client.status().endpoints.iter().filter(|endpoint| !endpoint.is_available()).count();
    assert_eq!(out, 3);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_cannot_be_connected_take_no_room_of_the_cap() {
    let (stage, heard) = (Stage::default(), Heard::default());
    stage.server("c:1").refuse_dials(true);
    stage.server("d:1").refuse_dials(true);
    let client = stage
        .dialing(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]))
        .options(options(|options| options.load = Load::InFlight))
        .observe(heard.observer())
        .build()
        .unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(secs(5)).await;
    assert!(!status(&client, "c:1").is_available() && !status(&client, "d:1").is_available());
    give(&stage, &client, (0..20).map(|number| number % 3 != 2)).await;
    assert_eq!(status(&client, "a:1").word(), "ejected", "two of four are away, and none was judged");
    assert!(ejections(&heard)[0].1.is_judgement());
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_never_ejected() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1"], &heard);
    stage.server("a:1").set(Mode::Fail(ms(1)));
    assert_eq!(load(&client, 5, 100).await, 100);
    assert!(ejections(&heard).is_empty() && status(&client, "a:1").is_available());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_nobody_asks_returns_by_timers_alone_and_ramps() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    give(&stage, &client, [false; 5]).await;
    let lasts = ejections(&heard)[0].2;
    tokio::time::sleep(lasts + ms(2)).await;
    assert_eq!(status(&client, "a:1").word(), "probation");
    tokio::time::sleep(secs(30)).await;
    let back = status(&client, "a:1");
    assert_eq!(back.word(), "available");
    assert!((back.ramp - 0.1).abs() < 0.01, "{}", back.ramp);
    assert!(heard.all().iter().any(|event| matches!(event, Event::Restored { proven: false, .. })));
}

#[tokio::test(start_paused = true)]
async fn ejections_double_with_equal_jitter_up_to_five_minutes() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    for _ in 0..9 {
        give(&stage, &client, [false; 5]).await;
        let lasts = ejections(&heard).last().unwrap().2;
        tokio::time::sleep(lasts + secs(30) + ms(5)).await;
        assert_eq!(status(&client, "a:1").word(), "available");
    }
    for (number, (_, _, lasts)) in ejections(&heard).iter().enumerate() {
        let full = (secs(5) * 2_u32.pow(number as u32)).min(secs(300));
        assert!(*lasts >= full / 2 && *lasts <= full, "{number}: {lasts:?} of {full:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_healthy_is_forgiven() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    for _ in 0..4 {
        give(&stage, &client, [false; 5]).await;
        tokio::time::sleep(ejections(&heard).last().unwrap().2 + secs(31)).await;
    }
    tokio::time::sleep(secs(3_600)).await;
    give(&stage, &client, [false; 5]).await;
    let lasts = ejections(&heard).last().unwrap().2;
    assert!(lasts <= secs(5), "{lasts:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_to_requests_from_before_the_ejection_say_nothing_after_it() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
        .options(options(|options| {
            options.load = Load::InFlight;
            options.attempt_limit = None;
        }))
        .observe(heard.observer())
        .build()
        .unwrap();
    client.ready().await.unwrap();
    stage.server("a:1").set(Mode::Fail(secs(60)));
    let stragglers: Vec<_> = (0..30).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    give(&stage, &client, [false; 5]).await;
    tokio::time::sleep(secs(45)).await;
    assert_eq!(status(&client, "a:1").word(), "available");
    for straggler in stragglers {
        let _ = straggler.await.unwrap();
    }
    assert_eq!(status(&client, "a:1").word(), "available");
    assert_eq!(ejections(&heard).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_health_ejects_nothing() {
    let stage = Stage::default();
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
        .options(options(|options| options.health.enabled = false))
        .build()
        .unwrap();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    load(&client, 5, 100).await;
    assert!(client.status().endpoints.iter().all(|endpoint| endpoint.state == State::Available));
}

#[tokio::test(start_paused = true)]
async fn with_everything_ejected_fail_open_still_tries() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    load(&client, 5, 100).await;
    assert!(client.status().endpoints.iter().all(|endpoint| !endpoint.is_available()));
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(1)));
    }
    assert_eq!(client.options().panic, Panic::FailOpen);
    client.send(0).await.unwrap();
}

/// C87 of what is known of Envoy: its consecutive rules are one rule here, since any failure counts as one.
#[tokio::test(start_paused = true)]
async fn the_consecutive_rule_of_envoy_ejects_at_the_fifth_inline_and_a_success_between_starts_it_anew() {
    let only_in_a_row = |options: &mut mainstay::balance::BalanceOptions| {
        options.load = Load::InFlight;
        // What Envoy has beside it are rules across endpoints.
        options.health.failures = 64;
        options.health.of_last = 64;
        options.health.window_failures = 1_024;
        options.health.outliers = None;
    };
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = stage
        .builder(resolve::fixed(["a:1", "b:1", "c:1"]))
        .options(options(only_in_a_row))
        .observe(heard.observer())
        .build()
        .unwrap();
    // Four, a success, and four again.
    give(&stage, &client, (0..9).map(|number| number == 4)).await;
    assert_eq!((status(&client, "a:1").word(), heard.count("ejected")), ("available", 0));
    // The fifth: at once, with no timer.
    let before = now();
    give(&stage, &client, [false]).await;
    assert_eq!(status(&client, "a:1").word(), "ejected");
    assert!(now() - before < ms(200), "as soon as it was picked");
    assert_eq!(ejections(&heard)[0].1, Trip::Consecutive);
}

#[tokio::test(start_paused = true)]
async fn failures_of_different_kinds_are_one_row() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    let a = stage.server("a:1");
    // Of four kinds of which Envoy counts some apart: here the fifth of any kind ejects.
    let kinds = [Mode::Unsent, Mode::Fail(ms(0)), Mode::Unsent, Mode::Hang, Mode::Fail(ms(0))];
    for (nth, kind) in (1..).zip(kinds) {
        a.set(kind);
        let before = a.served();
        while a.served() == before {
            let _ = client.send(0).await;
        }
        assert_eq!(status(&client, "a:1").word() == "ejected", nth == 5, "after {nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_health_is_switched_off_who_is_out_comes_back() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &["a:1", "b:1", "c:1"], &heard);
    eject(&stage, &client, "a:1").await;
    client.endpoint(Endpoint::new("b:1").identity()).unwrap().eject(None);
    client.update(options(|options| options.health.enabled = false)).unwrap();
    settle().await;
    assert_eq!(["a:1", "b:1"].map(|name| status(&client, name).word()), ["available", "ejected"]);
}
