//! What endpoints say of themselves, through the balancer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use mainstay::{
    balance::Load,
    describe::Idempotent,
    health::{CheckOptions, ServingStatus, State, Trip},
    random::Seeded,
    resolve,
    telemetry::Event,
};
use tower::ServiceExt as _;

use crate::stage::*;

/// The ends at which endpoints speak, by address: one for each time that somebody began to listen.
#[derive(Clone, Default)]
struct Speakers(Arc<Mutex<BTreeMap<String, Vec<UnboundedSender<ServingStatus>>>>>);

impl Speakers {
    fn listen(&self, address: String) -> UnboundedReceiver<ServingStatus> {
        let (speaker, listener) = unbounded();
        self.0.lock().unwrap().entry(address).or_default().push(speaker);
        listener
    }

    async fn say(&self, address: &str, status: ServingStatus) {
        let speaker = self.0.lock().unwrap()[address].last().unwrap().clone();
        speaker.unbounded_send(status).unwrap();
        settle().await;
    }

    /// How often somebody has begun to listen, and how many still do.
    fn listeners(&self, address: &str) -> (usize, usize) {
        let speakers = self.0.lock().unwrap();
        let own = speakers.get(address).map_or(&[][..], Vec::as_slice);
        (own.len(), own.iter().filter(|speaker| !speaker.is_closed()).count())
    }
}

struct Scene {
    stage: Stage,
    speakers: Speakers,
    heard: Heard,
    client: Client,
}

impl Scene {
    async fn of(names: &[&str]) -> Self {
        Self::with(names, |_| {}, |builder, _| builder).await
    }

    async fn with(
        names: &[&str],
        change: impl FnOnce(&mut CheckOptions),
        also: impl FnOnce(Builder, &Stage) -> Builder,
    ) -> Self {
        let (stage, speakers, heard) = (Stage::default(), Speakers::default(), Heard::default());
        let listened = speakers.clone();
        let builder = stage
            .dialing(resolve::fixed(names.to_vec()))
            .options(options(|options| change(&mut options.health.checks)))
            .watch(move |_, endpoint| listened.listen(endpoint.address().to_string()))
            .observe(heard.observer());
        let client = also(builder, &stage).build().unwrap();
        client.ready().await.unwrap();
        settle().await;
        Self { stage, speakers, heard, client }
    }

    fn state(&self, name: &str) -> State {
        status(&self.client, name).state
    }

    fn is_out_by_its_word(&self, name: &str) -> bool {
        matches!(self.state(name), State::Ejected { why: Trip::Check, .. } | State::Probation { .. })
    }
}

type Builder = mainstay::balance::BalanceBuilder<Conn, u32>;

#[tokio::test(start_paused = true)]
async fn one_word_takes_an_endpoint_out_at_once_and_one_brings_it_back() {
    let scene = Scene::of(&["a:1", "b:1", "c:1"]).await;
    assert_eq!(scene.state("a:1"), State::Available, "nobody waits for a first word");
    scene.speakers.say("a:1", ServingStatus::NotServing).await;
    assert!(scene.is_out_by_its_word("a:1"), "{:?}", scene.state("a:1"));
    assert_eq!(load(&scene.client, 4, 40).await, 0);
    assert_eq!(scene.stage.server("a:1").served(), 0);
    scene.speakers.say("a:1", ServingStatus::Serving).await;
    assert_eq!(scene.state("a:1"), State::Available);
    assert!(scene.heard.all().iter().any(|event| matches!(event, Event::Restored { proven: true, .. })));
}

