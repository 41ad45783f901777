//! Breakers of a client and of its methods.

use mainstay::{
    Reason, Verdict,
    breaker::{BreakerOptions, State},
    limit::ConcurrencyLimitOptions,
    resolve,
};

use crate::fleet::*;

fn three() -> BreakerOptions {
    BreakerOptions::default().consecutive(3)
}

#[tokio::test(start_paused = true)]
async fn there_is_none_unless_asked_for() {
    let client = client(&Stage::default(), resolve::fixed(["a:1"]));
    assert!(client.breaker().is_none() && client.status().breaker.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_clients_breaker_counts_attempts_refuses_all_views_and_comes_back() {
    let stage = Stage::default();
    let client =
        builder(&stage, resolve::fixed(["a:1", "b:1"])).retry(at_once(1)).breaker(three()).build().unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    assert_eq!(load(&client, 1, 3).await, 3);
    let served = |stage: &Stage| stage.server("a:1").served() + stage.server("b:1").served();
    let before = served(&stage);
    let refused = client.method("other").send(1).await;
    assert_eq!((reason(&refused), served(&stage)), (Some(Reason::Breaker), before));
    let status = client.status().breaker.unwrap();
    assert_eq!((status.state, status.refused, status.opened), (State::Open, 1, 1));
    assert!(client.explain().remarks.iter().any(|remark| remark == "the breaker users is open"));
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(1)));
    }
    tokio::time::sleep(secs(6)).await;
    assert!(client.send(1).await.is_ok());
    assert_eq!(client.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_it_refuses_is_not_retried_and_not_taken_from_the_budget() {
    let stage = Stage::default();
    let client =
        builder(&stage, resolve::fixed(["a:1"])).budget(reserve(9)).breaker(three()).build().unwrap();
    client.ready().await.unwrap();
    client.breaker().unwrap().force_open();
    assert_eq!(reason(&client.send(1).await), Some(Reason::Breaker));
    let status = client.status();
    assert_eq!((status.retries, status.budget_available, status.breaker.unwrap().refused), (0, 9, 1));
}

#[tokio::test(start_paused = true)]
async fn a_methods_breaker_is_its_own_and_its_clones() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).retry(at_once(1)).build().unwrap();
    let search = client.method("search").guarded_by(three()).unwrap();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    stage.server("b:1").set(Mode::Fail(ms(1)));
    assert_eq!(load(&search, 1, 3).await, 3);
    assert_eq!(reason(&search.clone().send(1).await), Some(Reason::Breaker));
    assert_ne!(reason(&client.send(1).await), Some(Reason::Breaker));
    assert_eq!(search.breaker().unwrap().name(), "search");
    assert!(client.method("search").guarded_by(three().probes(0, 0)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_client_that_its_method_refuses_is_given_back() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).breaker(three()).build().unwrap();
    let search = client.method("search").guarded_by(three()).unwrap();
    client.breaker().unwrap().open_for(secs(1));
    search.breaker().unwrap().force_open();
    tokio::time::sleep(secs(2)).await;
    assert_eq!(reason(&search.send(1).await), Some(Reason::Breaker));
    assert_eq!(client.breaker().unwrap().status().probing, 0);
    assert!(client.send(1).await.is_ok());
    assert_eq!(client.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_refused_future_that_is_kept_keeps_neither_a_probe_nor_a_place() {
    let stage = Stage::default();
    let limit = ConcurrencyLimitOptions::default().limit(1);
    let client = builder(&stage, resolve::fixed(["a:1"])).limit(limit).breaker(three()).build().unwrap();
    let search = client.method("search").guarded_by(three()).unwrap();
    client.breaker().unwrap().open_for(secs(1));
    search.breaker().unwrap().force_open();
    tokio::time::sleep(secs(2)).await;
    let mut kept = Box::pin(search.send(1));
    assert_eq!(reason(&kept.as_mut().await), Some(Reason::Breaker));
    assert_eq!(client.breaker().unwrap().status().probing, 0);
    assert_eq!(client.status().limit.unwrap().in_flight, 0);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_client_without_endpoints_does_not_trip_it_whatever_the_classifier_says() {
    let nobody: [&str; 0] = [];
    let client = builder(&Stage::default(), resolve::fixed(nobody))
        .classify(|answer: Result<&String, &tower::BoxError>| match answer {
            Ok(_) => Verdict::success(),
            Err(_) => Verdict::failure(),
        })
        .breaker(BreakerOptions::default().consecutive(1))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_ne!(reason(&client.send(1).await), Some(Reason::Breaker));
    }
    assert_eq!(client.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_gives_its_probe_back() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).breaker(three()).build().unwrap();
    client.breaker().unwrap().open_for(secs(1));
    tokio::time::sleep(secs(2)).await;
    stage.server("a:1").set(Mode::Hang);
    assert!(tokio::time::timeout(ms(50), client.send(1)).await.is_err());
    assert_eq!(client.breaker().unwrap().status().probing, 0);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_added_changed_and_taken_away_while_the_client_runs() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let set = |breaker: Option<BreakerOptions>| {
        let mut options = client.options();
        options.breaker = breaker;
        client.update(options)
    };
    set(Some(three())).unwrap();
    client.breaker().unwrap().open_for(secs(60));
    set(Some(three().open(secs(99)))).unwrap();
    assert_eq!(client.breaker().unwrap().status().remaining, Some(secs(60)));
    assert!(set(Some(three().probes(0, 0))).is_err());
    set(None).unwrap();
    assert!(client.breaker().is_none() && client.send(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn its_events_go_to_the_clients_observers() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client =
        builder(&stage, resolve::fixed(["a:1"])).observe(heard.observer()).breaker(three()).build().unwrap();
    client.breaker().unwrap().open_for(secs(1));
    tokio::time::sleep(secs(2)).await;
    assert_eq!((heard.count("breaker_opened"), heard.count("breaker_half_opened")), (1, 1));
}
