//! The contract of `poll_ready`.

use std::{
    future::{Ready, poll_fn, ready},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use mainstay::{balance::Balance, deadline::DeadlineLayer, resolve};
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimit};

use crate::server::{Answer, Believe, FAIL, MS, Request, Server, Test, at_once, bad_number, layer, request};

/// Must be readied before each call, and a clone is not ready. Its readiness may fail from the n-th on.
struct Strict {
    inner: Server,
    ready: bool,
    readied: Arc<AtomicU32>,
    fails_from: u32,
}

impl Strict {
    fn new(inner: Server, fails_from: u32) -> Self {
        Self { inner, ready: false, readied: Arc::default(), fails_from }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let (inner, readied) = (self.inner.clone(), self.readied.clone());
        Self { inner, ready: false, readied, fails_from: self.fails_from }
    }
}

impl Service<Request> for Strict {
    type Response = u32;
    type Error = BoxError;
    type Future = <Server as Service<Request>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.ready {
            if self.readied.fetch_add(1, SeqCst) + 1 >= self.fails_from {
                return Poll::Ready(Err("never ready again".into()));
            }
            self.ready = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been readied");
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_readied_is_called_and_every_further_attempt_readies_its_clone() -> Test {
    let server = Server::answers([FAIL, FAIL]);
    let strict = Strict::new(server.clone(), u32::MAX);
    let mut service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(MS * 1_000))
        .layer(layer(at_once(3))?)
        .service(strict.clone());
    for _ in 0..3 {
        // Ready stays ready: asking again reserves nothing more.
        poll_fn(|cx| service.poll_ready(cx)).await?;
    }
    assert_eq!(strict.readied.load(SeqCst), 1);
    assert_eq!(service.call(request(1)).await?, 3);
    assert_eq!(strict.readied.load(SeqCst), 3);
    // The clone that took the place of the one that was called is readied like any other.
    service.ready().await?.call(request(2)).await?;
    assert_eq!(strict.readied.load(SeqCst), 4);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn clones_are_readied_by_themselves() -> Test {
    let server = Server::answers([]);
    let strict = Strict::new(server.clone(), u32::MAX);
    let mut first = layer(at_once(3))?.layer(strict.clone());
    first.ready().await?;
    let mut second = first.clone();
    second.ready().await?.call(request(1)).await?;
    first.call(request(2)).await?;
    assert_eq!((server.count(), strict.readied.load(SeqCst)), (2, 2));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_keeps_the_layers_from_being_ready() -> Test {
    let limited = ConcurrencyLimit::new(Server::answers([Answer::Hang]), 1);
    let mut service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(MS * 1_000))
        .layer(layer(at_once(3))?)
        .service(limited);
    let mut other = service.clone();
    service.ready().await?;
    assert!(poll_fn(|cx| Poll::Ready(other.poll_ready(cx))).await.is_pending());
    // Dropped without a call, it gives its place back.
    drop(service);
    other.ready().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_error_while_a_further_attempt_is_readied_is_that_attempts_result() -> Test {
    let server = Server::failing();
    let service = layer(at_once(3))?.layer(Strict::new(server.clone(), 2));
    let error = service.oneshot(request(1)).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), server.count()), ("never ready again", 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn handles_over_a_balancer_that_are_ready_and_never_called_hold_nothing() -> Test {
    let server = ConcurrencyLimit::new(Server::answers([]), 1);
    let balance =
        Balance::builder(resolve::fixed(["a"])).connect(move |_| server.clone()).classify(Believe).build()?;
    let service = layer(at_once(3))?.layer(balance.clone());
    let mut handles = vec![service.clone(); 1_000];
    for handle in &mut handles {
        handle.ready().await?;
    }
    assert_eq!(service.oneshot(request(1)).await?, 1);
    assert_eq!(balance.in_flight(), 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_handle_may_have_many_calls_under_way() -> Test {
    let server = Server::new(|n| if n <= 10 { Answer::FailIn(MS * 10) } else { Answer::In(MS * 10) });
    let mut service = layer(at_once(2))?.layer(server);
    let mut calls = Vec::new();
    for id in 0..10 {
        calls.push(service.ready().await?.call(request(id)));
    }
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|result| bad_number(result).is_none()));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn futures_are_send_where_the_services_are() -> Test {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let balance = Balance::new(resolve::fixed(["a"]), |_| Server::answers([]));
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(MS * 1_000))
        .layer(layer(at_once(3))?)
        .service(balance);
    let call = is_send(is_send(service).oneshot(request(1)));
    assert_eq!(tokio::spawn(call).await??, 1);
    Ok(())
}

/// A service whose futures cannot be moved to another thread is served all the same.
#[tokio::test(start_paused = true)]
async fn services_that_are_not_send_are_served_where_they_are() -> Test {
    #[derive(Clone)]
    struct Local(std::rc::Rc<()>);
    impl Service<Request> for Local {
        type Response = u32;
        type Error = BoxError;
        type Future = Ready<Result<u32, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request) -> Self::Future {
            ready(Ok(7))
        }
    }
    let local = Local(std::rc::Rc::default());
    assert_eq!(layer(at_once(3))?.layer(local.clone()).oneshot(request(1)).await?, 7);
    drop(local.0);
    Ok(())
}
