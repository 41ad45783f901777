//! Connections whose other end is gone without a word: what is sent is not acknowledged any more, and nothing comes.
#![cfg(target_os = "linux")]

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::{
    clock,
    hyper::{ClientBuilder, ConnectorOptions, Protocol},
    resolve,
};
use socket2::{SockFilter, SockRef};
use tokio::net::TcpListener;

use crate::server::*;

/// Answers, until it goes deaf: then its sockets are not shown one packet more, as if the machine had lost its power. New
/// connections it still takes.
struct Peer {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<socket2::Socket>>>,
    asked: Arc<AtomicUsize>,
}

impl Peer {
    async fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = Self { address, streams: Arc::default(), asked: Arc::default() };
        let (streams, asked) = (peer.streams.clone(), peer.asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                streams.lock().unwrap().push(SockRef::from(&stream).try_clone().unwrap());
                let asked = asked.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let number = asked.fetch_add(1, SeqCst);
                    async move {
                        drop(request.into_body().collect().await);
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(number.to_string())))
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    if protocol == Protocol::Http2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, answer).await);
                    } else {
                        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await);
                    }
                });
            }
        });
        peer
    }

    fn connections(&self) -> usize {
        self.streams.lock().unwrap().len()
    }

    /// What its connections are sent from now on never arrives.
    fn goes_deaf(&self) {
        // `ret 0`: of no packet a single byte.
        let nothing = [SockFilter::new(0x06, 0, 0, 0)];
        for stream in &*self.streams.lock().unwrap() {
            stream.attach_filter(&nothing).unwrap();
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What takes 15 s by default, in a second or two.
fn quick(protocol: Protocol) -> ConnectorOptions {
    ConnectorOptions::default()
        .protocol(protocol)
        .ping_interval(SECOND / 2)
        .ping_timeout(SECOND / 2)
        .tcp_keepalive(SECOND * 3)
        .tcp_user_timeout(SECOND)
}

fn client_of(peers: &[&Peer], connector: ConnectorOptions) -> ClientBuilder {
    unresolved().resolve(resolve::fixed(peers.iter().map(|peer| peer.address))).connector(connector)
}

/// How long it takes, in seconds.
async fn timed<T>(what: impl Future<Output = T>) -> (T, f64) {
    let start: Instant = clock::now();
    (what.await, (clock::now() - start).as_secs_f64())
}

#[tokio::test]
async fn a_request_on_a_connection_that_is_half_open_goes_elsewhere_within_seconds() {
    for protocol in PROTOCOLS {
        let (deaf, well) = (Peer::start(protocol).await, Peer::start(protocol).await);
        let users = client_of(&[&deaf, &well], quick(protocol)).build().unwrap();
        connected(&users, 2).await;
        deaf.goes_deaf();
        let answers = futures::future::join_all((0..20).map(|_| status(&users, get())));
        let (answers, took) = timed(answers).await;
        println!("{protocol:?}: found after {took:.2} s");
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 200), "{protocol:?}");
        assert!((0.3..10.0).contains(&took), "{protocol:?}: {took} s");
        let row = &users.status().balance.endpoints;
        assert!(row.iter().all(|row| row.in_flight == 0) && users.status().failures == 0);
        assert_eq!(deaf.asked.load(SeqCst) + well.asked.load(SeqCst), 20, "none was processed twice");
    }
}

#[tokio::test]
async fn a_request_that_must_not_be_repeated_ends_within_seconds_and_says_why() {
    for protocol in PROTOCOLS {
        let deaf = Peer::start(protocol).await;
        let users = client_of(&[&deaf], quick(protocol)).build().unwrap();
        connected(&users, 1).await;
        assert_eq!(status(&users, post()).await.unwrap(), 200);
        deaf.goes_deaf();
        let (ended, took) = timed(status(&users, post())).await;
        let error = ended.unwrap_err();
        let words: Vec<_> =
            std::iter::successors(Some(&*error as &(dyn std::error::Error + 'static)), |it| it.source())
                .map(ToString::to_string)
                .collect();
        println!("{protocol:?}: {} after {took:.2} s", words.join(": "));
        assert!(words.iter().any(|word| word.contains("timed out")), "{words:?}");
        assert!((0.3..10.0).contains(&took), "{protocol:?}: {took} s");
        assert_eq!(users.status().balance.endpoints[0].in_flight, 0);
        assert_eq!(status(&users, post()).await.unwrap(), 200, "over a new connection");
    }
}

#[tokio::test]
#[ignore = "takes the 15 s that it is about"]
async fn by_default_it_is_found_after_fifteen_seconds() {
    for protocol in PROTOCOLS {
        let deaf = Peer::start(protocol).await;
        let connector = ConnectorOptions::default().protocol(protocol);
        let users = client_of(&[&deaf], connector).build().unwrap();
        connected(&users, 1).await;
        deaf.goes_deaf();
        let (ended, took) = timed(status(&users, post())).await;
        println!("{protocol:?}: found after {took:.2} s");
        assert!(ended.is_err() && (10.0..25.0).contains(&took), "{protocol:?}: {took} s");
    }
}

#[tokio::test]
async fn an_idle_connection_that_is_half_open_is_found_before_a_request_is() {
    for protocol in PROTOCOLS {
        let deaf = Peer::start(protocol).await;
        let users = client_of(&[&deaf], quick(protocol)).build().unwrap();
        connected(&users, 1).await;
        assert_eq!(status(&users, get()).await.unwrap(), 200);
        deaf.goes_deaf();
        let before = deaf.connections();
        // Keepalive asks after 3 s of silence, and its answer may take one; a ping is due every half second.
        tokio::time::sleep(SECOND * 6).await;
        let (answer, took) = timed(status(&users, post())).await;
        println!("{protocol:?}: answered after {took:.3} s over a new connection");
        assert_eq!(answer.unwrap(), 200);
        assert!(took < 0.5, "{protocol:?}: {took} s: it was found by then");
        assert_eq!((deaf.connections(), users.status().failures), (before + 1, 0));
    }
}
