//! Which endpoints a client uses at all.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::{
    Endpoint,
    balance::{ApertureOptions, Subset},
    random::Seeded,
    resolve,
};

use crate::stage::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}:1")).collect()
}

fn of(subset: Subset) -> mainstay::balance::BalanceOptions {
    options(|options| options.subset = subset)
}

fn used(client: &Client) -> BTreeSet<String> {
    client.status().endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect()
}

async fn client(stage: &Stage, resolver: impl resolve::Resolve, subset: Subset, seed: u64) -> Client {
    let client = stage.builder(resolver).options(of(subset)).random(Seeded::new(seed)).build().unwrap();
    client.ready().await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn a_client_connects_to_its_subset_and_keeps_state_for_nobody_else() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(names(100)), Subset::rendezvous(10), 1).await;
    assert_eq!(load(&client, 20, 1_000).await, 0);
    let served = stage.served();
    assert_eq!((used(&client).len(), client.status().known, served.len()), (10, 100, 10));
    assert!(served.iter().all(|served| *served > 60), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn clients_choose_differently_and_a_seed_chooses_again() {
    let stage = Stage::default();
    let a = client(&stage, resolve::fixed(names(100)), Subset::rendezvous(10), 1).await;
    let b = client(&stage, resolve::fixed(names(100)), Subset::rendezvous(10), 2).await;
    assert!(used(&a).intersection(&used(&b)).count() < 6);
    let Subset::Rendezvous(options) = Subset::rendezvous(10) else { panic!("what was asked for") };
    let seeded =
        |random| client(&stage, resolve::fixed(names(100)), Subset::Rendezvous(options.seed(7)), random);
    assert_eq!(used(&seeded(3).await), used(&seeded(4).await));
}

#[tokio::test(start_paused = true)]
async fn one_server_more_or_less_alters_at_most_one_entry_and_loses_no_other_connection() {
    let (stage, heard) = (Stage::default(), Heard::default());
    let (feed, channel) = resolve::channel();
    let mut names = names(50);
    feed.set(names.clone());
    let client = client(&stage, channel, Subset::rendezvous(8), 5).await;
    client.observe(heard.observer());
    for turn in 0..60 {
        let before = used(&client);
        let made = |name: &&String| stage.server(name).made();
        let connections: Vec<usize> = before.iter().map(|name| made(&name)).collect();
        if turn % 3 == 2 {
            names.push(format!("new{turn}:1"));
        } else {
            names.remove(turn * 7 % names.len());
        }
        feed.set(names.clone());
        settle().await;
        let after = used(&client);
        assert_eq!(after.len(), 8.min(names.len()));
        assert!(before.intersection(&after).count() >= 7, "{before:?} {after:?}");
        for (name, connections) in before.iter().zip(connections).filter(|(name, _)| after.contains(*name)) {
            assert_eq!(made(&name), connections, "{name} stays and is not connected anew");
        }
        client.send(0).await.unwrap();
    }
    assert!(heard.count("subset") > 0);
}

#[tokio::test(start_paused = true)]
async fn deterministic_clients_load_all_servers_alike() {
    let stage = Stage::default();
    let mut served: BTreeMap<String, f64> = BTreeMap::new();
    for index in 0..8 {
        let client =
            client(&stage, resolve::fixed(names(30)), Subset::deterministic(index, 8, 12), u64::from(index))
                .await;
        assert!((12..=16).contains(&used(&client).len()), "{:?}", used(&client));
        stage.forget_served();
        assert_eq!(load(&client, 60, 6_000).await, 0);
        for name in used(&client) {
            *served.entry(name.clone()).or_default() += stage.server(&name).served() as f64;
        }
    }
    let mean = 8.0 * 6_000.0 / 30.0;
    assert_eq!(served.len(), 30);
    assert!(served.values().all(|served| (served / mean - 1.0).abs() < 0.1), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn each_priority_has_a_subset_of_its_own() {
    let stage = Stage::default();
    let endpoints = names(40).into_iter().enumerate();
    let endpoints = endpoints.map(|(number, name)| Endpoint::new(name).with_priority(number as u32 / 20));
    let client =
        client(&stage, resolve::fixed(endpoints.collect::<Vec<_>>()), Subset::rendezvous(5), 1).await;
    let counts: Vec<_> = client.status().priorities.iter().map(|level| level.endpoints).collect();
    assert_eq!(counts, [5, 5]);
}

fn narrow() -> Subset {
    Subset::Aperture(ApertureOptions::default().min(3).smooth(secs(2)))
}

#[tokio::test(start_paused = true)]
async fn an_aperture_grows_and_shrinks_with_the_load() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(names(100)), narrow(), 1).await;
    assert_eq!(used(&client).len(), 3);
    let grow = |callers: usize| {
        let client = client.clone();
        async move {
            let until = now() + secs(30);
            while now() < until {
                load(&client, callers, callers * 50).await;
            }
            used(&client)
        }
    };
    let (few, many) = (grow(8).await, grow(40).await);
    assert!((6..=10).contains(&few.len()), "{few:?}");
    assert!((34..=46).contains(&many.len()), "{many:?}");
    assert!(few.is_subset(&many), "it grows by what comes next");
    tokio::time::sleep(secs(60)).await;
    let least = used(&client);
    assert!(least.len() == 3 && least.is_subset(&few), "{least:?}");
}

#[tokio::test(start_paused = true)]
async fn an_aperture_makes_up_for_what_is_away() {
    let stage = Stage::default();
    let builder = stage.dialing(resolve::fixed(names(30))).options(of(narrow()));
    let client = builder.build().unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(ms(50)).await;
    let first = used(&client);
    for name in &first {
        stage.server(name).refuse_dials(true);
        stage.server(name).gate(Gate::Broken);
    }
    let waiting = tokio::spawn(client.send(0));
    tokio::time::sleep(secs(2)).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(used(&client).len(), 6, "three are away");
    for name in &first {
        stage.server(name).refuse_dials(false);
        stage.server(name).gate(Gate::Open);
    }
    tokio::time::sleep(secs(120)).await;
    assert_eq!(used(&client), first);
}

#[tokio::test(start_paused = true)]
async fn a_subset_may_change_while_running_without_a_failed_request() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(names(40)), Subset::All, 1).await;
    for subset in [
        Subset::rendezvous(5),
        narrow(),
        Subset::deterministic(1, 3, 12),
        Subset::rendezvous(20),
        Subset::All,
    ] {
        client.update(of(subset)).unwrap();
        assert_eq!(load(&client, 10, 500).await, 0);
        settle().await;
    }
    assert_eq!(used(&client).len(), 40);
    let invalid = client.update(of(Subset::deterministic(3, 3, 0))).unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["subset.size", "subset.index"]);
}

