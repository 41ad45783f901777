//! Which priorities and zones get how much.

use mainstay::{
    Endpoint, Ratio,
    balance::{Localities, Panic, PriorityStatus},
    endpoint::Locality,
    resolve,
    telemetry::Event,
};

use crate::stage::*;

/// So many endpoints of each priority, named by it.
fn levels(counts: &[usize]) -> Vec<Endpoint> {
    let level = |(priority, count): (usize, &usize)| {
        (0..*count).map(move |number| {
            Endpoint::new(format!("p{priority}-{number:02}:1")).with_priority(priority as u32)
        })
    };
    counts.iter().enumerate().flat_map(level).collect()
}

/// So many endpoints in each zone of these, named by it.
fn zones(zones: &[(&str, &str, usize)]) -> Vec<Endpoint> {
    let zone = |(region, zone, count): &(&str, &str, usize)| {
        let (region, zone) = ((*region).to_owned(), (*zone).to_owned());
        (0..*count).map(move |number| {
            Endpoint::new(format!("{region}-{zone}-{number:02}:1")).with_locality(&region, &zone, "")
        })
    };
    zones.iter().flat_map(zone).collect()
}

/// The share of what was served by those whose name begins so.
fn share(stage: &Stage, names: &[Endpoint], prefix: &str) -> f64 {
    let served = |endpoint: &Endpoint| {
        let name = endpoint.address().to_string();
        (stage.server(&name).served(), name.starts_with(prefix))
    };
    let all: Vec<_> = names.iter().map(served).collect();
    let total: usize = all.iter().map(|(served, _)| served).sum();
    let own: usize = all.iter().filter(|(_, is)| *is).map(|(served, _)| served).sum();
    own as f64 / total as f64
}

fn of(client: &Client, priority: u32) -> PriorityStatus {
    let status = client.status();
    let found = status.priorities.iter().find(|level| level.priority == priority);
    found.unwrap_or_else(|| panic!("no priority {priority} in {status:?}")).clone()
}

/// A client whose endpoints can be taken out by refusing connections, and put in again.
async fn dialled(stage: &Stage, endpoints: &[Endpoint], out: &[usize]) -> Client {
    for index in out {
        stage.server(&endpoints[*index].address().to_string()).refuse_dials(true);
    }
    let client = stage.dialing(resolve::fixed(endpoints.to_vec())).build().unwrap();
    client.ready().await.unwrap();
    settle().await;
    tokio::time::sleep(ms(50)).await;
    client
}

