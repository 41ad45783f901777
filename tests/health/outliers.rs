//! Endpoints that are worse than the others.

use std::time::Duration;

use mainstay::{
    balance::Load,
    health::{
        HealthOptions, Trip,
        outlier::{Grpc, Outliers},
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
