//! Endpoints that are worse than the others.

use std::time::Duration;

use mainstay::{
    balance::Load,
    health::{
        HealthOptions, Trip,
        outlier::{Grpc, LatencyRule, Outliers},
    },
    resolve,
    telemetry::Event,
};

use crate::stage::*;

const NAMES: [&str; 10] = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1", "i:1", "j:1"];

fn client_of(stage: &Stage, heard: &Heard, change: impl FnOnce(&mut HealthOptions)) -> Client {
    stage
        .builder(resolve::fixed(NAMES))
        .options(options(|options| {
            options.load = Load::InFlight;
            change(&mut options.health);
        }))
        .random(mainstay::random::Seeded::new(7))
        .observe(heard.observer())
        .build()
        .unwrap()
}

/// Sends so many requests, all at once; the first `bad` endpoints fail every tenth of theirs.
async fn give(stage: &Stage, client: &Client, bad: usize, requests: usize) {
    for name in NAMES {
        stage.server(name).set(Mode::Answer(ms(0)));
    }
    for request in 0..requests {
        for name in &NAMES[..bad] {
            let server = stage.server(name);
            server.set(if server.served() % 10 == 9 { Mode::Fail(ms(0)) } else { Mode::Answer(ms(0)) });
        }
        let _ = client.send(request as u32).await;
    }
}

fn out(client: &Client) -> Vec<String> {
    let endpoints = client.status().endpoints;
    let out = endpoints.iter().filter(|endpoint| !endpoint.is_available());
    out.map(|endpoint| endpoint.name.to_string()).collect()
}

fn ejections(heard: &Heard) -> Vec<(String, Trip, Duration)> {
    let ejected = |event: Event| match event {
        Event::Ejected { endpoint, why, lasts } => Some((endpoint.to_string(), why, lasts)),
        _ => None,
    };
    heard.all().into_iter().filter_map(ejected).collect()
}

#[tokio::test(start_paused = true)]
async fn three_of_ten_that_fail_a_tenth_go_at_the_end_of_the_interval_and_the_event_says_the_numbers() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |_| {});
    give(&stage, &client, 3, 8_000).await;
    assert_eq!(out(&client), [""; 0], "no rule that looks at one endpoint alone sees them");
    tokio::time::sleep(secs(10) + ms(1)).await;
    assert_eq!(out(&client), ["a:1", "b:1", "c:1"]);
    for (_, why, _) in ejections(&heard) {
        let Trip::SuccessRate(share) = why else { panic!("{why}") };
        assert!(share.requests() > 600 && share.failures() * 10 <= share.requests() + 10, "{share}");
        assert_eq!(share.limit(), 0.02);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outlier_comes_back_as_others_do_and_its_past_is_not_held_against_it() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |_| {});
    give(&stage, &client, 1, 8_000).await;
    tokio::time::sleep(secs(10) + ms(1)).await;
    assert_eq!(status(&client, "a:1").word(), "ejected");
    tokio::time::sleep(ejections(&heard)[0].2).await;
    assert_eq!(status(&client, "a:1").word(), "probation");
    tokio::time::sleep(secs(31)).await;
    assert_eq!(status(&client, "a:1").word(), "available");
    give(&stage, &client, 0, 3_000).await;
    tokio::time::sleep(secs(20)).await;
    assert_eq!(ejections(&heard).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn comparison_takes_no_more_than_the_cap_however_many_are_bad() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |health| {
        // No rule that looks at one endpoint alone.
        (health.consecutive, health.failures, health.of_last) = (64, 64, 64);
        health.window_failures = 1_024;
    });
    for request in 0..3_000 {
        for name in &NAMES[..7] {
            let server = stage.server(name);
            server.set(if server.served() % 10 == 9 { Mode::Answer(ms(0)) } else { Mode::Fail(ms(0)) });
        }
        let _ = client.send(request).await;
    }
    assert_eq!(out(&client), [""; 0]);
    tokio::time::sleep(secs(10) + ms(1)).await;
    assert_eq!(out(&client).len(), 5, "half of ten: {:?}", ejections(&heard));
    assert!(ejections(&heard).iter().all(|(_, why, _)| why.is_outlier()));
}

#[tokio::test(start_paused = true)]
async fn what_an_endpoint_did_in_the_interval_before_it_was_set_aside_and_let_back_is_not_compared() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |_| {});
    give(&stage, &client, 1, 8_000).await;
    let hand = client.endpoint(mainstay::Endpoint::new("a:1").identity()).unwrap();
    assert!(hand.eject(None) && hand.restore());
    give(&stage, &client, 0, 1_000).await;
    tokio::time::sleep(secs(10) + ms(1)).await;
    assert_eq!(out(&client), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_goes_on_until_enough_is_known() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |health| {
        if let Some(Outliers::Robust(rules)) = &mut health.outliers {
            rules.requests = 500;
        }
    });
    for round in 0..3 {
        assert_eq!(out(&client), [""; 0], "after {round}");
        give(&stage, &client, 1, 2_000).await;
        tokio::time::sleep(secs(10) + ms(1)).await;
    }
    assert_eq!(out(&client), ["a:1"], "600 of each in three intervals");
}

