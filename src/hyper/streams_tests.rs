//! How many connections there are to a server, and how old they become.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ::http::{Request, Response};
use ::hyper::{body::Incoming, service::service_fn};
use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tower::{BoxError, Service as _, ServiceExt as _};

use super::*;
use crate::{Endpoint, clock};

type Body = Empty<Bytes>;

/// A server whose handlers wait for a permit each, and then say over which connection they were asked.
struct Server {
    address: SocketAddr,
    log: Arc<Log>,
    accepting: JoinHandle<()>,
    /// Its port, while it listens there.
    port: Option<std::net::TcpListener>,
}

struct Log {
    accepted: Mutex<Vec<Instant>>,
    open: AtomicUsize,
    inside: AtomicUsize,
    permits: Semaphore,
    /// How long it says nothing on a connection.
    silent: Mutex<Duration>,
    /// How long it keeps a connection, if it says anything there at all.
    keeps: Mutex<Duration>,
}

impl Server {
    /// Of so many streams a connection; 0 for HTTP/1.1.
    async fn start(streams: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().into_std().unwrap();
        let (port, listener) = (listener.try_clone().unwrap(), TcpListener::from_std(listener).unwrap());
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log {
            accepted: Mutex::default(),
            open: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            permits: Semaphore::new(0),
            silent: Mutex::default(),
            keeps: Mutex::new(Duration::from_secs(3_600)),
        });
        let own = log.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, io) = (own.clone(), TokioIo::new(stream));
                own.accepted.lock().unwrap().push(clock::now());
                own.open.fetch_add(1, SeqCst);
                let number = own.accepted();
                tokio::spawn(async move {
                    let (log, silent) = (own.clone(), *own.silent.lock().unwrap());
                    let keeps = *own.keeps.lock().unwrap();
                    tokio::time::sleep(silent).await;
                    if keeps.is_zero() {
                        own.open.fetch_sub(1, SeqCst);
                        return;
                    }
                    let answer = service_fn(move |_: Request<Incoming>| {
                        let log = log.clone();
                        async move {
                            log.inside.fetch_add(1, SeqCst);
                            log.permits.acquire().await.unwrap().forget();
                            log.inside.fetch_sub(1, SeqCst);
                            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(number.to_string())))
                        }
                    });
                    if streams == 0 {
                        drop(::hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await);
                    } else {
                        let mut builder = ::hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.max_concurrent_streams(streams);
                        drop(tokio::time::timeout(keeps, builder.serve_connection(io, answer)).await);
                    }
                    own.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, log, accepting, port: Some(port) }
    }

    async fn connect(&self, options: ConnectorOptions) -> Transport<Body> {
        let endpoint = Arc::new(Endpoint::new(self.address));
        Connector::new(options).unwrap().call(endpoint).await.unwrap()
    }

    /// Answers so many.
    fn answer(&self, requests: usize) {
        self.log.permits.add_permits(requests);
    }

    async fn holds(&self, requests: usize) {
        until(|| self.log.inside.load(SeqCst) == requests).await;
    }

    /// Takes no connection more from the system, which goes on to take them.
    async fn ignore(&self) {
        self.accepting.abort();
        until(|| self.accepting.is_finished()).await;
    }

    /// Takes no connection more, nor does the system.
    async fn refuse(&mut self) {
        self.ignore().await;
        self.port = None;
    }

    fn open(&self) -> usize {
        self.log.open.load(SeqCst)
    }
}

impl Log {
    fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

/// Waits for something that will happen soon, however slow the machine is.
async fn until(happened: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(MS).await;
    }
    panic!("it never happens");
}

const MS: Duration = Duration::from_millis(1);

fn http2() -> ConnectorOptions {
    ConnectorOptions::default().protocol(Protocol::Http2)
}

/// The connection over which it was answered.
async fn ask(transport: &Transport<Body>) -> Result<usize, BoxError> {
    let response = transport.clone().oneshot(Request::get("http://users/").body(Body::new())?).await?;
    Ok(std::str::from_utf8(&response.into_body().collect().await?.to_bytes())?.parse()?)
}

/// Waits until it has so many connections.
async fn has(transport: &Transport<Body>, connections: usize) {
    let shown = format!("connections: {connections},");
    until(|| format!("{transport:?}").contains(&shown)).await;
}

