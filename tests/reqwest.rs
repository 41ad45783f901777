//! `mainstay::reqwest` against axum's servers.
#![allow(missing_docs)]

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request as Asked, State},
    response::{IntoResponse as _, Response as Answer},
    routing::any,
};
use bytes::Bytes;
use mainstay::{
    Reason,
    backoff::Backoff,
    balance::{BalanceOptions, EndpointStatus, Load},
    http::Unsendable,
    random::Seeded,
    reqwest::Transport,
    resolve,
    retry::RetryPolicy,
};
use reqwest::{Client, Method, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tower::BoxError;

type Test = Result<(), BoxError>;
type Users = mainstay::Client<Transport, Request>;

/// What a server saw of a request.
#[derive(Clone, Debug)]
struct Seen {
    host: String,
    attempt: Option<String>,
    body: usize,
    peer: SocketAddr,
}

struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    log: Arc<Mutex<Vec<Seen>>>,
    running: JoinHandle<()>,
}

type Shared = (Arc<AtomicU16>, Arc<Mutex<Vec<Seen>>>);

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, log) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<Seen>>>::default());
        let shared: Shared = (status.clone(), log.clone());
        let app = Router::new().fallback(any(answer)).with_state(shared);
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let running = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, status, log, running }
    }

    fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn answer(State((status, log)): State<Shared>, request: Asked) -> Answer {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (host, attempt) = (header("host").unwrap_or_default(), header("x-attempt-count"));
    let peer = head.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().unwrap().0;
    let path = head.uri.path().to_owned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().len();
    log.lock().unwrap().push(Seen { host, attempt, body, peer });
    match &*path {
        "/redirect" => (http::StatusCode::FOUND, [("location", "/target")]).into_response(),
        "/endless" => {
            use futures::StreamExt as _;
            let first = futures::stream::iter([Ok::<_, BoxError>(Bytes::from_static(b"first"))]);
            Body::from_stream(first.chain(futures::stream::pending())).into_response()
        }
        _ => (http::StatusCode::from_u16(status.load(SeqCst)).unwrap(), path).into_response(),
    }
}

async fn fleet(servers: usize) -> Vec<Server> {
    let mut fleet = Vec::new();
    for _ in 0..servers {
        fleet.push(Server::start().await);
    }
    fleet
}

/// How fast the machine is decides nothing: load is counted, and ejections outlast the test.
fn users(fleet: &[Server]) -> Result<Users, BoxError> {
    let mut options = BalanceOptions::default();
    options.load = Load::InFlight;
    options.health.ejection = Backoff::fixed(Duration::from_secs(600));
    options.attempt_limit = Some(Duration::from_secs(30));
    let make = || Client::builder().no_proxy().retry(reqwest::retry::never());
    Ok(mainstay::reqwest::builder("users", "users.internal", make)?
        .resolve(resolve::fixed(fleet.iter().map(|server| server.address)))
        .deadline(Duration::from_secs(60))
        .balance(options)
        .retry(RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO)))
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .random(Seeded::new(7))
        .build()?)
}

fn request(method: Method, path: &str) -> Request {
    Request::new(method, format!("http://users.internal{path}").parse().unwrap())
}

fn row(users: &Users, server: &Server) -> EndpointStatus {
    let name = server.address.to_string();
    let rows = users.status().balance.endpoints;
    rows.into_iter().find(|row| *row.name == *name).expect("it is in the fleet")
}

