//! What clients of one process tell each other.

use mainstay::{
    balance::{BalanceOptions, SharedHealth},
    client::ClientBuilder,
    describe::Idempotent,
    health::{State, Trip},
    random::Seeded,
    resolve,
    retry::RetryPolicy,
};

use crate::stage::{Conn, Heard, Mode, Stage, ms, secs, settle};

type Client = mainstay::Client<Conn, u32>;

const FIVE: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

fn builder(stage: &Stage, shared: &SharedHealth) -> ClientBuilder<Conn, u32> {
    Client::builder("users")
        .resolve(resolve::fixed(FIVE.to_vec()))
        .connect(stage.connect())
        .describe(Idempotent)
        .balance(crate::stage::options(|options| options.load = mainstay::balance::Load::InFlight))
        .retry(RetryPolicy::default().max_attempts(3))
        .random(Seeded::new(7))
        .share_health(shared.clone())
}

struct Scene {
    stage: Stage,
    shared: SharedHealth,
    first: Client,
    second: Client,
    heard: Heard,
}

impl Scene {
    fn new() -> Self {
        let (stage, shared, heard) = (Stage::default(), SharedHealth::new(), Heard::default());
        for name in FIVE {
            stage.server(name).set(Mode::Answer(ms(1)));
        }
        let first = builder(&stage, &shared).build().unwrap();
        let second = builder(&stage, &shared).observe(heard.observer()).build().unwrap();
        Self { stage, shared, first, second, heard }
    }

    /// Both have their endpoints, and the second has had no answer from any of them for long enough.
    async fn begin(&self) {
        send(&self.first, 20).await;
        send(&self.second, 20).await;
        tokio::time::sleep(secs(7)).await;
    }
}

async fn send(client: &Client, requests: u32) {
    for number in 0..requests {
        let _ = client.send(number).await;
    }
    settle().await;
}