#[tokio::test(start_paused = true)]
async fn after_the_longest_interval_counting_begins_anew() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |health| {
        if let Some(Outliers::Robust(rules)) = &mut health.outliers {
            rules.requests = 500;
        }
    });
    give(&stage, &client, 1, 4_000).await;
    tokio::time::sleep(secs(310)).await;
    give(&stage, &client, 1, 4_000).await;
    tokio::time::sleep(secs(11)).await;
    assert_eq!(out(&client), [""; 0], "400 of each, twice");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_compared_where_that_is_switched_off_and_who_is_out_by_it_comes_back() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |_| {});
    give(&stage, &client, 2, 8_000).await;
    tokio::time::sleep(secs(10) + ms(1)).await;
    assert_eq!(out(&client), ["a:1", "b:1"]);
    let mut without = client.options();
    without.health.outliers = None;
    client.update(without).unwrap();
    settle().await;
    assert_eq!(out(&client), [""; 0]);
    give(&stage, &client, 2, 8_000).await;
    tokio::time::sleep(secs(20)).await;
    assert_eq!(out(&client), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn grpcs_rules_act_with_their_own_numbers() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = client_of(&stage, &heard, |health| health.outliers = Some(Outliers::Grpc(Grpc::default())));
    give(&stage, &client, 2, 8_000).await;
    tokio::time::sleep(secs(10) + ms(1)).await;
    let ejections = ejections(&heard);
    assert_eq!(ejections.len(), 1, "a tenth of ten, though two are bad: {ejections:?}");
    assert_eq!(ejections[0].2, secs(30), "without jitter");
    assert_eq!(status(&client, &ejections[0].0).word(), "ejected");
    tokio::time::sleep(secs(30)).await;
    assert_eq!(status(&client, &ejections[0].0).word(), "probation");
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_become_enough_are_compared_by_what_they_show_from_then_on() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let (feed, channel) = fed(["a:1", "b:1", "c:1", "d:1"]);
    let options = options(|options| options.load = Load::InFlight);
    let client = stage.builder(channel).options(options).observe(heard.observer()).build().unwrap();
    give(&stage, &client, 1, 4_000).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(out(&client), [""; 0], "four are not compared");
    feed.set(["a:1", "b:1", "c:1", "d:1", "e:1"].map(mainstay::Endpoint::new));
    tokio::time::sleep(secs(20)).await;
    give(&stage, &client, 0, 4_000).await;
    tokio::time::sleep(secs(20)).await;
    assert_eq!(out(&client), [""; 0], "what a did before does not count");
    give(&stage, &client, 1, 4_000).await;
    tokio::time::sleep(secs(20)).await;
    assert_eq!(ejections(&heard)[0].0, "a:1");
}

/// With the rule on, and the default load, so that a slow endpoint gets little; or each as much as any other.
fn watching_latency(stage: &Stage, heard: &Heard, load: Load, rule: Option<LatencyRule>) -> Client {
    stage
        .builder(resolve::fixed(NAMES))
        .options(options(|options| {
            options.load = load;
            if let Some(Outliers::Robust(rules)) = &mut options.health.outliers {
                rules.latency = rule;
            }
        }))
        .random(mainstay::random::Seeded::new(7))
        .observe(heard.observer())
        .build()
        .unwrap()
}

/// Three minutes in which so many callers send so many requests a second, one after the other; returns how many of them `a:1` was given in the last one.
async fn three_minutes(stage: &Stage, client: &Client, callers: u32, each: u32) -> usize {
    let mut before = 0;
    for second in 0..180 {
        if second == 120 {
            before = stage.server("a:1").served();
        }
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    for number in 0..each {
                        let _ = client.send(number).await;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        tokio::time::sleep(ms(500)).await;
    }
    settle().await;
    stage.server("a:1").served() - before
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_ten_times_as_long_goes_where_latency_is_compared_and_not_elsewhere() {
    for (rule, expected) in [(Some(LatencyRule::default()), 1), (None, 0)] {
        let (stage, heard) = (Stage::default(), Heard::default());
        let client = watching_latency(&stage, &heard, Load::InFlight, rule);
        NAMES.iter().for_each(|name| stage.server(name).set(Mode::Vary));
        stage.server("a:1").set(Mode::Answer(ms(100)));
        three_minutes(&stage, &client, 10, 25).await;
        let ejections = ejections(&heard);
        assert_eq!(ejections.len().min(1), expected, "{ejections:?}");
        for (name, why, _) in ejections {
            let Trip::Latency(slowness) = why else { panic!("{why}") };
            assert_eq!(name, "a:1");
            assert!(slowness.median() > ms(90) && slowness.limit() < ms(60), "{slowness}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_that_is_given_little_is_judged_by_that_little() {
    let (stage, heard) = (Stage::default(), Heard::default());
    // Never judged, so that its share shows.
    let client = watching_latency(&stage, &heard, Load::default(), None);
    NAMES.iter().for_each(|name| stage.server(name).set(Mode::Vary));
    stage.server("a:1").set(Mode::Answer(ms(45)));
    let share = three_minutes(&stage, &client, 40, 8).await;
    assert!(
        share < 600 && share > 60,
        "{share} in a minute: under 100 in ten seconds, and more than 30 in half a minute"
    );

    let (stage, heard) = (Stage::default(), Heard::default());
    let client = watching_latency(&stage, &heard, Load::default(), Some(LatencyRule::default()));
    NAMES.iter().for_each(|name| stage.server(name).set(Mode::Vary));
    stage.server("a:1").set(Mode::Answer(ms(45)));
    three_minutes(&stage, &client, 40, 8).await;
    let first = ejections(&heard).first().cloned();
    assert!(matches!(first, Some((name, Trip::Latency(_), _)) if name == "a:1"));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_as_slow_as_the_others_vary_is_left_alone_however_little_it_is_given() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let client = watching_latency(&stage, &heard, Load::default(), Some(LatencyRule::default()));
    NAMES.iter().for_each(|name| stage.server(name).set(Mode::Vary));
    // Two and a half times as long as the others usually take.
    stage.server("a:1").set(Mode::Answer(ms(25)));
    three_minutes(&stage, &client, 10, 25).await;
    assert!(ejections(&heard).is_empty(), "{:?}", ejections(&heard));
}