#[tokio::test(start_paused = true)]
async fn the_first_priority_keeps_everything_while_it_is_healthy() {
    let (stage, endpoints) = (Stage::default(), levels(&[4, 4]));
    let client = stage.client(resolve::fixed(endpoints.clone()));
    assert_eq!(load(&client, 16, 4_000).await, 0);
    assert_eq!(share(&stage, &endpoints, "p0"), 1.0);
    let served = stage.served();
    assert!(served[..4].iter().all(|served| (900..1_100).contains(served)), "{served:?}");
    assert_eq!((of(&client, 0).percent, of(&client, 1).percent), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_first_priority_cannot_cover_spills_as_the_formula_says() {
    // Envoy's table: 75, 50, 25 and 0 % healthy, over 100,000 draws each.
    for (out, owed) in [(1, 1.0), (2, 0.7), (3, 0.35), (4, 0.0)] {
        let (stage, endpoints) = (Stage::default(), levels(&[4, 4]));
        let client = dialled(&stage, &endpoints, &(0..out).collect::<Vec<_>>()).await;
        for endpoint in &endpoints {
            stage.server(&endpoint.address().to_string()).set(Mode::Answer(ms(0)));
        }
        stage.forget_served();
        assert_eq!(load(&client, 1, 100_000).await, 0);
        let found = share(&stage, &endpoints, "p0");
        assert!((found - owed).abs() < 0.006, "{out} of 4 out: {found} for {owed}");
        assert!((f64::from(of(&client, 0).percent) / 100.0 - owed).abs() < 1e-9);
    }
}

#[tokio::test(start_paused = true)]
async fn a_spill_begins_and_ends_with_an_event() {
    let (stage, endpoints, heard) = (Stage::default(), levels(&[4, 2]), Heard::default());
    for name in ["p0-00:1", "p0-01:1"] {
        stage.server(name).refuse_dials(true);
    }
    let builder = stage.dialing(resolve::fixed(endpoints)).observe(heard.observer());
    let client = builder.build().unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    let spills = || -> Vec<(String, u32)> {
        let spill = |event: &Event| match event {
            Event::Spill { from, percent } => Some((from.to_string(), *percent)),
            _ => None,
        };
        heard.all().iter().filter_map(spill).collect()
    };
    assert_eq!(spills().last(), Some(&("priority 0".to_owned(), 30)), "{:?}", spills());
    for name in ["p0-00:1", "p0-01:1"] {
        stage.server(name).refuse_dials(false);
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(spills().last(), Some(&("priority 0".to_owned(), 0)), "{:?}", spills());
}

#[tokio::test(start_paused = true)]
async fn an_empty_priority_is_not_in_panic_while_another_has_an_endpoint() {
    let (stage, endpoints, heard) = (Stage::default(), levels(&[4, 4]), Heard::default());
    for endpoint in &endpoints[..7] {
        stage.server(&endpoint.address().to_string()).refuse_dials(true);
    }
    let client = stage.dialing(resolve::fixed(endpoints)).observe(heard.observer()).build().unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert!(!of(&client, 0).panic, "{:?}", client.status().priorities);
    assert!(of(&client, 1).panic && of(&client, 1).percent == 100, "{:?}", client.status().priorities);
    let entered = |event: &Event| match event {
        Event::PanicEntered { priority, available, endpoints, .. } => {
            Some((*priority, *available, *endpoints))
        }
        _ => None,
    };
    let entered: Vec<_> = heard.all().iter().filter_map(entered).collect();
    assert_eq!(entered, [(1, 1, 4)]);
}

#[tokio::test(start_paused = true)]
async fn panic_at_one_priority_sets_no_ejection_of_another_aside() {
    let (stage, endpoints) = (Stage::default(), levels(&[5, 5]));
    let options = options(|options| {
        options.overprovisioning = 100;
        options.panic_below = Ratio::percent::<70>();
    });
    let client = stage.builder(resolve::fixed(endpoints.clone())).options(options).build().unwrap();
    // One of five fails at the first priority: 80 % there, 20 at the second, which spills to nobody.
    eject(&stage, &client, "p0-00:1").await;
    stage.forget_served();
    load(&client, 20, 2_000).await;
    assert_eq!(stage.server("p0-00:1").served(), 0);
    let found = share(&stage, &endpoints, "p0");
    assert!((found - 0.8).abs() < 0.03, "{found}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_small_priority_goes_to_the_next() {
    let (stage, endpoints) = (Stage::default(), levels(&[1, 3]));
    let client = stage.client(resolve::fixed(endpoints));
    client.send(0).await.unwrap();
    stage.server("p0-00:1").gate(Gate::Shut);
    for _ in 0..20 {
        assert!(client.send(0).await.unwrap().starts_with("p1"), "the only one of the first is not ready");
    }
    stage.server("p0-00:1").gate(Gate::Open);
    assert_eq!(client.send(0).await.unwrap(), "p0-00:1");
}

#[tokio::test(start_paused = true)]
async fn fail_closed_refuses_when_no_priority_has_an_endpoint() {
    let (stage, endpoints) = (Stage::default(), levels(&[2, 2]));
    let options = options(|options| {
        options.panic = Panic::FailClosed;
        options.health.max_ejected = Ratio::ONE;
    });
    let client = stage.builder(resolve::fixed(endpoints.clone())).options(options).build().unwrap();
    for endpoint in &endpoints {
        stage.server(&endpoint.address().to_string()).set(Mode::Fail(ms(1)));
    }
    load(&client, 4, 200).await;
    settle().await;
    assert!(client.send(0).await.is_err());
    assert!(client.status().priorities.iter().all(|level| !level.panic && level.available == 0));
}

fn at(region: &str, zone: &str) -> Localities {
    Localities::at(Locality::new(region, zone, "")).elsewhere(Ratio::ZERO)
}

#[tokio::test(start_paused = true)]
async fn the_own_zone_keeps_its_requests_and_nobody_elses_are_touched() {
    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4), ("us", "c", 4)]));
    let client = stage
        .builder(resolve::fixed(endpoints.clone()))
        .options(options(|options| options.localities = at("eu", "b")))
        .build()
        .unwrap();
    assert_eq!(load(&client, 16, 2_000).await, 0);
    assert_eq!(share(&stage, &endpoints, "eu-b"), 1.0);
    let zones = of(&client, 0).zones;
    assert_eq!(zones.len(), 3);
    assert_eq!((zones[0].locality.to_string(), zones[0].share), ("eu/b".to_owned(), 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_lost_endpoints_keeps_what_it_can_take() {
    // 2 of 4 are left of the own zone, 10 in all: a fifth of the capacity for a third of the clients.
    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4), ("eu", "c", 4)]));
    for name in ["eu-a-00:1", "eu-a-01:1"] {
        stage.server(name).refuse_dials(true);
    }
    let client = stage
        .dialing(resolve::fixed(endpoints.clone()))
        .options(options(|options| options.localities = at("eu", "a")))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(load(&client, 8, 20_000).await, 0);
    let (own, b) = (share(&stage, &endpoints, "eu-a"), share(&stage, &endpoints, "eu-b"));
    assert!((own - 0.6).abs() < 0.02 && (b - 0.2).abs() < 0.02, "{own}, {b}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_zone_costs_no_request_that_begins_later() {
    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4), ("eu", "c", 4)]));
    let client = stage
        .dialing(resolve::fixed(endpoints.clone()))
        .options(options(|options| options.localities = at("eu", "a")))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(load(&client, 8, 1_000).await, 0);
    for endpoint in &endpoints[..4] {
        let server = stage.server(&endpoint.address().to_string());
        server.refuse_dials(true);
        server.gate(Gate::Broken);
    }
    stage.forget_served();
    assert_eq!(load(&client, 8, 2_000).await, 0);
    let b = share(&stage, &endpoints, "eu-b");
    assert!((b - 0.5).abs() < 0.05, "{b}");
    for endpoint in &endpoints[..4] {
        let server = stage.server(&endpoint.address().to_string());
        server.refuse_dials(false);
        server.gate(Gate::Open);
    }
    tokio::time::sleep(secs(60)).await;
    stage.forget_served();
    assert_eq!(load(&client, 8, 1_000).await, 0);
    assert_eq!(share(&stage, &endpoints, "eu-a"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_slower_than_its_neighbours_keeps_less() {
    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4), ("eu", "c", 4)]));
    let localities = at("eu", "a").elsewhere(Ratio::percent::<2>());
    let client = stage
        .builder(resolve::fixed(endpoints.clone()))
        .options(options(|options| options.localities = localities))
        .build()
        .unwrap();
    for endpoint in &endpoints[..4] {
        stage.server(&endpoint.address().to_string()).set(Mode::Answer(ms(40)));
    }
    load(&client, 8, 20_000).await;
    stage.forget_served();
    load(&client, 8, 10_000).await;
    // A quarter as fast, less the margin: 0.3125 of 2.3125 for a third of the clients.
    let own = share(&stage, &endpoints, "eu-a");
    assert!((own - 0.405).abs() < 0.05, "{own}");
    for endpoint in &endpoints[..4] {
        stage.server(&endpoint.address().to_string()).set(Mode::Answer(ms(10)));
    }
    load(&client, 8, 100_000).await;
    stage.forget_served();
    load(&client, 8, 10_000).await;
    let own = share(&stage, &endpoints, "eu-a");
    assert!(own > 0.95, "{own}");
}