fn state(client: &Client, name: &str) -> State {
    let status = client.status().balance;
    status.endpoints.iter().find(|row| &*row.name == name).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_second_client_learns_of_a_dead_endpoint_by_one_failure_of_its_own() {
    let scene = Scene::new();
    scene.begin().await;
    let a = scene.stage.server("a:1");
    a.set(Mode::Fail(ms(1)));
    send(&scene.first, 100).await;
    assert!(matches!(state(&scene.first, "a:1"), State::Ejected { why: Trip::Consecutive, .. }));
    assert!(matches!(state(&scene.second, "a:1"), State::Probation { .. }));
    assert_eq!(scene.heard.count("suspected"), 1);
    let before = a.served();
    for number in 0..100 {
        assert!(scene.second.send(number).await.is_ok(), "it is tried elsewhere");
    }
    assert_eq!(a.served() - before, 1);
    assert!(matches!(state(&scene.second, "a:1"), State::Ejected { why: Trip::Hearsay, .. }));
}

#[tokio::test(start_paused = true)]
async fn one_success_of_its_own_brings_it_back() {
    let scene = Scene::new();
    scene.begin().await;
    scene.stage.server("a:1").set(Mode::Fail(ms(1)));
    send(&scene.first, 100).await;
    scene.stage.server("a:1").set(Mode::Answer(ms(1)));
    assert!(matches!(state(&scene.second, "a:1"), State::Probation { .. }));
    assert_eq!(scene.second.send(1).await.unwrap(), "a:1");
    assert_eq!(state(&scene.second, "a:1"), State::Available);
    assert!(matches!(state(&scene.first, "a:1"), State::Ejected { .. }), "the way back is not shared");
}

#[tokio::test(start_paused = true)]
async fn without_a_request_it_returns_by_timers_alone() {
    let scene = Scene::new();
    scene.begin().await;
    scene.stage.server("a:1").set(Mode::Fail(ms(1)));
    send(&scene.first, 100).await;
    tokio::time::sleep(secs(5) + ms(5)).await;
    assert_eq!(state(&scene.second, "a:1"), State::Available);
}

#[tokio::test(start_paused = true)]
async fn who_has_just_had_an_answer_from_it_believes_nothing() {
    let scene = Scene::new();
    scene.begin().await;
    send(&scene.second, 50).await;
    // What fails is the first client's own fault.
    let poisoned = scene.stage.server("a:1");
    poisoned.set(Mode::Fail(ms(1)));
    send(&scene.first, 100).await;
    assert!(matches!(state(&scene.first, "a:1"), State::Ejected { .. }));
    assert_eq!((state(&scene.second, "a:1"), scene.heard.count("suspected")), (State::Available, 0));
}

#[tokio::test(start_paused = true)]
async fn suspicion_is_a_judgement_under_the_cap() {
    let scene = Scene::new();
    scene.begin().await;
    for name in &FIVE[..4] {
        scene.stage.server(name).set(Mode::Fail(ms(1)));
    }
    send(&scene.first, 400).await;
    let status = scene.second.status().balance;
    let out = status.endpoints.iter().filter(|row| !row.is_available()).count();
    assert_eq!(out, 3, "half of five, rounded up");
}

#[tokio::test(start_paused = true)]
async fn a_back_off_message_is_heeded_by_others_for_a_second_at_most() {
    let scene = Scene::new();
    scene.begin().await;
    let a = scene.stage.server("a:1");
    a.set(Mode::BackOff(Some(secs(60))));
    while !matches!(state(&scene.first, "a:1"), State::BackingOff { .. }) {
        send(&scene.first, 1).await;
    }
    a.set(Mode::Answer(ms(1)));
    let State::BackingOff { until } = state(&scene.second, "a:1") else { panic!("it was not told") };
    assert!(until <= mainstay::clock::now() + secs(1));
    tokio::time::sleep(secs(1) + ms(2)).await;
    assert_eq!(state(&scene.second, "a:1"), State::Available);
    assert!(matches!(state(&scene.first, "a:1"), State::BackingOff { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_every_server_sends_away_does_not_have_others_refused() {
    let scene = Scene::new();
    scene.begin().await;
    let once = RetryPolicy::default().max_attempts(1);
    let limited = builder(&scene.stage, &scene.shared).retry(once).build().unwrap();
    let set = |mode: Mode| FIVE.iter().for_each(|name| scene.stage.server(name).set(mode.clone()));
    // It has used up its quota, and the other has not.
    set(Mode::BackOff(Some(secs(60))));
    send(&limited, 20).await;
    set(Mode::Answer(ms(1)));
    assert!(FIVE.iter().all(|name| matches!(state(&limited, name), State::BackingOff { .. })));
    assert!(scene.second.send(0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_has_just_had_an_answer_from_it_does_not_leave_it_alone_for_others() {
    let scene = Scene::new();
    scene.begin().await;
    send(&scene.second, 50).await;
    scene.stage.server("a:1").set(Mode::BackOff(Some(secs(60))));
    while !matches!(state(&scene.first, "a:1"), State::BackingOff { .. }) {
        send(&scene.first, 1).await;
    }
    assert_eq!(state(&scene.second, "a:1"), State::Available);
}

#[tokio::test(start_paused = true)]
async fn rates_comparison_and_hands_are_not_shared() {
    let scene = Scene::new();
    scene.begin().await;
    let status = scene.first.status().balance;
    let handle = scene.first.endpoint(status.endpoints[0].endpoint.identity()).unwrap();
    assert!(handle.eject(None) && handle.drain());
    // Every third fails: judged by its count, and never five in a row.
    let b = scene.stage.server("b:1");
    for number in 0..400 {
        b.set(if b.served() % 3 == 2 { Mode::Fail(ms(1)) } else { Mode::Answer(ms(1)) });
        let _ = scene.first.send(number).await;
    }
    assert!(!matches!(state(&scene.first, "b:1"), State::Available));
    assert_eq!(scene.heard.count("suspected"), 0);
}

#[tokio::test(start_paused = true)]
async fn another_transport_is_another_endpoint() {
    let (stage, shared) = (Stage::default(), SharedHealth::new());
    let first = builder(&stage, &shared.over("http/2")).build().unwrap();
    let second = builder(&stage, &shared.over("http/1.1")).build().unwrap();
    send(&first, 20).await;
    send(&second, 20).await;
    tokio::time::sleep(secs(7)).await;
    stage.server("a:1").set(Mode::Fail(ms(1)));
    send(&first, 100).await;
    assert!(matches!(state(&first, "a:1"), State::Ejected { .. }));
    assert_eq!(state(&second, "a:1"), State::Available);
    assert_eq!(shared.endpoints(), 10);
}

#[tokio::test(start_paused = true)]
async fn it_holds_nothing_and_is_empty_with_its_last_client() {
    let Scene { stage, shared, first, second, .. } = Scene::new();
    send(&first, 5).await;
    send(&second, 5).await;
    assert_eq!(shared.endpoints(), 5);
    drop(first);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(shared.endpoints(), 5, "the second's");
    drop(second);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(shared.endpoints(), 0);
    assert!(FIVE.iter().all(|name| stage.server(name).services() == 0));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_eject_is_not_told_to() {
    let (stage, shared) = (Stage::default(), SharedHealth::new());
    let first = builder(&stage, &shared).build().unwrap();
    let mut options = BalanceOptions::default();
    options.health.enabled = false;
    let second = builder(&stage, &shared).balance(options).build().unwrap();
    send(&first, 20).await;
    send(&second, 20).await;
    tokio::time::sleep(secs(7)).await;
    stage.server("a:1").set(Mode::Fail(ms(1)));
    send(&first, 100).await;
    assert_eq!(state(&second, "a:1"), State::Available);
}
