//! Who gets how much.

use mainstay::{
    Endpoint,
    balance::Load,
    random::Seeded,
    resolve::{self, Resolution},
};

use crate::stage::*;

fn shares(stage: &Stage) -> Vec<f64> {
    let served = stage.served();
    let total: usize = served.iter().sum();
    served.iter().map(|served| *served as f64 / total as f64).collect()
}

#[tokio::test(start_paused = true)]
async fn of_two_endpoints_the_busier_one_gets_nothing() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Hang);
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    assert_eq!(stage.served(), [1, 1], "two requests, one each");
    held[0].abort();
    settle().await;
    let idle = if stage.server("a:1").active() == 0 { "a:1" } else { "b:1" };
    stage.server(idle).set(Mode::Answer(ms(0)));
    for _ in 0..100 {
        assert_eq!(client.send(0).await.unwrap(), idle);
    }
}

#[tokio::test(start_paused = true)]
async fn equal_endpoints_get_equal_shares() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]));
    assert_eq!(load(&client, 40, 8_000).await, 0);
    for share in shares(&stage) {
        assert!((share - 0.25).abs() < 0.02, "{:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clones_are_as_fair_as_one() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]));
    client.send(0).await.unwrap();
    let clones: Vec<_> = (0..1_000).map(|_| client.clone()).collect();
    for _ in 0..4 {
        futures::future::join_all(clones.iter().map(|clone| clone.send(0))).await;
    }
    for share in shares(&stage) {
        assert!((share - 0.25).abs() < 0.02, "{:?}", stage.served());
    }
}

/// The share that the first of these endpoints gets, with so many requests at a time, and the one that it should get.
async fn weighted(weights: &[f64], concurrency: usize) -> (f64, f64) {
    let stage = Stage::default();
    let names: Vec<String> = (0..weights.len()).map(|index| format!("{index:02}:1")).collect();
    let endpoints =
        names.iter().zip(weights).map(|(name, weight)| Endpoint::new(&**name).with_weight(*weight));
    names.iter().for_each(|name| stage.server(name).set(Mode::Vary));
    let client = stage.client(resolve::fixed(endpoints.collect::<Vec<_>>()));
    assert_eq!(load(&client, concurrency, 30_000).await, 0);
    (shares(&stage)[0], weights[0] / weights.iter().sum::<f64>())
}

#[tokio::test(start_paused = true)]
async fn unequal_weights_are_kept_within_two_points_from_five_in_flight_on() {
    for weights in [&[1.0, 2.0][..], &[3.0, 1.0], &[1.0, 10.0], &[1.0, 1.0, 1.0, 5.0], &[5.0, 1.0, 1.0, 1.0]]
    {
        for per_endpoint in [5, 20] {
            let (got, owed) = weighted(weights, per_endpoint * weights.len()).await;
            assert!((got - owed).abs() <= 0.02, "{weights:?} x {per_endpoint}: {got:.3} for {owed:.3}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unequal_weights_are_kept_within_five_points_below() {
    for weights in [&[1.0, 2.0][..], &[3.0, 1.0], &[1.0, 10.0], &[1.0, 1.0, 1.0, 5.0], &[5.0, 1.0, 1.0, 1.0]]
    {
        for concurrency in [1, 2, 4, 8] {
            let (got, owed) = weighted(weights, concurrency).await;
            assert!((got - owed).abs() <= 0.05, "{weights:?} x {concurrency}: {got:.3} for {owed:.3}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_and_the_smallest_weights_can_be_balanced_by() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed([
        Endpoint::new("a:1").with_weight(f64::MAX),
        Endpoint::new("b:1").with_weight(f64::MAX),
        Endpoint::new("c:1").with_weight(f64::MIN_POSITIVE),
    ]));
    assert_eq!(load(&client, 20, 2_000).await, 0);
    let served = stage.served();
    assert!(served[0] > 900 && served[1] > 900, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_weight_that_is_no_weight_keeps_the_last_good_set() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    client.send(0).await.unwrap();
    feed.send(Resolution::bound([Endpoint::new("b:1").with_weight(0.0)]));
    settle().await;
    assert_eq!(client.send(0).await.unwrap(), "a:1");
    assert!(client.status().resolution_failure.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_does_not_attract_traffic() {
    let stage = Stage::default();
    let options = options(|options| options.health.enabled = false);
    let client =
        stage.builder(resolve::fixed(["a:1", "b:1", "c:1", "d:1"])).options(options).build().unwrap();
    for name in ["b:1", "c:1", "d:1"] {
        stage.server(name).set(Mode::Answer(ms(50)));
    }
    stage.server("a:1").set(Mode::Fail(ms(1)));
    load(&client, 20, 4_000).await;
    assert!(shares(&stage)[0] < 0.25, "{:?}", stage.served());
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_loses_traffic_but_not_all_of_it_and_gets_it_back() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]));
    load(&client, 20, 2_000).await;
    stage.server("a:1").set(Mode::Answer(ms(100)));
    load(&client, 20, 2_000).await;
    stage.forget_served();
    load(&client, 20, 8_000).await;
    let slow = shares(&stage)[0];
    assert!(slow > 0.002 && slow < 0.12, "{slow}");
    stage.server("a:1").set(Mode::Answer(ms(10)));
    load(&client, 20, 60_000).await;
    stage.forget_served();
    load(&client, 20, 8_000).await;
    let back = shares(&stage)[0];
    assert!((back - 0.25).abs() < 0.03, "{back}");
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_ramps_up_from_a_tenth_of_its_share() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1", "c:1"]);
    let options = options(|options| options.load = Load::InFlight);
    let client = stage.builder(channel).options(options).build().unwrap();
    load(&client, 40, 400).await;
    feed.set(["a:1", "b:1", "c:1", "d:1"]);
    settle().await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        stage.forget_served();
        let until = crate::stage::now() + secs(1);
        while crate::stage::now() < until {
            load(&client, 40, 400).await;
        }
        seen.push(shares(&stage)[3]);
    }
    for (second, share) in seen.iter().enumerate() {
        let ramp = (0.1 + 0.9 * (second as f64 + 0.5) / 10.0).min(1.0);
        let owed = ramp / (3.0 + ramp);
        assert!((share - owed).abs() < 0.03, "second {second}: {share:.3} for {owed:.3} of {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_ramps_where_everybody_is_new() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage.client(channel);
    client.ready().await.unwrap();
    assert!(client.status().endpoints.iter().all(|endpoint| endpoint.ramp == 1.0));
    feed.set(["c:1", "d:1"]);
    settle().await;
    assert!(client.status().endpoints.iter().all(|endpoint| endpoint.ramp == 1.0), "a whole new set");
    feed.set(["c:1", "d:1", "e:1"]);
    settle().await;
    assert!((status(&client, "e:1").ramp - 0.1).abs() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_a_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stage = Stage::default();
        let names: Vec<String> = (0..20).map(|index| format!("{index:02}:1")).collect();
        let client = stage.builder(resolve::fixed(names)).random(Seeded::new(3)).build().unwrap();
        load(&client, 5, 500).await;
        runs.push(stage.served());
    }
    assert_eq!(runs[0], runs[1]);
}
