//! Servers of axum behind the layer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing::any};
use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::{BodyExt as _, Full};
use mainstay::{
    balance::BalanceOptions,
    context,
    http::DescriptionOptions,
    hyper::Client,
    limit::ConcurrencyLimitOptions,
    outcome::Class,
    resolve,
    server::{ServerLayer, ServerOptions},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::BoxError;

type Test = Result<(), BoxError>;

const LEFT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn client(addresses: &[SocketAddr]) -> Result<Client, BoxError> {
    let mut balance = BalanceOptions::default();
    balance.attempt_limit = Some(Duration::from_secs(30));
    balance.connect_timeout = Duration::from_secs(30);
    Ok(Client::builder("users")
        .resolve(resolve::fixed(addresses.iter().copied()))
        .description(DescriptionOptions::default().deadline_header(LEFT))
        .balance(balance)
        .deadline(Duration::from_secs(60))
        .build()?)
}

fn post() -> Request<Full<Bytes>> {
    Request::post("http://users.internal/").body(Full::from("once")).unwrap()
}

/// A server with one place, which is held until there is a permit, and the number of requests that were begun with.
async fn one_place() -> (SocketAddr, Arc<Semaphore>, Arc<AtomicU32>) {
    let (go_on, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let limit = ConcurrencyLimitOptions::default().limit(1).max_waiting(0);
    let layer = ServerLayer::new(ServerOptions::default().limit(limit)).unwrap();
    let handler = |State((go_on, begun)): State<(Arc<Semaphore>, Arc<AtomicU32>)>| async move {
        begun.fetch_add(1, SeqCst);
        go_on.acquire().await.unwrap().forget();
        "done"
    };
    let app = Router::new().fallback(any(handler)).with_state((go_on.clone(), begun.clone())).layer(layer);
    (serve(app).await, go_on, begun)
}

#[tokio::test]
async fn what_a_full_server_refuses_goes_elsewhere_even_if_it_must_not_be_processed_twice() -> Test {
    let (full, go_on, begun) = one_place().await;
    let held = tokio::spawn(client(&[full])?.send(post()));
    while begun.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let free = serve(Router::new().fallback(any(|| async { "done" }))).await;
    let users = client(&[full, free])?;
    for _ in 0..20 {
        assert_eq!(users.send(post()).await?.status(), 200);
    }
    assert_eq!(begun.load(SeqCst), 1, "what was refused was not begun with");
    let status = users.status();
    let row = status.balance.endpoints.iter().find(|row| *row.name == *full.to_string()).unwrap();
    assert_eq!(row.failures, 0, "a full server is not a bad one");
    go_on.add_permits(1);
    assert_eq!(held.await??.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_client_in_a_handler_keeps_within_the_deadline_of_who_called() -> Test {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let back = move |headers: http::HeaderMap| {
        log.lock().unwrap().push(headers[LEFT].to_str().unwrap().parse::<u64>().unwrap());
        async { "back" }
    };
    let behind = client(&[serve(Router::new().fallback(any(back))).await])?;
    let front = move || async move {
        let answer = behind.send(post()).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let front = serve(Router::new().fallback(any(front)).layer(ServerLayer::default())).await;
    let users = client(&[front])?.deadline(Duration::from_secs(20));
    assert_eq!(users.send(post()).await?.into_body().collect().await?.to_bytes(), "back");
    let left = seen.lock().unwrap()[0];
    assert!((10_000..=20_000).contains(&left), "{left} ms: the client's own would be 60 s");
    assert!(context::inherited().deadline().is_none());
    Ok(())
}

#[tokio::test]
async fn the_classifier_and_the_layer_agree_over_the_wire() -> Test {
    use mainstay::Classify as _;
    let (full, _go_on, begun) = one_place().await;
    let held = tokio::spawn(client(&[full])?.send(post()));
    while begun.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let answer = client(&[full])?.max_attempts(1).send(post()).await?;
    let verdict = mainstay::http::Classifier.classify(Ok(&answer));
    assert_eq!((answer.status().as_u16(), verdict.class()), (503, Class::BackOff));
    assert_eq!(verdict.was_sent(), mainstay::outcome::Sent::Refused);
    held.abort();
    Ok(())
}
