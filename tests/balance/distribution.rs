//! By which rule requests are spread.

use std::collections::BTreeMap;

use mainstay::{
    Describe, Endpoint, Reason,
    balance::{Distribution, MaglevOptions, RingOptions, Sticky},
    describe::key_of,
    resolve,
};

use crate::stage::*;

/// The number of a request is its key, from 1 on; from 1,000 on it also names the endpoint that it wants.
struct Numbered;

impl Describe<u32> for Numbered {
    fn hash_key(&self, request: &u32) -> Option<u64> {
        (*request > 0).then(|| key_of(&request.to_le_bytes()))
    }

    fn endpoint<'a>(&self, request: &'a u32) -> Option<&'a str> {
        match request {
            1_001 => Some("b:1"),
            1_002 => Some("x:1, b:1,c:1"),
            1_003 => Some("unknown:1"),
            1_004 => Some("the fourth"),
            _ => None,
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:02}:1")).collect()
}

fn by(distribution: Distribution) -> mainstay::balance::BalanceOptions {
    options(|options| options.distribution = distribution)
}

fn client(stage: &Stage, names: &[String], distribution: Distribution) -> Client {
    let builder = stage.builder(resolve::fixed(names.to_vec())).describe(Numbered);
    builder.options(by(distribution)).build().unwrap()
}

const HASHES: [fn(Option<u32>) -> Distribution; 2] = [
    |bound| Distribution::Ring(RingOptions::default().bound(bound)),
    |bound| Distribution::Maglev(MaglevOptions::default().bound(bound)),
];

