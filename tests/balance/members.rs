//! Endpoints that come, go and change.

use mainstay::{
    Endpoint, Reason,
    balance::BalanceStatus,
    endpoint::Reported,
    resolve::{self, Resolution},
};

use crate::stage::*;

fn names(status: &BalanceStatus) -> Vec<String> {
    status.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect()
}

/// Gives `a:1` a past: answers, a failure, and something in flight.
async fn with_a_past(stage: &Stage, client: &Client) -> tokio::task::JoinHandle<Reply> {
    load(client, 4, 40).await;
    stage.server("a:1").set(Mode::Fail(ms(1)));
    stage.server("b:1").set(Mode::Fail(ms(1)));
    client.send(0).await.unwrap_err();
    client.send(0).await.unwrap_err();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(secs(2)));
    }
    let held = tokio::spawn(futures::future::join(client.send(0), client.send(0)));
    settle().await;
    tokio::spawn(async move { held.await.unwrap().0 })
}

fn past(client: &Client) -> (u64, u64, u32, bool) {
    let status = status(client, "a:1");
    (status.successes, status.failures, status.in_flight, status.estimate.is_some())
}

#[tokio::test(start_paused = true)]
async fn state_survives_a_new_resolution_an_order_a_weight_and_metadata() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage.client(channel);
    let held = with_a_past(&stage, &client).await;
    let before = past(&client);
    assert!(before.0 > 0 && before.2 == 1 && before.3, "{before:?}");
    feed.set([Endpoint::new("b:1"), Endpoint::new("a:1").with_weight(3.0).with_metadata("rack", "7")]);
    settle().await;
    assert_eq!(past(&client), before);
    assert_eq!(status(&client, "a:1").endpoint.weight(), 3.0, "the new data is there");
    held.await.unwrap().unwrap();
    assert_eq!(past(&client).2, 0);
}

#[tokio::test(start_paused = true)]
async fn state_survives_an_absence_of_less_than_a_minute_and_not_more() {
    for (absence, kept) in [(59, true), (61, false)] {
        let stage = Stage::default();
        let (feed, channel) = fed(["a:1", "b:1"]);
        let client = stage.client(channel);
        load(&client, 4, 40).await;
        let before = status(&client, "a:1").successes;
        feed.set(["b:1"]);
        tokio::time::sleep(secs(absence)).await;
        feed.set(["a:1", "b:1"]);
        settle().await;
        assert_eq!(status(&client, "a:1").successes, if kept { before } else { 0 }, "after {absence} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_survives_an_absence() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1", "c:1"]);
    let client = stage.client(channel);
    eject(&stage, &client, "a:1").await;
    feed.set(["b:1", "c:1"]);
    settle().await;
    feed.set(["a:1", "b:1", "c:1"]);
    settle().await;
    assert_eq!(status(&client, "a:1").word(), "ejected");
}

