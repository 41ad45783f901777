//! Retries above and below each other.

use mainstay::{
    balance::Balance,
    clock,
    context::{self, Inherited},
    resolve,
};
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};

use crate::server::{Believe, FAIL, Request, Server, Test, at_once, layer, request, reserve};

#[tokio::test(start_paused = true)]
async fn layers_of_one_call_do_not_multiply() -> Test {
    for (outer, inner) in [(3, 3), (2, 5), (4, 1)] {
        let server = Server::failing();
        let budget = reserve(100);
        let service = ServiceBuilder::new()
            .layer(layer(at_once(outer))?)
            .layer(layer(at_once(inner))?.budget(budget.clone()))
            .service(server.clone());
        assert!(service.oneshot(request(1)).await.is_err());
        assert_eq!(server.count(), outer as usize);
        assert_eq!(budget.available(clock::now()), 100, "the inner one has drawn on its budget");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_inside_an_endpoint_keeps_its_own_retries() -> Test {
    let server = Server::failing();
    let nested = layer(at_once(3))?.layer(server.clone());
    let balance = Balance::builder(resolve::fixed(["a"]))
        .connect(move |_| {
            let nested = nested.clone();
            service_fn(move |_: Request| nested.clone().oneshot(request(1)))
        })
        .classify(Believe)
        .build()?;
    let service = layer(at_once(2))?.layer(balance);
    assert!(service.oneshot(request(1)).await.is_err());
    assert_eq!(server.count(), 6);
    assert!(server.seen().iter().map(|seen| seen.attempt).eq([1, 2, 3, 1, 2, 3]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_steps_aside_leaves_the_number_of_the_attempt() -> Test {
    let server = Server::failing();
    let service =
        ServiceBuilder::new().layer(layer(at_once(3))?).layer(layer(at_once(3))?).service(server.clone());
    assert!(service.oneshot(request(1)).await.is_err());
    assert!(server.seen().iter().map(|seen| seen.attempt).eq([1, 2, 3]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_called_on_behalf_of_a_retry_knows_and_what_is_called_beside_it_does_not() -> Test {
    let server = Server::failing();
    let nested = layer(at_once(2))?.layer(server.clone());
    let beside = Server::answers([]);
    let other = layer(at_once(2))?.layer(beside.clone());
    let balance = Balance::builder(resolve::fixed(["a"]))
        .connect(move |_| {
            let nested = nested.clone();
            service_fn(move |_: Request| nested.clone().oneshot(request(1)))
        })
        .classify(Believe)
        .build()?;
    let service = layer(at_once(2))?.layer(balance);
    let (failed, done) = tokio::join!(service.oneshot(request(1)), other.oneshot(request(2)));
    assert!(failed.is_err() && done.is_ok());
    assert!(server.seen().iter().map(|seen| (seen.attempt, seen.is_retry)).eq([
        (1, false),
        (2, true),
        (1, true),
        (2, true)
    ]));
    assert!(!beside.seen()[0].is_retry);
    assert!(!context::inherited().is_retry(), "it does not outlast the request");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_scopes_a_retry_has_all_its_calls_marked() -> Test {
    let server = Server::answers([]);
    let service = layer(at_once(2))?.layer(server.clone());
    context::scope(Inherited::default().with_retry(true), service.oneshot(request(1))).await?;
    assert!(server.seen()[0].is_retry);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_called_beside_another_keeps_its_own_retries() -> Test {
    let (one, other) = (Server::failing(), Server::answers([FAIL, FAIL]));
    let (first, second) = (layer(at_once(3))?.layer(one.clone()), layer(at_once(3))?.layer(other.clone()));
    let (failed, done) = tokio::join!(first.oneshot(request(1)), second.oneshot(request(2)));
    assert!(failed.is_err());
    assert_eq!((done?, one.count(), other.count()), (3, 3, 3));
    Ok::<(), BoxError>(())
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_limit_around_everything_below_is_final() -> Test {
    use mainstay::limit::{ConcurrencyLimitLayer, ConcurrencyLimitOptions};
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    let none_left = ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().limit(1).max_waiting(0))?;
    let _taken = none_left.gate().try_acquire();
    let limited = none_left.layer(service_fn(|_: Request| std::future::pending::<Result<_, BoxError>>()));
    let seen = service_fn(move |request: Request| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        limited.clone().oneshot(request)
    });
    let service = layer(at_once(3))?.layer(seen);
    assert!(service.oneshot(request(1)).await.is_err());
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
    Ok(())
}