#[tokio::test(start_paused = true)]
async fn no_server_gets_more_than_twice_the_mean_while_clients_and_servers_come_and_go() {
    let stage = Stage::default();
    let (mut fleet, mut feeds, mut clients) = (names(20), Vec::new(), Vec::new());
    let join = |seed: u64, fleet: &[String]| {
        let (feed, channel) = resolve::channel();
        feed.set(fleet.to_vec());
        let options = options(|options| options.slow_start.lasts = ms(0));
        let builder = stage.builder(channel).options(options).random(Seeded::new(seed));
        (feed, builder.build().unwrap())
    };
    for round in 0..10_u64 {
        let (feed, client) = join(round, &fleet);
        feeds.push(feed);
        clients.push(client);
        if round % 2 == 0 {
            fleet.push(format!("n{round}:1"));
        } else {
            fleet.remove(round as usize);
        }
        feeds.iter().for_each(|feed| feed.set(fleet.clone()));
        settle().await;
        stage.forget_served();
        for client in &clients {
            assert_eq!(load(client, 10, 600).await, 0);
        }
        let served: Vec<usize> = fleet.iter().map(|name| stage.server(name).served()).collect();
        let mean = served.iter().sum::<usize>() / served.len();
        assert!(served.iter().all(|served| *served <= 2 * mean && *served > 0), "{round}: {served:?}");
    }
}
