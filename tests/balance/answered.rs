//! Picks among those that have answered of late.

use mainstay::{
    Endpoint, Ratio,
    balance::{Candidates, Load, ProbeOptions},
    budget::{Budget, BudgetOptions},
    random::Seeded,
    report::Report,
    resolve,
};

use crate::stage::*;

const ANSWERED: Candidates = Candidates::Answered { within: std::time::Duration::from_secs(1) };

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("s{number:03}:1")).collect()
}

fn client(stage: &Stage, count: usize, candidates: Candidates) -> Client {
    let own = options(|options| (options.candidates, options.slow_start.lasts) = (candidates, ms(0)));
    stage.builder(resolve::fixed(names(count))).options(own).build().unwrap()
}

fn used(stage: &Stage) -> usize {
    stage.served().iter().filter(|served| **served > 0).count()
}

async fn send(client: &Client, count: usize, pause: u64) {
    for _ in 0..count {
        client.send(0).await.unwrap();
        tokio::time::sleep(ms(pause)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_with_few_requests_keeps_to_those_that_have_just_answered() {
    for (candidates, range) in [(ANSWERED, 4..=20), (Candidates::Any, 30..=60)] {
        let stage = Stage::default();
        let client = client(&stage, 100, candidates);
        send(&client, 60, 0).await;
        assert!(range.contains(&used(&stage)), "{candidates:?}: {}", used(&stage));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_old_after_its_time_and_then_any_is_drawn() {
    let stage = Stage::default();
    let client = client(&stage, 100, ANSWERED);
    send(&client, 60, 1_100).await;
    assert!(used(&stage) >= 30, "{}", used(&stage));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_given_next_to_nothing() {
    let stage = Stage::default();
    let client = client(&stage, 10, ANSWERED);
    send(&client, 200, 0).await;
    stage.forget_served();
    let slow = stage.server("s003:1");
    slow.set(Mode::Answer(secs(2)));
    assert_eq!(load(&client, 4, 2_000).await, 0);
    assert!(slow.served() <= 10, "{:?}", stage.served());
}

#[tokio::test(start_paused = true)]
async fn over_a_minute_equal_endpoints_are_used_alike_and_one_that_recovers_is_too() {
    let stage = Stage::default();
    let client = client(&stage, 20, ANSWERED);
    names(20).iter().for_each(|name| stage.server(name).set(Mode::Vary));
    for slow in [false, true, false] {
        let mode = if slow { Mode::Answer(ms(400)) } else { Mode::Vary };
        stage.server("s007:1").set(mode);
        // Until what was is forgotten.
        assert_eq!(load(&client, 5, 20_000).await, 0);
        stage.forget_served();
        assert_eq!(load(&client, 5, 20_000).await, 0);
        let served = stage.served();
        let mean = served.iter().sum::<usize>() / served.len();
        let (seventh, others) = (served[7], [&served[..7], &served[8..]].concat());
        assert!(others.iter().all(|served| (mean / 2..=2 * mean).contains(served)), "{slow}: {served:?}");
        assert!(if slow { seventh < mean / 4 } else { seventh > mean / 2 }, "{slow}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_may_be_switched_on_and_off_while_it_runs() {
    let stage = Stage::default();
    let client = client(&stage, 100, Candidates::Any);
    for (candidates, range) in [(ANSWERED, 4..=20), (Candidates::Any, 30..=60), (ANSWERED, 4..=20)] {
        let own = options(|options| (options.candidates, options.slow_start.lasts) = (candidates, ms(0)));
        client.update(own).unwrap();
        // What was noted before is old.
        tokio::time::sleep(secs(2)).await;
        stage.forget_served();
        send(&client, 60, 0).await;
        assert!(range.contains(&used(&stage)), "{candidates:?}: {}", used(&stage));
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_leave_and_join_move_the_places_of_the_others_and_lose_nothing() {
    let (stage, (feed, channel)) = (Stage::default(), resolve::channel());
    feed.set(names(40));
    let own = options(|options| (options.candidates, options.slow_start.lasts) = (ANSWERED, ms(0)));
    let client = stage.builder(channel).options(own).build().unwrap();
    for round in 0..20_usize {
        let fleet: Vec<String> = names(40).into_iter().skip(round % 7 * 5).collect();
        feed.set(fleet.clone());
        settle().await;
        stage.forget_served();
        assert_eq!(load(&client, 3, 200).await, 0);
        let elsewhere = names(40).into_iter().filter(|name| !fleet.contains(name));
        assert!(elsewhere.into_iter().all(|name| stage.server(&name).served() == 0), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_weights_differ_shares_are_kept() {
    let stage = Stage::default();
    let own = options(|options| options.candidates = ANSWERED);
    let endpoints =
        [("a:1", 1.0), ("b:1", 3.0)].map(|(name, weight)| Endpoint::new(name).with_weight(weight));
    ["a:1", "b:1"].iter().for_each(|name| stage.server(name).set(Mode::Vary));
    let client = stage.builder(resolve::fixed(endpoints)).options(own).build().unwrap();
    assert_eq!(load(&client, 10, 20_000).await, 0);
    let share = stage.server("a:1").served() as f64 / 20_000.0;
    assert!((share - 0.25).abs() <= 0.02, "{share}");
}

#[tokio::test(start_paused = true)]
async fn an_age_of_nothing_is_told() {
    let own = options(|options| options.candidates = Candidates::Answered { within: ms(0) });
    let invalid = own.validate().unwrap_err();
    assert_eq!(invalid.problems()[0].field, "candidates.within");
}

#[tokio::test(start_paused = true)]
async fn of_two_the_busier_one_gets_nothing_though_it_has_answered_last() {
    let (stage, (feed, channel)) = (Stage::default(), resolve::channel());
    feed.set(["busy:1"]);
    let own = options(|options| {
        (options.candidates, options.slow_start.lasts) = (ANSWERED, ms(0));
        options.attempt_limit = None;
    });
    let client = stage.builder(channel).options(own).build().unwrap();
    let (busy, idle) = (stage.server("busy:1"), stage.server("idle:1"));
    busy.set(Mode::Hang);
    let hangs = tokio::spawn(client.send(0));
    settle().await;
    busy.set(Mode::Answer(ms(10)));
    for round in 0..20 {
        tokio::time::sleep(secs(2)).await;
        feed.set(["busy:1"]);
        settle().await;
        client.send(0).await.unwrap();
        feed.set(["busy:1", "idle:1"]);
        settle().await;
        client.send(0).await.unwrap();
        assert_eq!((busy.active(), idle.served()), (1, round + 1), "{:?}", stage.served());
    }
    hangs.abort();
}

#[tokio::test(start_paused = true)]
async fn where_those_that_answered_last_are_full_others_are_drawn_and_not_all_looked_at() {
    let mut found = 0;
    for seed in 0..10 {
        let (stage, ends) = (Stage::default(), Ends::default());
        let own = options(|options| {
            (options.candidates, options.slow_start.lasts) = (ANSWERED, ms(0));
            options.max_in_flight = Some(1);
        });
        let builder = stage.builder(resolve::fixed(names(300))).random(Seeded::new(seed));
        let client = builder.track(ends.clone()).options(own).build().unwrap();
        names(300).iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(100))));
        let fast = stage.server("s150:1");
        fast.set(Mode::Answer(ms(1)));
        assert_eq!(load(&client, 250, 3_000).await, 0);
        tokio::time::sleep(secs(2)).await;
        stage.forget_served();
        // Whoever has answered is full until its body ends.
        ends.keep(true);
        send(&client, 16, 0).await;
        found += fast.served();
        drop(ends.take());
    }
    // Who looks at all sees that it is the fastest.
    assert!(found <= 5, "{found}");
}

#[tokio::test(start_paused = true)]
async fn who_has_said_its_load_when_asked_has_answered_too() {
    let stage = Stage::default();
    let own = options(|options| {
        (options.candidates, options.slow_start.lasts, options.reports) = (ANSWERED, ms(0), true);
        options.probes = ProbeOptions::default().share(Ratio::percent::<100>()).every(secs(1));
    });
    let budget = Budget::new(BudgetOptions::default().reserve(1_000_000)).unwrap();
    let builder = stage.builder(resolve::fixed(names(4))).options(own).probe(budget, |_, endpoint| {
        let says = endpoint.address().to_string() == "s002:1";
        async move { says.then(|| Report::default().in_flight(0)) }
    });
    let (client, says) = (builder.build().unwrap(), stage.server("s002:1"));
    let mut found = 0;
    for _ in 0..20 {
        send(&client, 20, 0).await;
        // Until the requests' own answers are old.
        tokio::time::sleep(ms(1_100)).await;
        let before = says.served();
        send(&client, 1, 0).await;
        found += says.served() - before;
    }
    assert!(found >= 14, "{found}");
}

#[tokio::test(start_paused = true)]
async fn it_goes_by_time_though_nothing_else_does() {
    let stage = Stage::default();
    let own = options(|options| {
        (options.candidates, options.load) = (ANSWERED, Load::InFlight);
        (options.statistics, options.health.enabled, options.attempt_limit) = (false, false, None);
        options.slow_start.lasts = ms(0);
    });
    let client = stage.builder(resolve::fixed(names(100))).options(own).build().unwrap();
    send(&client, 60, 0).await;
    assert!(used(&stage) <= 20, "{}", used(&stage));
}

#[tokio::test(start_paused = true)]
async fn a_second_priority_has_its_own_that_answered_last() {
    let stage = Stage::default();
    let own = options(|options| (options.candidates, options.slow_start.lasts) = (ANSWERED, ms(0)));
    let second = names(20).into_iter().map(|name| Endpoint::new(name).with_priority(1));
    let first = ["first:1", "other:1"].map(Endpoint::new);
    let client = stage.builder(resolve::fixed(first.into_iter().chain(second))).options(own).build().unwrap();
    client.send(0).await.unwrap();
    // What is left of the first priority covers 0.7 of the traffic.
    client.endpoint(Endpoint::new("other:1").identity()).unwrap().drain();
    settle().await;
    names(20).iter().for_each(|name| stage.server(name).set(Mode::Vary));
    stage.server("s007:1").set(Mode::Answer(ms(400)));
    assert_eq!(load(&client, 17, 60_000).await, 0);
    stage.forget_served();
    assert_eq!(load(&client, 17, 60_000).await, 0);
    let served: Vec<usize> = names(20).iter().map(|name| stage.server(name).served()).collect();
    let mean = served.iter().sum::<usize>() / served.len();
    assert!(served[7] < mean / 4, "{served:?}");
    assert!(served.iter().all(|served| *served <= 2 * mean), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn none_of_equal_endpoints_is_worse_off_by_where_it_stands() {
    let stage = Stage::default();
    let own = options(|options| (options.candidates, options.slow_start.lasts) = (ANSWERED, ms(0)));
    let second = names(20).into_iter().map(|name| Endpoint::new(name).with_priority(1));
    let first = ["first:1", "other:1"].map(Endpoint::new);
    let client = stage.builder(resolve::fixed(first.into_iter().chain(second))).options(own).build().unwrap();
    client.send(0).await.unwrap();
    // One that has most of the traffic always has just answered.
    client.endpoint(Endpoint::new("other:1").identity()).unwrap().drain();
    settle().await;
    names(20).iter().for_each(|name| stage.server(name).set(Mode::Vary));
    assert_eq!(load(&client, 17, 60_000).await, 0);
    let served: Vec<usize> = names(20).iter().map(|name| stage.server(name).served()).collect();
    let mean = served.iter().sum::<usize>() / served.len();
    assert!(served.iter().all(|served| (mean / 2..=2 * mean).contains(served)), "{served:?}");
}