#[tokio::test(start_paused = true)]
async fn while_it_says_so_time_does_not_bring_it_back_and_a_word_that_is_lost_does_not_hold() {
    let scene = Scene::of(&["a:1", "b:1", "c:1"]).await;
    scene.speakers.say("a:1", ServingStatus::NotServing).await;
    for _ in 0..300 {
        tokio::time::sleep(secs(1)).await;
        assert!(scene.is_out_by_its_word("a:1"), "{:?}", scene.state("a:1"));
    }
    scene.speakers.say("a:1", ServingStatus::NotKnown).await;
    assert!(scene.is_out_by_its_word("a:1"), "it is not back by that alone");
    tokio::time::sleep(secs(400)).await;
    assert_eq!(scene.state("a:1"), State::Available);
    scene.speakers.say("b:1", ServingStatus::NotKnown).await;
    assert_eq!(scene.state("b:1"), State::Available, "not to know is no verdict");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_succeeds_outvotes_a_word_until_there_are_none() {
    let (stage, speakers) = (Stage::default(), Speakers::default());
    let listened = speakers.clone();
    let client = mainstay::Client::<Conn, u32>::builder("users")
        .resolve(resolve::fixed(["a:1", "b:1"]))
        .connect_with(stage.dial())
        .describe(Idempotent)
        .balance(options(|options| {
            options.load = Load::InFlight;
            // It is given requests between any two words from the first on.
            options.slow_start.lasts = secs(0);
        }))
        .random(Seeded::new(7))
        .watch(move |_, endpoint| listened.listen(endpoint.address().to_string()))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    settle().await;
    let state = || {
        let rows = client.status().balance.endpoints;
        rows.iter().find(|row| &*row.name == "a:1").unwrap().state
    };
    speakers.say("a:1", ServingStatus::NotServing).await;
    assert!(matches!(state(), State::Ejected { why: Trip::Check, .. }));
    // Its time is over: the next request that may be repeated decides.
    while !matches!(state(), State::Probation { .. }) {
        tokio::time::sleep(ms(100)).await;
    }
    client.send(0).await.unwrap();
    assert_eq!(state(), State::Available);
    for _ in 0..60 {
        futures::future::join_all((0..8).map(|_| client.send(0))).await;
        speakers.say("a:1", ServingStatus::NotServing).await;
        tokio::time::sleep(ms(500)).await;
        assert_eq!(state(), State::Available, "to say it once more is no news");
    }
    tokio::time::sleep(secs(10)).await;
    assert_ne!(state(), State::Available, "nothing contradicts it any more");
}

#[tokio::test(start_paused = true)]
async fn words_never_take_more_than_the_cap_and_let_no_one_back_whom_requests_took_out() {
    let scene = Scene::of(&["a:1", "b:1", "c:1"]).await;
    for name in ["a:1", "b:1", "c:1"] {
        scene.speakers.say(name, ServingStatus::NotServing).await;
    }
    let out = |scene: &Scene| ["a:1", "b:1", "c:1"].map(|name| usize::from(scene.is_out_by_its_word(name)));
    assert_eq!(out(&scene).iter().sum::<usize>(), 2, "half of three, rounded up");
    for name in ["a:1", "b:1", "c:1"] {
        scene.speakers.say(name, ServingStatus::Serving).await;
    }
    assert_eq!(out(&scene), [0, 0, 0]);
    eject(&scene.stage, &scene.client, "b:1").await;
    scene.speakers.say("b:1", ServingStatus::Serving).await;
    assert_ne!(status(&scene.client, "b:1").word(), "available");
}

#[tokio::test(start_paused = true)]
async fn where_both_are_there_it_is_back_when_neither_check_nor_word_is_against_it() {
    let scene = Scene::with(
        &["a:1", "b:1", "c:1"],
        |checks| checks.idle_interval = secs(10),
        |builder, stage| {
            let asked = stage.clone();
            builder.check(move |_, endpoint| {
                let own = asked.server(&format!("check {}", endpoint.address()));
                let ask = Conn::to(own).oneshot(0);
                async move { ask.await.map(drop) }
            })
        },
    )
    .await;
    tokio::time::sleep(secs(60)).await;
    scene.speakers.say("a:1", ServingStatus::NotServing).await;
    for _ in 0..60 {
        tokio::time::sleep(secs(1)).await;
        assert!(scene.is_out_by_its_word("a:1"), "checks pass, and its word is against it");
    }
    scene.stage.server("check a:1").set(Mode::Fail(ms(1)));
    tokio::time::sleep(secs(20)).await;
    scene.speakers.say("a:1", ServingStatus::Serving).await;
    assert!(scene.is_out_by_its_word("a:1"), "its word is for it, and checks fail");
    scene.stage.server("check a:1").set(Mode::Answer(ms(1)));
    tokio::time::sleep(secs(10)).await;
    assert_eq!(scene.state("a:1"), State::Available);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_way_to_say_it_serves_and_that_is_told_once() {
    let scene = Scene::of(&["a:1", "b:1"]).await;
    scene.speakers.say("a:1", ServingStatus::Unimplemented).await;
    scene.speakers.say("a:1", ServingStatus::Unimplemented).await;
    assert_eq!(scene.state("a:1"), State::Available);
    let told = scene.heard.all().iter().filter(|event| matches!(event, Event::Unwatched { .. })).count();
    assert_eq!(told, 1);
}

#[tokio::test(start_paused = true)]
async fn each_connection_is_listened_to_for_itself_and_none_that_is_gone() {
    let (stage, speakers) = (Stage::default(), Speakers::default());
    let listened = speakers.clone();
    let (feed, resolver) = resolve::channel();
    feed.set(["a:1", "b:1"]);
    let client = stage
        .dialing(resolver)
        .options(options(|_| {}))
        .watch(move |_, endpoint| listened.listen(endpoint.address().to_string()))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    settle().await;
    assert_eq!((speakers.listeners("a:1"), speakers.listeners("b:1")), ((1, 1), (1, 1)));
    speakers.say("a:1", ServingStatus::NotServing).await;
    stage.server("a:1").set(Mode::Unsent);
    stage.server("b:1").set(Mode::Unsent);
    load(&client, 1, 4).await;
    stage.server("b:1").set(Mode::Answer(ms(1)));
    tokio::time::sleep(secs(60)).await;
    let (begun, now) = speakers.listeners("b:1");
    assert!(begun > 1 && now == 1, "{begun} {now}");
    feed.set(["a:1"]);
    settle().await;
    assert_eq!(speakers.listeners("b:1").1, 0, "it is not in the resolution any more");
    drop(client);
    settle().await;
    assert_eq!(speakers.listeners("a:1").1, 0);
}

#[test]
fn on_another_runtime_they_are_listened_to_anew() {
    let (stage, speakers) = (Stage::default(), Speakers::default());
    let listened = speakers.clone();
    let client = stage
        .dialing(resolve::fixed(["a:1", "b:1"]))
        .watch(move |_, endpoint| listened.listen(endpoint.address().to_string()))
        .build()
        .unwrap();
    for round in 1..=3 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            client.ready().await.unwrap();
            // Each runtime has a clock of its own, which stood still or was ahead.
            tokio::time::sleep(secs(1) * round as u32).await;
            assert_eq!(speakers.listeners("a:1"), (round, 1));
            speakers.say("a:1", ServingStatus::NotServing).await;
            assert_ne!(status(&client, "a:1").word(), "available");
            speakers.say("a:1", ServingStatus::Serving).await;
            assert_eq!(status(&client, "a:1").word(), "available");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_says_no_more_and_takes_nobody_along() {
    let (stage, (feed, channel)) = (Stage::default(), fed(["a:1", "b:1"]));
    let client = stage
        .builder(channel)
        .watch(|_, endpoint| {
            assert!(endpoint.address().to_string() != "a:1", "at once");
            futures::stream::once(async { panic!("later") })
        })
        .build()
        .unwrap();
    client.ready().await.unwrap();
    tokio::time::sleep(secs(10)).await;
    assert!(["a:1", "b:1"].iter().all(|name| status(&client, name).is_available()));
    feed.set(["c:1"]);
    tokio::time::sleep(secs(31)).await;
    assert_eq!(client.send(0).await.unwrap(), "c:1");
}