/// Who answers each key.
async fn homes(client: &Client, keys: u32) -> BTreeMap<u32, String> {
    let mut homes = BTreeMap::new();
    for key in 1..=keys {
        homes.insert(key, client.send(key).await.unwrap());
    }
    homes
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_to_the_same_endpoint_by_every_client_and_all_get_their_share() {
    for hash in HASHES {
        let (stage, names) = (Stage::default(), names(10));
        let mut turned = names.clone();
        turned.rotate_left(3);
        let first = homes(&client(&stage, &names, hash(None)), 500).await;
        assert_eq!(first, homes(&client(&stage, &turned, hash(None)), 500).await);
        let served = stage.served();
        assert!(served.iter().all(|served| (50..170).contains(served)), "{served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_an_endpoint_that_is_ejected_move_and_come_back_and_no_others_do() {
    for hash in HASHES {
        let (stage, names) = (Stage::default(), names(8));
        let client = client(&stage, &names, hash(None));
        let before = homes(&client, 400).await;
        stage.server("03:1").set(Mode::Fail(ms(1)));
        for key in (1..=400).cycle().take(4_000) {
            let _ = client.send(key).await;
            if status(&client, "03:1").word() == "ejected" {
                break;
            }
        }
        settle().await;
        let during = homes(&client, 400).await;
        for (key, home) in &before {
            let moved = during[key] != *home;
            assert_eq!(moved, home == "03:1", "{key} from {home} to {}", during[key]);
        }
        stage.server("03:1").set(Mode::Answer(ms(1)));
        while !status(&client, "03:1").is_available() {
            tokio::time::sleep(secs(1)).await;
        }
        settle().await;
        assert_eq!(homes(&client, 400).await, before, "nobody's place is taken by time");
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_ring_the_keys_of_a_removed_endpoint_move_and_no_others() {
    let (stage, names) = (Stage::default(), names(8));
    let (feed, channel) = resolve::channel();
    feed.set(names.clone());
    let builder = stage.builder(channel).describe(Numbered);
    let client = builder.options(by(HASHES[0](None))).build().unwrap();
    let before = homes(&client, 400).await;
    feed.set(names.iter().filter(|name| *name != "05:1").cloned().collect::<Vec<_>>());
    settle().await;
    let after = homes(&client, 400).await;
    for (key, home) in &before {
        assert_eq!(after[key] != *home, home == "05:1", "{key} from {home} to {}", after[key]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_goes_to_the_least_loaded() {
    for hash in HASHES {
        let (stage, names) = (Stage::default(), names(4));
        let client = client(&stage, &names, hash(None));
        assert_eq!(load(&client, 16, 4_000).await, 0);
        assert!(stage.served().iter().all(|served| (900..1_100).contains(served)), "{:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn one_hot_key_is_shared_as_far_as_the_bound_says() {
    for hash in HASHES {
        for (bound, most) in [(None, 100), (Some(200), 20), (Some(125), 13)] {
            let (stage, names) = (Stage::default(), names(10));
            let client = client(&stage, &names, hash(bound));
            client.ready().await.unwrap();
            names.iter().for_each(|name| stage.server(name).set(Mode::Hang));
            let held: Vec<_> = (0..100).map(|_| tokio::spawn(client.send(7))).collect();
            settle().await;
            let active: Vec<usize> = names.iter().map(|name| stage.server(name).active()).collect();
            assert_eq!(active.iter().sum::<usize>(), 100);
            assert!(active.iter().all(|active| *active <= most), "{bound:?}: {active:?}");
            held.iter().for_each(tokio::task::JoinHandle::abort);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn turns_go_round_and_each_gets_as_many() {
    let (stage, names) = (Stage::default(), names(7));
    let client = client(&stage, &names, Distribution::RoundRobin);
    let first: Vec<String> = homes(&client, 7).await.into_values().collect();
    let second: Vec<String> = homes(&client, 7).await.into_values().collect();
    assert_eq!(first, second);
    assert_eq!(stage.served(), [2; 7]);
    assert_eq!(load(&client, 10, 700).await, 0);
    assert_eq!(stage.served(), [102; 7]);
}

#[tokio::test(start_paused = true)]
async fn turns_by_weight_are_as_many_as_the_weights_say() {
    let (stage, weights) = (Stage::default(), [1.0, 2.0, 5.0]);
    let endpoints =
        names(3).into_iter().zip(weights).map(|(name, weight)| Endpoint::new(name).with_weight(weight));
    let client = stage
        .builder(resolve::fixed(endpoints.collect::<Vec<_>>()))
        .options(by(Distribution::RoundRobin))
        .build()
        .unwrap();
    assert_eq!(load(&client, 5, 8_000).await, 0);
    for (served, weight) in stage.served().iter().zip(weights) {
        assert!((*served as f64 - 1_000.0 * weight).abs() <= 3.0, "{:?}", stage.served());
    }
}

#[tokio::test(start_paused = true)]
async fn very_unequal_weights_are_kept_too() {
    let stage = Stage::default();
    let endpoints = names(101)
        .into_iter()
        .enumerate()
        .map(|(number, name)| Endpoint::new(name).with_weight(if number == 0 { 1_000.0 } else { 1.0 }));
    let client = stage
        .builder(resolve::fixed(endpoints.collect::<Vec<_>>()))
        .options(by(Distribution::RoundRobin))
        .build()
        .unwrap();
    assert_eq!(load(&client, 5, 22_000).await, 0);
    let share = stage.server("00:1").served() as f64 / 22_000.0;
    assert!((share - 1_000.0 / 1_100.0).abs() < 0.01, "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_turn_passes_over_what_is_ejected_or_not_ready() {
    let (stage, names) = (Stage::default(), names(5));
    let client = client(&stage, &names, Distribution::RoundRobin);
    eject(&stage, &client, "02:1").await;
    stage.server("04:1").gate(Gate::Shut);
    stage.forget_served();
    assert_eq!(load(&client, 4, 900).await, 0);
    let served = stage.served();
    assert_eq!((served[2], served[4]), (0, 0), "{served:?}");
    assert!(served.iter().all(|served| *served == 0 || *served >= 250), "{served:?}");
}

async fn sticky(stage: &Stage, sticky: Sticky) -> Client {
    let mut endpoints: Vec<Endpoint> = ["a:1", "b:1", "c:1"].map(Endpoint::new).to_vec();
    endpoints.push(Endpoint::new("d:1").with_instance("the fourth"));
    let builder = stage.builder(resolve::fixed(endpoints)).describe(Numbered);
    let client = builder.options(options(|options| options.sticky = sticky)).build().unwrap();
    client.ready().await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_endpoint_that_it_names() {
    for how in [Sticky::Prefer, Sticky::Require] {
        let stage = Stage::default();
        let client = sticky(&stage, how).await;
        for (request, answer) in [(1_001, "b:1"), (1_002, "b:1"), (1_004, "d:1")] {
            for _ in 0..20 {
                assert_eq!(client.send(request).await.unwrap(), answer);
            }
        }
    }
    let stage = Stage::default();
    let client = sticky(&stage, Sticky::Off).await;
    for _ in 0..100 {
        client.send(1_001).await.unwrap();
    }
    assert!(stage.server("b:1").served() < 60, "nobody asks");
}

#[tokio::test(start_paused = true)]
async fn where_the_named_one_cannot_take_it_another_does_or_nobody_as_the_option_says() {
    let stage = Stage::default();
    let prefers = sticky(&stage, Sticky::Prefer).await;
    prefers.send(1_003).await.unwrap();
    stage.server("b:1").gate(Gate::Shut);
    assert_ne!(prefers.send(1_001).await.unwrap(), "b:1");
    assert_eq!(prefers.send(1_002).await.unwrap(), "c:1", "the next that is named");

    let requires = sticky(&stage, Sticky::Require).await;
    assert_eq!(reason(&requires.send(1_003).await), Some(Reason::NoEndpoint));
    let waiting = tokio::spawn(requires.send(1_001));
    settle().await;
    assert!(!waiting.is_finished(), "it waits while that is not ready");
    stage.server("b:1").gate(Gate::Open);
    assert_eq!(waiting.await.unwrap().unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn the_named_one_is_waited_for_while_nothing_is_known_of_it_yet() {
    let stage = Stage::default();
    let (feed, resolver) = resolve::channel();
    let require = options(|options| {
        options.sticky = Sticky::Require;
        options.dials = 1;
    });
    let client = stage.dialing(resolver).describe(Numbered).options(require).build().unwrap();
    let waiting = tokio::spawn(client.send(1_001));
    let unknown = tokio::spawn(client.send(1_003));
    settle().await;
    assert!(!waiting.is_finished() && !unknown.is_finished(), "there is no resolution");
    feed.set(["a:1", "b:1", "c:1"]);
    assert_eq!(waiting.await.unwrap().unwrap(), "b:1", "it was not the first to be connected");
    assert_eq!(reason(&unknown.await.unwrap()), Some(Reason::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_is_waited_for_whatever_became_of_its_connection_before() {
    let stage = Stage::default();
    let (feed, resolver) = fed(["a:1", "b:1"]);
    let require = options(|options| options.sticky = Sticky::Require);
    let client = stage.dialing(resolver).describe(Numbered).options(require).build().unwrap();
    stage.server("b:1").refuse_dials(true);
    client.ready().await.unwrap();
    settle().await;
    assert_eq!(reason(&client.send(1_001).await), Some(Reason::NoEndpoint));
    feed.set(["a:1"]);
    settle().await;
    stage.server("b:1").refuse_dials(false);
    stage.server("b:1").hang_dials(true);
    feed.set(["a:1", "b:1"]);
    settle().await;
    let waiting = tokio::spawn(client.send(1_001));
    settle().await;
    assert!(!waiting.is_finished(), "it is being connected");
    assert_eq!(reason(&waiting.await.unwrap()), Some(Reason::NoEndpoint), "and then is not");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_endpoint_that_it_names_keeps_nobody_from_others() {
    let stage = Stage::default();
    let require = options(|options| {
        options.sticky = Sticky::Require;
        options.max_in_flight = Some(1);
    });
    let names = ["a:1", "b:1", "c:1"];
    let client = stage.builder(resolve::fixed(names)).describe(Numbered).options(require).build().unwrap();
    client.ready().await.unwrap();
    stage.server("b:1").set(Mode::Answer(secs(2)));
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(client.send(1_001))).collect();
    settle().await;
    let other = tokio::time::timeout(secs(1), client.send(0)).await;
    assert!(other.is_ok_and(|reply| reply.is_ok()), "two have room");
    for held in held {
        assert_eq!(held.await.unwrap().unwrap(), "b:1");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_endpoint_that_it_names_has_it_although_others_are_in_line() {
    let stage = Stage::default();
    let require = options(|options| {
        options.sticky = Sticky::Require;
        options.max_in_flight = Some(1);
    });
    let names = ["a:1", "b:1", "c:1"];
    let client = stage.builder(resolve::fixed(names)).describe(Numbered).options(require).build().unwrap();
    client.ready().await.unwrap();
    names.iter().for_each(|name| stage.server(name).set(Mode::Answer(secs(1))));
    let others: Vec<_> = (0..30).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    let start = crate::stage::now();
    let named: Vec<_> = (0..4).map(|_| tokio::spawn(client.send(1_001))).collect();
    let given_up = tokio::spawn(client.send(1_001));
    settle().await;
    given_up.abort();
    for named in named {
        assert_eq!(named.await.unwrap().unwrap(), "b:1");
    }
    assert_eq!(start.elapsed(), secs(5), "each time the place is given back one of them has it");
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
    assert_eq!((client.in_flight(), client.status().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn all_have_a_turn_who_wait_for_a_named_endpoint_that_was_not_ready() {
    let stage = Stage::default();
    let require = options(|options| {
        options.sticky = Sticky::Require;
        options.max_in_flight = Some(1);
    });
    let client =
        stage.builder(resolve::fixed(["a:1", "b:1"])).describe(Numbered).options(require).build().unwrap();
    client.ready().await.unwrap();
    stage.server("b:1").gate(Gate::Shut);
    let named: Vec<_> = (0..8).map(|_| tokio::spawn(client.send(1_001))).collect();
    settle().await;
    let other = tokio::time::timeout(secs(1), client.send(0)).await;
    assert!(other.is_ok_and(|reply| reply.is_ok_and(|answer| answer == "a:1")));
    named[0].abort();
    stage.server("b:1").gate(Gate::Open);
    for named in named.into_iter().skip(1) {
        assert_eq!(named.await.unwrap().unwrap(), "b:1");
    }
    assert_eq!((client.in_flight(), client.status().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn everybody_else_is_balanced_as_ever_while_requests_may_name_endpoints() {
    let stage = Stage::default();
    let client = sticky(&stage, Sticky::Prefer).await;
    for name in ["a:1", "b:1", "c:1", "d:1"] {
        stage.server(name).set(Mode::Hang);
    }
    let held: Vec<_> = (0..8).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    assert_eq!(stage.served(), [2; 4], "the best of four different ones");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn the_rule_may_change_while_running_and_nonsense_is_told() {
    let (stage, names) = (Stage::default(), names(6));
    let client = client(&stage, &names, Distribution::RoundRobin);
    homes(&client, 12).await;
    assert_eq!(stage.served(), [2; 6]);
    client.update(by(HASHES[0](None))).unwrap();
    assert_eq!(homes(&client, 50).await, homes(&client, 50).await);
    client.update(by(HASHES[1](Some(150)))).unwrap();
    assert_eq!(homes(&client, 50).await, homes(&client, 50).await);
    client.update(by(Distribution::LeastLoaded)).unwrap();
    assert_eq!(load(&client, 6, 600).await, 0);
    for (broken, owed) in [
        (
            Distribution::Ring(RingOptions::default().points(0).max_points(0).bound(99)),
            &["distribution.points", "distribution.max_points", "distribution.bound"][..],
        ),
        (Distribution::Maglev(MaglevOptions::default().size(65_536)), &["distribution.size"]),
    ] {
        let invalid = client.update(by(broken)).unwrap_err();
        let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
        assert_eq!(fields, owed);
    }
}

#[tokio::test(start_paused = true)]
async fn each_priority_and_zone_has_a_table_of_its_own_and_a_key_its_place_in_it() {
    let stage = Stage::default();
    let endpoints = (0..8).map(|number| Endpoint::new(format!("{number:02}:1")).with_priority(number / 4));
    let client = stage
        .dialing(resolve::fixed(endpoints.collect::<Vec<_>>()))
        .describe(Numbered)
        .options(by(HASHES[0](None)))
        .build()
        .unwrap();
    for name in ["00:1", "01:1"] {
        stage.server(name).refuse_dials(true);
    }
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    // Half of the first priority is away: 70 % stay.
    let homes_now = homes(&client, 1_000).await;
    assert_eq!(homes_now, homes(&client, 1_000).await, "a key that spills does so always");
    let stays = homes_now.values().filter(|home| home.as_str() < "04:1").count();
    assert!((650..750).contains(&stays), "{stays}");
}