#[tokio::test(start_paused = true)]
async fn localities_may_be_set_and_unset_while_running() {
    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4)]));
    let client = stage.client(resolve::fixed(endpoints.clone()));
    load(&client, 8, 1_000).await;
    assert!((share(&stage, &endpoints, "eu-a") - 0.5).abs() < 0.05);
    client.update(options(|options| options.localities = at("eu", "a"))).unwrap();
    stage.forget_served();
    load(&client, 8, 1_000).await;
    assert_eq!(share(&stage, &endpoints, "eu-a"), 1.0);
    client.update(options(|_| ())).unwrap();
    stage.forget_served();
    load(&client, 8, 1_000).await;
    assert!((share(&stage, &endpoints, "eu-a") - 0.5).abs() < 0.05);
    let invalid = client
        .update(options(|options| {
            options.overprovisioning = 99;
            options.localities = at("eu", "a").demand(Ratio::ZERO).elsewhere(Ratio::ONE);
        }))
        .unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["overprovisioning", "localities.demand", "localities.elsewhere"]);
}

/// The shares of ten endpoints at each of two priorities, over 100,000 draws, where so many of each are ejected.
async fn drawn(ejected: [usize; 2]) -> (Vec<f64>, Client) {
    let (stage, endpoints) = (Stage::default(), levels(&[10, 10]));
    let (feed, channel) = mainstay::resolve::channel();
    // Ejected as endpoints of one priority, which all get requests.
    feed.set(endpoints.iter().map(|endpoint| endpoint.clone().with_priority(0)));
    let options = options(|options| {
        (options.load, options.choices) = (mainstay::balance::Load::InFlight, 1);
        options.health.ejection = mainstay::backoff::Backoff::fixed(secs(3_600));
    });
    let client = stage.builder(channel).options(options).build().unwrap();
    let name = |priority: usize, number: usize| format!("p{priority}-{number:02}:1");
    let out: Vec<String> = (0..2)
        .flat_map(|priority| (0..ejected[priority]).map(move |number| name(priority, number)))
        .collect();
    for name in &out {
        stage.server(name).set(Mode::Fail(ms(0)));
    }
    for _ in 0..100 {
        load(&client, 1, 100).await;
        settle().await;
    }
    for endpoint in &endpoints {
        stage.server(&endpoint.address().to_string()).set(Mode::Answer(ms(0)));
    }
    feed.set(endpoints.clone());
    settle().await;
    let available: Vec<usize> = client.status().priorities.iter().map(|level| level.available).collect();
    let words: Vec<_> = client
        .status()
        .endpoints
        .iter()
        .map(|e| (e.name.clone(), e.state, e.failures, e.successes))
        .collect();
    assert_eq!(available, [10 - ejected[0], 10 - ejected[1]], "{words:?}");
    stage.forget_served();
    assert_eq!(load(&client, 1, 100_000).await, 0);
    (stage.served().iter().map(|served| *served as f64 / 100_000.0).collect(), client)
}

