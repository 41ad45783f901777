//! The layer around a handler in memory.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::FutureExt as _;
use http::{Request, Response};
use mainstay::{
    clock,
    context::{self, Inherited},
    describe::Criticality,
    limit::ConcurrencyLimitOptions,
    server::{Reported, ServerLayer, ServerOptions},
};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneService};

type Handlers<B> = BoxCloneService<Request<()>, Response<Reported<B>>, Infallible>;

const MS: Duration = Duration::from_millis(1);

fn request(headers: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::get("/");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

/// What a handler sees of whoever calls it.
fn sees(layer: &ServerLayer) -> Handlers<Option<Inherited>> {
    BoxCloneService::new(layer.layer(service_fn(|_: Request<()>| async {
        tokio::task::yield_now().await;
        Ok(Response::new(Some(context::inherited())))
    })))
}

/// A handler that takes 100 ms, with the number of those that began.
fn slow(layer: &ServerLayer) -> (Handlers<()>, Arc<AtomicU32>) {
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let service = layer.layer(service_fn(move |_: Request<()>| {
        count.fetch_add(1, SeqCst);
        async {
            tokio::time::sleep(MS * 100).await;
            Ok(Response::new(()))
        }
    }));
    (BoxCloneService::new(service), begun)
}

fn limited(places: u32, waiting: u32) -> ServerLayer {
    let limit = ConcurrencyLimitOptions::default().limit(places).max_waiting(waiting);
    ServerLayer::new(ServerOptions::default().limit(limit)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_handler_inherits_what_the_headers_say_at_every_poll() {
    let asked = request(&[
        ("x-envoy-expected-rq-timeout-ms", "200"),
        ("x-attempt-count", "2"),
        ("x-criticality", "sheddable"),
    ]);
    let seen = sees(&ServerLayer::default()).oneshot(asked).await.unwrap().into_body().into_inner().unwrap();
    assert_eq!(seen.deadline(), Some(clock::now() + MS * 200));
    assert_eq!((seen.criticality(), seen.is_retry()), (Some(Criticality::Sheddable), true));
    assert_eq!(context::inherited(), Inherited::default(), "nothing is left behind");
    let bare =
        sees(&ServerLayer::default()).oneshot(request(&[])).await.unwrap().into_body().into_inner().unwrap();
    assert_eq!(bare, Inherited::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_late_never_reaches_the_handler() {
    let (service, begun) = slow(&ServerLayer::default());
    let answer = service.oneshot(request(&[("x-envoy-expected-rq-timeout-ms", "0")])).await.unwrap();
    assert_eq!((answer.status().as_u16(), begun.load(SeqCst)), (504, 0));
    assert!(answer.headers().contains_key("x-unprocessed"));
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_limit_is_refused_and_the_place_comes_back() {
    let layer = limited(1, 0);
    let (service, begun) = slow(&layer);
    let first = tokio::spawn(service.clone().oneshot(request(&[])));
    tokio::time::sleep(MS).await;
    let refused = service.clone().oneshot(request(&[])).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.headers().contains_key("x-unprocessed"));
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(layer.status().unwrap().in_flight, 0);
    assert_eq!(service.oneshot(request(&[])).await.unwrap().status(), 200);
    assert_eq!(begun.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longer_than_it_has_is_refused_before_the_handler() {
    let layer = limited(1, 10);
    let (service, begun) = slow(&layer);
    let first = tokio::spawn(service.clone().oneshot(request(&[])));
    tokio::time::sleep(MS).await;
    let start = clock::now();
    let late = service.oneshot(request(&[("x-envoy-expected-rq-timeout-ms", "20")])).await.unwrap();
    assert_eq!(late.status(), 504);
    assert!(clock::now() - start <= MS * 21);
    first.await.unwrap().unwrap();
    assert_eq!((begun.load(SeqCst), layer.status().unwrap().waiting), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_matters_more_goes_first() {
    let (service, _) = slow(&limited(1, 10));
    let ask = |word: &'static str| {
        let service = service.clone();
        async move {
            service.oneshot(request(&[("x-criticality", word)])).await.unwrap();
            word
        }
    };
    let order = futures::stream::FuturesUnordered::from_iter(
        ["critical", "sheddable", "critical_plus"].map(|word| ask(word).boxed()),
    );
    let order: Vec<_> = futures::StreamExt::collect(order).await;
    assert_eq!(order, ["critical", "critical_plus", "sheddable"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_at_any_point_gives_its_place_back() {
    let layer = limited(1, 10);
    let (service, _) = slow(&layer);
    drop(service.clone().oneshot(request(&[])));
    let mut inside = Box::pin(service.clone().oneshot(request(&[])));
    assert!(inside.as_mut().now_or_never().is_none());
    let mut waiting = Box::pin(service.clone().oneshot(request(&[])));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!((layer.status().unwrap().in_flight, layer.status().unwrap().waiting), (1, 1));
    drop(waiting);
    drop(inside);
    assert_eq!((layer.status().unwrap().in_flight, layer.status().unwrap().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_gives_its_place_back() {
    let layer = limited(1, 0);
    let service = layer.layer(service_fn(|_: Request<()>| async {
        if std::hint::black_box(true) {
            panic!("the handler");
        }
        Ok::<_, Infallible>(Response::new(()))
    }));
    assert!(tokio::spawn(service.oneshot(request(&[]))).await.is_err());
    assert_eq!(layer.status().unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn options_are_replaced_while_requests_run() {
    let layer = limited(1, 0);
    let (service, _) = slow(&layer);
    let first = tokio::spawn(service.clone().oneshot(request(&[])));
    tokio::time::sleep(MS).await;
    layer.update(ServerOptions::default()).unwrap();
    assert_eq!(layer.status(), None);
    assert_eq!(service.clone().oneshot(request(&[])).await.unwrap().status(), 200);
    let two = ServerOptions::default().limit(ConcurrencyLimitOptions::default().limit(2));
    layer.update(two.clone()).unwrap();
    assert_eq!(layer.status().unwrap().limit, 2);
    assert!(layer.update(two.retry_after(Duration::ZERO)).is_err());
    assert_eq!(layer.options().retry_after, Duration::from_secs(1), "nothing was changed");
    first.await.unwrap().unwrap();
}
