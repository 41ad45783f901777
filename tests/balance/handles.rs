//! Handles: what they hold, and what ends with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use mainstay::{
    Reason,
    balance::{Attempt, Balance, BalanceBuilder, BalanceOptions, BalanceStatus, Shared},
    resolve::{self, Resolution, Resolve},
};
use tower::{BoxError, Service, ServiceExt};

use crate::stage::*;

/// Never resolves to anything new, and tells when it is dropped.
struct Told(Option<Resolution>, Arc<AtomicBool>);

impl Resolve for Told {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.0.take().map_or(Poll::Pending, |resolution| Poll::Ready(Some(resolution)))
    }

    fn describe(&self) -> String {
        "told".to_owned()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.1.store(true, SeqCst);
    }
}

fn told() -> (Told, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Told(Some(Resolution::bound(["a:1"])), dropped.clone()), dropped)
}

#[tokio::test(start_paused = true)]
async fn an_idle_handle_does_not_keep_the_service_of_a_removed_endpoint() {
    let stage = Stage::default();
    let (feed, channel) = fed(["a:1", "b:1"]);
    let client = stage.client(channel);
    let idle = client.clone();
    load(&client, 2, 20).await;
    feed.set(["b:1"]);
    settle().await;
    assert_eq!(stage.server("a:1").services(), 0);
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn the_background_task_ends_with_the_last_handle() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = stage.client(resolver);
    client.send(0).await.unwrap();
    let clone = client.clone();
    drop(client);
    tokio::time::sleep(secs(1)).await;
    assert!(!dropped.load(SeqCst), "there is another handle");
    drop(clone);
    tokio::time::sleep(secs(1)).await;
    assert!(dropped.load(SeqCst));
    assert_eq!(stage.server("a:1").services(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_keeps_the_task_until_it_ends() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = stage.client(resolver);
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let held = tokio::spawn(client.send(0));
    settle().await;
    drop(client);
    tokio::time::sleep(secs(1)).await;
    assert!(!dropped.load(SeqCst));
    held.await.unwrap().unwrap();
    tokio::time::sleep(secs(1)).await;
    assert!(dropped.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_before_the_first_call() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = stage.client(resolver);
    settle().await;
    assert!(!client.status().resolved);
    drop(client);
    assert!(dropped.load(SeqCst), "nothing else held it");
}

#[tokio::test(start_paused = true)]
async fn it_is_always_ready_and_readiness_holds_nothing() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let mut client = stage.client(channel);
    let ready = Service::<u32>::poll_ready(&mut client, &mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    assert_eq!((client.in_flight(), client.status().waiting), (0, 0));
    let never_called = client.clone();
    drop(client);
    assert_eq!(never_called.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_ready_handle_is_a_handle_of_its_own() {
    let stage = Stage::default();
    let mut client = stage.client(resolve::fixed(["a:1"]));
    let ready = ServiceExt::<u32>::ready(&mut client).await.unwrap();
    let mut clone = ready.clone();
    assert_eq!(clone.call(0).await.unwrap(), "a:1");
    assert_eq!(ready.call(0).await.unwrap(), "a:1");
}

#[tokio::test(start_paused = true)]
async fn close_refuses_waits_and_ends_the_task() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = stage.client(resolver);
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let held = tokio::spawn(client.send(0));
    settle().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(secs(10)).await }
    });
    settle().await;
    assert_eq!(reason(&client.send(0).await), Some(Reason::Closed));
    assert_eq!(client.ready().await.unwrap_err().reason(), Reason::Closed);
    assert!(!closing.is_finished(), "there is a request in flight");
    assert!(closing.await.unwrap());
    held.await.unwrap().unwrap();
    assert!(dropped.load(SeqCst) && client.status().closed);
}

#[tokio::test(start_paused = true)]
async fn close_refuses_those_that_wait() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    assert!(client.close(secs(1)).await);
    assert_eq!(reason(&waiting.await.unwrap()), Some(Reason::Closed));
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_waiting_in_time() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let held = tokio::spawn(client.send(0));
    settle().await;
    assert!(!client.close(secs(1)).await);
    held.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_before_the_first_call_lets_the_resolver_go() {
    let stage = Stage::default();
    let (resolver, dropped) = told();
    let client = stage.client(resolver);
    assert!(client.close(secs(1)).await);
    assert!(dropped.load(SeqCst));
    assert_eq!(reason(&client.send(0).await), Some(Reason::Closed));
}

fn is_a_handle<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
fn is_sent<T: Send + std::fmt::Debug>() {}

/// A service that may be sent and shared, whose future may only be sent.
#[derive(Clone, Debug)]
struct Sendable;

impl Service<u32> for Sendable {
    type Response = std::cell::Cell<u32>;
    type Error = BoxError;
    type Future =
        std::pin::Pin<Box<dyn std::future::Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        Box::pin(async { Ok(std::cell::Cell::new(0)) })
    }
}

#[test]
fn handles_are_cloned_sent_and_shared_and_attempts_are_sent() {
    is_a_handle::<Balance<Sendable, u32>>();
    is_a_handle::<BalanceStatus>();
    is_a_handle::<BalanceOptions>();
    is_sent::<Attempt<Sendable, u32>>();
    is_sent::<BalanceBuilder<Sendable, u32>>();
    is_a_handle::<Shared<Sendable>>();
    // A request that cannot be shared between threads is no obstacle.
    fn with_a_cell<S: Service<std::cell::Cell<u32>, Error = BoxError> + Clone + Send + Sync + 'static>()
    where
        S::Response: 'static,
        S::Future: Send,
    {
        is_a_handle::<Balance<S, std::cell::Cell<u32>>>();
        is_sent::<Attempt<S, std::cell::Cell<u32>>>();
    }
    let _ = with_a_cell::<tower::util::BoxCloneSyncService<std::cell::Cell<u32>, (), BoxError>>;
}