fn within_six_sigma(found: f64, owed: f64) -> bool {
    (found - owed).abs() <= 6.0 * (owed * (1.0 - owed) / 100_000.0).sqrt() + 1e-12
}

#[tokio::test(start_paused = true)]
async fn panic_draws_as_its_formula_says() {
    // One of ten and six of ten: 14 + 84 of 98, so that the first gets 14 + 1 for the rounding, in panic.
    let (shares, client) = drawn([9, 4]).await;
    assert!(of(&client, 0).panic && !of(&client, 1).panic, "{:?}", client.status().priorities);
    for (number, share) in shares.iter().enumerate() {
        let owed = match number {
            0..10 => 0.015,
            10..14 => 0.0,
            _ => 0.85 / 6.0,
        };
        assert!(within_six_sigma(*share, owed), "{number}: {share} for {owed} of {shares:?}");
    }
    // Two and three of ten: both are in panic, and all twenty are alike.
    let (shares, client) = drawn([8, 7]).await;
    assert!(of(&client, 0).panic && of(&client, 1).panic);
    assert!(shares.iter().all(|share| within_six_sigma(*share, 0.05)), "{shares:?}");
    // Four and four of ten are healthy together.
    let (shares, client) = drawn([6, 6]).await;
    assert!(!of(&client, 0).panic && !of(&client, 1).panic);
    let owed = |number: usize| match number {
        6..10 => 0.56 / 4.0,
        16.. => 0.44 / 4.0,
        _ => 0.0,
    };
    assert!(
        shares.iter().enumerate().all(|(number, share)| within_six_sigma(*share, owed(number))),
        "{shares:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_one_zone_is_tried_in_another() {
    use mainstay::{
        describe::Idempotent,
        retry::{RetryLayer, RetryPolicy},
    };
    use tower::{Layer as _, ServiceExt as _};

    let (stage, endpoints) = (Stage::default(), zones(&[("eu", "a", 4), ("eu", "b", 4), ("eu", "c", 4)]));
    let client = stage
        .builder(resolve::fixed(endpoints.clone()))
        .options(options(|options| options.localities = at("eu", "a")))
        .build()
        .unwrap();
    client.send(0).await.unwrap();
    for endpoint in &endpoints[..4] {
        stage.server(&endpoint.address().to_string()).set(Mode::Hang);
    }
    let retry = RetryLayer::new(RetryPolicy::default().max_attempts(2)).unwrap().describe(Idempotent);
    let answer: Reply = retry.layer(client).oneshot(0).await;
    assert!(!answer.unwrap().starts_with("eu-a"));
}