#[tokio::test(start_paused = true)]
async fn endpoints_come_go_and_change_weight_under_load_without_an_error() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1", "c:1"]);
    let client = stage.client(channel);
    let running = tokio::spawn({
        let client = client.clone();
        async move { load(&client, 30, 6_000).await }
    });
    for round in 0..100 {
        tokio::time::sleep(ms(7)).await;
        let keep = |index: &usize| !(round + index).is_multiple_of(3);
        feed.set((0..6).filter(keep).map(|index| {
            Endpoint::new(format!("{index}:1")).with_weight(1.0 + ((round * index) % 4) as f64)
        }));
    }
    assert_eq!(running.await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_gets_nothing_more_and_finishes_what_it_has() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let held = tokio::spawn(client.send(0));
    settle().await;
    feed.set(["b:1"]);
    settle().await;
    for _ in 0..50 {
        assert_eq!(client.send(0).await.unwrap(), "b:1");
    }
    assert_eq!(held.await.unwrap().unwrap(), "a:1");
    assert_eq!(stage.server("a:1").served(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_not_given_to_an_endpoint_that_is_removed_meanwhile() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    stage.server("a:1").gate(Gate::Shut);
    stage.server("b:1").gate(Gate::Shut);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    feed.set(["b:1"]);
    settle().await;
    assert_eq!(stage.server("a:1").services(), 0, "it does not even hold on to its service");
    stage.server("a:1").gate(Gate::Open);
    settle().await;
    assert!(!waiting.is_finished());
    stage.server("b:1").gate(Gate::Open);
    assert_eq!(waiting.await.unwrap().unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn the_failures_of_a_removed_endpoint_are_not_counted_against_the_others() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    stage.server("a:1").set(Mode::Fail(ms(500)));
    let held: Vec<_> = (0..20).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    feed.set(["b:1", "c:1"]);
    settle().await;
    for held in held {
        held.await.unwrap().unwrap_err();
    }
    settle().await;
    let status = client.status();
    assert!(!status.panic && status.endpoints.iter().all(mainstay::balance::EndpointStatus::is_available));
    assert_eq!(load(&client, 5, 100).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_draining_endpoint_gets_nothing_new() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed([
        Endpoint::new("a:1").with_reported(Reported::Draining),
        Endpoint::new("b:1"),
        Endpoint::new("c:1"),
    ]));
    assert_eq!(load(&client, 5, 100).await, 0);
    assert_eq!(stage.server("a:1").served(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_its_registry_finds_unhealthy_is_used_only_when_nothing_else_is_left() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let unhealthy = || Endpoint::new("a:1").with_reported(Reported::Unhealthy);
    feed.set([unhealthy(), Endpoint::new("b:1")]);
    let client = stage.client(channel);
    assert_eq!(load(&client, 5, 100).await, 0);
    assert_eq!(stage.server("a:1").served(), 0);
    feed.set([unhealthy(), Endpoint::new("b:1").with_reported(Reported::Draining)]);
    settle().await;
    assert_eq!(client.send(0).await.unwrap(), "a:1");
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_and_an_absent_name_take_effect_after_the_grace_period() {
    for loss in [Resolution::bound([""; 0]), Resolution::Absent] {
        let stage = Stage::default();
        let (feed, channel) = fed(["a:1"]);
        let client = stage.client(channel);
        client.send(0).await.unwrap();
        feed.send(loss);
        tokio::time::sleep(secs(29)).await;
        client.send(0).await.unwrap();
        tokio::time::sleep(secs(2)).await;
        assert_eq!(reason(&client.send(0).await), Some(Reason::Absent));
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_can_be_changed_while_running() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    client.send(0).await.unwrap();
    client.update(options(|options| options.grace = secs(2))).unwrap();
    settle().await;
    feed.send(Resolution::Absent);
    tokio::time::sleep(secs(3)).await;
    assert_eq!(reason(&client.send(0).await), Some(Reason::Absent));
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_and_an_absent_name_refuse_at_once_where_there_was_nothing() {
    for nothing in [Resolution::bound([""; 0]), Resolution::Absent] {
        let stage = Stage::default();
        let (feed, channel) = resolve::channel();
        feed.send(nothing);
        let client = stage.client(channel);
        let start = crate::stage::now();
        assert_eq!(reason(&client.send(0).await), Some(Reason::Absent));
        assert_eq!(crate::stage::now(), start);
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_fails_or_ends_keeps_the_set() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1"]);
    let client = stage.client(channel);
    client.send(0).await.unwrap();
    feed.send(Resolution::Failed(std::sync::Arc::new(mainstay::Error::new(Reason::Connect))));
    settle().await;
    client.send(0).await.unwrap();
    assert!(client.status().resolution_failure.is_some(), "the status tells it");
    drop(feed);
    tokio::time::sleep(secs(3_600)).await;
    client.send(0).await.unwrap();
    assert_eq!(names(&client.status()), ["a:1"]);
}

/// Ends, and does not want to be asked again.
struct Once(Option<Resolution>, bool);

impl resolve::Resolve for Once {
    fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Resolution>> {
        assert!(!self.1, "polled after its end");
        let next = self.0.take();
        self.1 = next.is_none();
        std::task::Poll::Ready(next)
    }

    fn describe(&self) -> String {
        "once".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_has_ended_is_never_asked_again() {
    let stage = Stage::default();
    let client = stage.client(Once(Some(Resolution::bound(["a:1", "b:1"])), false));
    stage.server("a:1").gate(Gate::Broken);
    for _ in 0..20 {
        client.send(0).await.unwrap();
        tokio::time::sleep(ms(100)).await;
    }
}

/// Has something new to say whenever it is asked.
struct Endless(u64);

impl resolve::Resolve for Endless {
    fn poll_next(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Resolution>> {
        self.0 += 1;
        let other = format!("{}:2", self.0 % 3);
        std::task::Poll::Ready(Some(Resolution::bound(["a:1".to_owned(), other])))
    }

    fn describe(&self) -> String {
        "endless".to_owned()
    }
}

#[tokio::test]
async fn a_resolver_that_never_stops_talking_starves_nobody() {
    let stage = Stage::default();
    let client = stage.dialing(Endless(0)).build().unwrap();
    let reply = tokio::time::timeout(secs(20), client.send(0)).await;
    assert!(reply.is_ok_and(|reply| reply.is_ok()), "dials are made and seen");
}

#[tokio::test(start_paused = true)]
async fn how_long_the_state_of_a_removed_endpoint_is_kept_can_be_changed_while_running() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage
        .builder(channel)
        .options(options(|options| options.keep_removed = secs(3_600)))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    client.endpoint(Endpoint::new("a:1").identity()).unwrap().drain();
    feed.set(["b:1"]);
    settle().await;
    client.update(options(|options| options.keep_removed = secs(10))).unwrap();
    tokio::time::sleep(secs(11)).await;
    feed.set(["a:1", "b:1"]);
    settle().await;
    assert_eq!(status(&client, "a:1").word(), "available");
}