#[tokio::test]
async fn requests_spread_over_the_servers_and_keep_their_host_and_their_url() -> Test {
    let fleet = fleet(3).await;
    let users = users(&fleet)?;
    for _ in 0..60 {
        let response = users.send(request(Method::GET, "/1")).await?;
        assert_eq!((response.url().as_str(), response.status().as_u16()), ("http://users.internal/1", 200));
        assert_eq!(response.content_length(), Some(2));
        assert_eq!(response.text().await?, "/1");
    }
    for server in &fleet {
        assert!(server.seen().len() >= 10);
        assert!(server.seen().iter().all(|seen| seen.host == "users.internal" && seen.attempt.is_none()));
        let connections: HashSet<_> = server.seen().iter().map(|seen| seen.peer).collect();
        assert_eq!(connections.len(), 1, "the connection is used again");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_in_the_url_is_what_the_server_is_told_and_not_what_is_dialled() -> Test {
    let fleet = fleet(2).await;
    let users = users(&fleet)?;
    let of_the_first = format!("http://users.internal:{}/1", fleet[0].address.port());
    for url in ["http://users.internal:7/1", &of_the_first] {
        for _ in 0..10 {
            assert_eq!(users.send(Request::new(Method::GET, url.parse()?)).await?.status(), 200);
        }
    }
    for server in &fleet {
        let hosts: HashSet<_> =
            server.seen().into_iter().map(|seen| format!("http://{}/1", seen.host)).collect();
        assert_eq!(hosts, HashSet::from(["http://users.internal:7/1".to_owned(), of_the_first.clone()]));
    }
    Ok(())
}

#[tokio::test]
async fn a_redirect_to_the_same_host_stays_with_the_endpoint() -> Test {
    let fleet = fleet(3).await;
    let users = users(&fleet)?;
    let response = users.send(request(Method::GET, "/redirect")).await?;
    assert_eq!(response.url().as_str(), "http://users.internal/target");
    assert_eq!(response.text().await?, "/target");
    let counts: Vec<_> = fleet.iter().map(|server| server.seen().len()).collect();
    assert!(counts.contains(&2), "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_request_for_another_host_is_refused_and_blames_nobody() -> Test {
    let fleet = fleet(1).await;
    let users = users(&fleet)?;
    let other = Request::new(Method::GET, "http://orders.internal/1".parse()?);
    let error = users.send(other).await.unwrap_err();
    let expected = Unsendable::OtherHost { host: "orders.internal".into(), served: "users.internal".into() };
    assert_eq!(error.downcast_ref(), Some(&expected));
    assert_eq!((row(&users, &fleet[0]).failures, fleet[0].seen().len()), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_server_that_fails_is_ejected_and_no_idempotent_request_notices() -> Test {
    let fleet = fleet(3).await;
    let users = users(&fleet)?;
    fleet[1].status.store(500, SeqCst);
    for _ in 0..60 {
        let mut put = request(Method::PUT, "/1");
        *put.body_mut() = Some("once".into());
        assert_eq!(users.send(put).await?.status(), 200);
    }
    assert_eq!((row(&users, &fleet[1]).failures, row(&users, &fleet[1]).is_available()), (5, false));
    let seen: Vec<_> = fleet.iter().flat_map(Server::seen).collect();
    assert!(seen.iter().all(|seen| seen.body == 4));
    assert_eq!(seen.iter().filter(|seen| seen.attempt.as_deref() == Some("2")).count(), 5);
    Ok(())
}

#[tokio::test]
async fn a_post_is_sent_again_only_where_nothing_was_sent_or_the_caller_allows_it() -> Test {
    let fleet = fleet(1).await;
    let users = users(&fleet)?;
    fleet[0].status.store(500, SeqCst);
    assert_eq!(users.send(request(Method::POST, "/1")).await?.status(), 500);
    assert_eq!(fleet[0].seen().len(), 1);
    let mut keyed = request(Method::POST, "/1");
    keyed.headers_mut().insert("idempotency-key", "7".parse()?);
    users.send(keyed).await?;
    assert_eq!(fleet[0].seen().len(), 4);
    users.clone().idempotent().send(request(Method::POST, "/1")).await?;
    assert_eq!(fleet[0].seen().len(), 7);
    Ok(())
}

#[tokio::test]
async fn a_dead_server_costs_no_request_whatever_it_is() -> Test {
    let fleet = fleet(2).await;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
    let make = || Client::builder().no_proxy();
    let users = mainstay::reqwest::builder("users", "users.internal", make)?
        .resolve(resolve::fixed(fleet.iter().map(|server| server.address).chain([port])))
        .build()?;
    for _ in 0..60 {
        assert_eq!(users.send(request(Method::POST, "/1")).await?.status(), 200);
    }
    assert_eq!(fleet.iter().map(|server| server.seen().len()).sum::<usize>(), 60);
    Ok(())
}

#[tokio::test]
async fn a_body_is_in_flight_until_it_ends_or_is_dropped() -> Test {
    let fleet = fleet(1).await;
    let users = users(&fleet)?;
    let mut endless = users.send(request(Method::GET, "/endless")).await?;
    assert_eq!(endless.chunk().await?.as_deref(), Some(&b"first"[..]));
    assert_eq!(row(&users, &fleet[0]).in_flight, 1);
    drop(endless);
    assert_eq!((row(&users, &fleet[0]).in_flight, row(&users, &fleet[0]).failures), (0, 0));
    let mut whole = users.send(request(Method::GET, "/1")).await?;
    while whole.chunk().await?.is_some() {}
    assert_eq!(row(&users, &fleet[0]).in_flight, 0, "though the response is still there");
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure_of_its_endpoint() -> Test {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        assert!(stream.read(&mut [0; 1024]).await? > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await
    });
    let users = mainstay::reqwest::builder("users", "users.internal", || Client::builder().no_proxy())?
        .resolve(resolve::fixed([address]))
        .build()?;
    let response = users.send(request(Method::GET, "/1")).await?;
    assert!(response.bytes().await.is_err());
    let row = &users.status().balance.endpoints[0];
    assert_eq!((row.in_flight, row.failures), (0, 1));
    Ok(())
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_off_where_that_is_asked() -> Test {
    let fleet = fleet(1).await;
    let short = std::time::Duration::from_millis(100);
    let users = mainstay::reqwest::builder("users", "users.internal", || Client::builder().no_proxy())?
        .resolve(resolve::fixed([fleet[0].address]))
        .body(mainstay::balance::BodyOptions::default().idle(short))
        .build()?;
    let response = users.send(request(Method::GET, "/endless")).await?;
    let error = response.bytes().await.unwrap_err();
    let reason = mainstay::Error::find(&error).map(mainstay::Error::reason);
    assert_eq!(reason, Some(mainstay::Reason::Stalled), "{error:?}");
    let row = row(&users, &fleet[0]);
    assert_eq!((row.in_flight, row.failures), (0, 1));
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_is_an_authority_is_looked_up() -> Test {
    let fleet = fleet(1).await;
    let make = || Client::builder().no_proxy();
    let users = mainstay::reqwest::builder("users", "users.internal", make)?
        .resolve(resolve::fixed([format!("localhost:{}", fleet[0].address.port())]))
        .build()?;
    assert_eq!(users.send(request(Method::GET, "/1")).await?.status(), 200);
    assert_eq!(fleet[0].seen()[0].host, "users.internal");
    Ok(())
}

#[tokio::test]
async fn the_clients_own_timeout_bounds_an_attempt_and_ours_the_whole() -> Test {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?; // accepts, and never answers
    let make = || Client::builder().no_proxy().timeout(Duration::from_millis(50));
    let silent = mainstay::reqwest::builder("users", "users.internal", make)?
        .resolve(resolve::fixed([listener.local_addr()?]))
        .build()?;
    let error = silent.clone().max_attempts(1).send(request(Method::GET, "/1")).await.unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().expect("reqwest's own").is_timeout());
    let error =
        silent.deadline(Duration::from_millis(20)).send(request(Method::GET, "/1")).await.unwrap_err();
    assert_eq!(mainstay::Error::find(&*error).map(mainstay::Error::reason), Some(Reason::Deadline));
    Ok(())
}

#[test]
fn what_is_no_host_and_what_cannot_be_built_is_told_at_once() {
    for host in ["", "users:80", "10.0.0.1", "[::1]", "a b", "users/1"] {
        let make = || Client::builder().user_agent("line\nbreak");
        let invalid = mainstay::reqwest::builder("users", host, make).unwrap_err();
        let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
        assert_eq!(fields, ["host", "client"], "{host:?}");
    }
}
