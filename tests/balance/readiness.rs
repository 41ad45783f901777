//! Services of endpoints that are not ready, or say that they never will be.

use mainstay::resolve;

use crate::stage::*;

#[tokio::test(start_paused = true)]
async fn where_one_endpoint_is_not_ready_another_is_picked_within_the_attempt() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    stage.server("a:1").gate(Gate::Shut);
    for _ in 0..50 {
        assert_eq!(client.send(0).await.unwrap(), "b:1");
    }
    assert_eq!(status(&client, "a:1").in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn where_none_is_ready_the_request_waits_for_either_of_two() {
    for first in ["a:1", "b:1"] {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1", "b:1"]));
        stage.server("a:1").gate(Gate::Shut);
        stage.server("b:1").gate(Gate::Shut);
        let waiting = tokio::spawn(client.send(0));
        settle().await;
        assert!(!waiting.is_finished());
        stage.server(first).gate(Gate::Open);
        assert_eq!(waiting.await.unwrap().unwrap(), first);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_does_not_stand_in_for_one_that_is_not_ready() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    eject(&stage, &client, "a:1").await;
    stage.forget_served();
    stage.server("b:1").gate(Gate::Shut);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    assert_eq!(stage.served(), [0, 0]);
    stage.server("b:1").gate(Gate::Open);
    assert_eq!(waiting.await.unwrap().unwrap(), "b:1");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_is_made_anew_and_nobody_sees_an_error() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    client.send(0).await.unwrap();
    stage.server("a:1").gate(Gate::Broken);
    assert_eq!(load(&client, 5, 500).await, 0);
    let a = stage.server("a:1");
    assert!(a.made() > 1);
    a.gate(Gate::Open);
    tokio::time::sleep(secs(31)).await;
    let before = a.served();
    assert_eq!(load(&client, 5, 500).await, 0);
    assert!(a.served() > before + 100, "it is back");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_always_broken_is_made_less_and_less_often() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    stage.server("a:1").gate(Gate::Broken);
    let until = crate::stage::now() + secs(60);
    while crate::stage::now() < until {
        client.send(0).await.unwrap();
    }
    // Full jitter over 100 ms, 200 ms, ... 30 s: about nine doublings in a minute.
    assert!(stage.server("a:1").made() < 30, "{}", stage.server("a:1").made());
}

#[tokio::test(start_paused = true)]
async fn a_single_broken_endpoint_makes_the_request_wait_until_it_is_made_anew() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    client.send(0).await.unwrap();
    stage.server("a:1").gate(Gate::Broken);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    stage.server("a:1").gate(Gate::Open);
    waiting.await.unwrap().unwrap();
}

/// Never ready, or ready for one request at a time.
#[derive(Clone)]
enum Gated {
    Never,
    One(tower::limit::ConcurrencyLimit<Slow>),
}

/// Answers after so many milliseconds as it is asked to.
#[derive(Clone)]
struct Slow;

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<u64, tower::BoxError>> + Send>>;

impl tower::Service<u64> for Slow {
    type Response = u64;
    type Error = tower::BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), tower::BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, millis: u64) -> Answer {
        Box::pin(async move {
            tokio::time::sleep(ms(millis)).await;
            Ok(millis)
        })
    }
}

impl tower::Service<u64> for Gated {
    type Response = u64;
    type Error = tower::BoxError;
    type Future = Answer;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), tower::BoxError>> {
        match self {
            Self::Never => std::task::Poll::Pending,
            Self::One(limited) => limited.poll_ready(cx),
        }
    }

    fn call(&mut self, millis: u64) -> Answer {
        match self {
            Self::Never => Box::pin(std::future::pending()),
            Self::One(limited) => Box::pin(limited.call(millis)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_endpoint_becomes_ready_first_wakes_the_request() {
    for _ in 0..20 {
        let connect = |endpoint: &mainstay::Endpoint| {
            mainstay::balance::Shared::new(match endpoint.address().to_string().as_str() {
                "c:1" => Gated::One(tower::limit::ConcurrencyLimit::new(Slow, 1)),
                _ => Gated::Never,
            })
        };
        let client = mainstay::balance::Balance::new(resolve::fixed(["a:1", "b:1", "c:1"]), connect);
        let first = tokio::spawn(client.send(20));
        settle().await;
        let start = crate::stage::now();
        assert_eq!(client.send(1).await.unwrap(), 1);
        assert!(crate::stage::now() - start < ms(100), "{:?}", crate::stage::now() - start);
        first.await.unwrap().unwrap();
    }
}