fn asks(transport: &Transport<Body>, requests: usize) -> Vec<JoinHandle<usize>> {
    let one = || {
        let transport = transport.clone();
        tokio::spawn(async move { ask(&transport).await.unwrap() })
    };
    (0..requests).map(|_| one()).collect()
}

#[tokio::test]
async fn a_second_connection_is_made_at_four_fifths_of_the_streams_and_goes_with_the_load() {
    let server = Server::start(10).await;
    let transport = server.connect(http2().idle_connection(MS * 20)).await;
    server.answer(1);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    let mut asked = asks(&transport, 8);
    server.holds(8).await;
    assert_eq!(server.log.accepted(), 1);
    asked.extend(asks(&transport, 1));
    server.holds(9).await;
    has(&transport, 2).await;
    let beside = asks(&transport, 8);
    server.holds(17).await;
    // As many as both take, and one more waits.
    asked.extend(asks(&transport, 4));
    server.holds(20).await;
    server.answer(21);
    let numbers: Vec<_> = join_all(beside).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(numbers, [2; 8]);
    join_all(asked).await.into_iter().for_each(|asked| _ = asked.unwrap());
    assert_eq!(server.log.accepted(), 2, "never more than two");
    until(|| server.open() == 1).await;
    server.answer(1);
    assert_eq!(ask(&transport).await.unwrap(), 1, "the second is closed");
}

#[tokio::test]
async fn a_burst_waits_for_the_second_connection_and_not_for_a_stream_of_the_first() {
    for (streams, burst) in [(10, 20), (1, 2)] {
        let server = Server::start(streams).await;
        let transport = server.connect(http2()).await;
        server.answer(1);
        assert_eq!(ask(&transport).await.unwrap(), 1);
        // It has said how many it allows, and the connection's task has seen it.
        tokio::time::sleep(MS).await;
        let asked = asks(&transport, burst);
        server.holds(burst).await;
        assert_eq!(server.log.accepted(), 2);
        server.answer(burst);
        join_all(asked).await.into_iter().for_each(|asked| _ = asked.unwrap());
    }
}

#[tokio::test]
async fn a_stream_is_open_until_its_answer_was_read_or_is_dropped() {
    let server = Server::start(10).await;
    let transport = server.connect(http2()).await;
    server.answer(100);
    let mut unread = Vec::new();
    for _ in 0..8 {
        let request = Request::get("http://users/").body(Body::new()).unwrap();
        unread.push(transport.clone().oneshot(request).await.unwrap());
    }
    assert_eq!(ask(&transport).await.unwrap(), 1);
    has(&transport, 2).await;
    assert_eq!(ask(&transport).await.unwrap(), 2);
    drop(unread);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    let mut given_up: Vec<_> = (0..8).map(|_| Box::pin(ask(&transport))).collect();
    given_up.iter_mut().for_each(|asked| _ = futures::FutureExt::now_or_never(asked));
    drop(given_up);
    assert_eq!(ask(&transport).await.unwrap(), 1);
}

#[tokio::test]
async fn where_no_second_connection_can_be_made_or_may_be_the_first_takes_all() {
    for may in [true, false] {
        let mut server = Server::start(10).await;
        let transport = server.connect(http2().http2_connections(if may { 2 } else { 1 })).await;
        server.answer(1);
        assert_eq!(ask(&transport).await.unwrap(), 1);
        if may {
            server.refuse().await;
        }
        let asked = asks(&transport, 15);
        server.holds(10).await;
        server.answer(15);
        for asked in asked {
            assert_eq!(asked.await.unwrap(), 1);
        }
        assert_eq!(server.log.accepted(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_far_away_gets_a_second_connection() {
    let server = Server::start(10).await;
    let transport = server.connect(http2()).await;
    server.answer(1);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    *server.log.silent.lock().unwrap() = MS * 300;
    let asked = asks(&transport, 9);
    server.holds(9).await;
    has(&transport, 2).await;
    assert_eq!(server.log.accepted(), 2);
    server.answer(9);
    join_all(asked).await.into_iter().for_each(|asked| _ = asked.unwrap());
}

#[tokio::test]
async fn a_second_connection_that_the_server_closes_at_once_is_not_made_again_at_once() {
    let server = Server::start(100).await;
    let transport = server.connect(http2()).await;
    server.answer(1);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    *server.log.keeps.lock().unwrap() = MS * 15;
    let mut held = asks(&transport, 80);
    server.holds(80).await;
    let start = clock::now();
    for _ in 0..15 {
        held.push(tokio::spawn({
            let transport = transport.clone();
            // One that was given to the second is lost with it.
            async move { ask(&transport).await.unwrap_or_default() }
        }));
        tokio::time::sleep(MS * 40).await;
    }
    let (accepted, seconds) = (server.log.accepted(), (clock::now() - start).as_secs() as usize);
    assert!((2..=3 + seconds).contains(&accepted), "{accepted} in {seconds} s");
    server.answer(100);
    join_all(held).await.into_iter().for_each(|asked| _ = asked.unwrap());
}

#[tokio::test]
async fn nobody_waits_for_a_second_connection_that_the_server_has_closed_without_a_word() {
    let server = Server::start(10).await;
    let transport = server.connect(http2()).await;
    server.answer(1);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    (*server.log.silent.lock().unwrap(), *server.log.keeps.lock().unwrap()) = (MS * 50, Duration::ZERO);
    let mut asked = asks(&transport, 10);
    server.holds(10).await;
    until(|| server.log.accepted() == 2).await;
    asked.extend(asks(&transport, 1));
    until(|| server.open() == 1).await;
    server.answer(1);
    let answered = |asked: &[JoinHandle<usize>]| asked.iter().filter(|it| it.is_finished()).count();
    until(|| answered(&asked) == 1).await;
    server.holds(10).await;
    let began = server.log.accepted.lock().unwrap()[1];
    assert!(clock::now() - began < MS * 900, "it has a stream of the first");
    server.answer(10);
    join_all(asked).await.into_iter().for_each(|asked| _ = asked.unwrap());
}

#[tokio::test]
async fn an_old_connection_is_replaced_ahead_of_requests_and_does_what_it_has() {
    let server = Server::start(100).await;
    // The server may get to see it late.
    let before = clock::now();
    let transport = server.connect(http2().max_age(MS * 100)).await;
    let mut held = asks(&transport, 1);
    server.holds(1).await;
    until(|| server.log.accepted() == 2).await;
    {
        let accepted = server.log.accepted.lock().unwrap();
        assert!(accepted[1] - before >= MS * 90 - MS, "a tenth less at the most");
    }
    // The new one is in as soon as the server has spoken on it; more of them follow, as they grow old.
    for more in 1..=20 {
        tokio::time::sleep(MS * 10).await;
        held.extend(asks(&transport, 1));
        server.holds(1 + more).await;
    }
    server.answer(21);
    let numbers: Vec<_> = join_all(held).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(numbers[0], 1, "over the connection that it began on");
    assert!(numbers[20] >= 2 && numbers.is_sorted(), "{numbers:?}");
    until(|| server.open() == 1).await;
    drop(transport);
    until(|| server.open() == 0).await;
}

#[tokio::test]
async fn an_old_connection_stays_as_long_as_there_is_no_other() {
    let server = Server::start(100).await;
    let transport = server.connect(http2().max_age(MS * 200)).await;
    server.answer(100);
    assert_eq!(ask(&transport).await.unwrap(), 1);
    // A dial goes well, and nobody is there.
    server.ignore().await;
    for _ in 0..20 {
        assert_eq!(ask(&transport).await.unwrap(), 1);
        tokio::time::sleep(MS * 30).await;
    }
}

#[tokio::test]
async fn an_http1_connection_does_its_last_request_and_is_closed_when_it_is_old() {
    let server = Server::start(0).await;
    let transport = server.connect(ConnectorOptions::default().max_age(MS * 100)).await;
    let held = asks(&transport, 1);
    server.holds(1).await;
    tokio::time::sleep(MS * 120).await;
    assert_eq!(server.log.accepted(), 1, "it is in use");
    server.answer(2);
    assert_eq!(held.into_iter().next().unwrap().await.unwrap(), 1);
    assert_eq!(ask(&transport).await.unwrap(), 2);
    until(|| server.open() == 0).await;
    let start = clock::now();
    while server.log.accepted() < 5 {
        server.answer(1);
        ask(&transport).await.unwrap();
    }
    assert!(clock::now() - start >= MS * 180, "two whole lives at the least");
}
