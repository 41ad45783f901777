//! A hundred requests whose connections end in the middle of a body.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mainstay::{
    hyper::{ClientBuilder, ConnectorOptions, Protocol},
    outcome::Sent,
    resolve,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::BoxError;

use crate::server::*;

const MANY: usize = 100;
/// Of each body goes out before the connection ends.
const HALF: usize = 1_024;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// In order.
    Closed,
    /// Without it.
    Reset,
}

const ENDS: [End; 2] = [End::Closed, End::Reset];

/// Stands before a server, and cuts.
struct Relay {
    address: SocketAddr,
    /// How often it has cut.
    cuts: watch::Sender<usize>,
    /// Bytes of clients.
    sent: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Relay {
    async fn before(server: &Server, end: End) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            cuts: watch::Sender::new(0),
            sent: Arc::default(),
            open: Arc::default(),
        };
        let (server, cuts) = (server.address, relay.cuts.clone());
        let (sent, open) = (relay.sent.clone(), relay.open.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut cut, sent, open) = (cuts.subscribe(), sent.clone(), open.clone());
                open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut stream = stream;
                    let pass = pass(&mut stream, server, &sent);
                    tokio::select! {
                        _ = pass => {}
                        _ = cut.changed() => {}
                    }
                    if end == End::Reset {
                        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    }
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        relay
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(client: &mut TcpStream, server: SocketAddr, sent: &AtomicUsize) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let ((mut from, mut to), (mut back, mut forth)) = (client.split(), server.split());
    let up = async {
        let mut buffer = vec![0; 16 * 1_024];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            sent.fetch_add(length, SeqCst);
            forth.write_all(&buffer[..length]).await?;
        }
    };
    let down = async { tokio::io::copy(&mut back, &mut to).await.map(drop) };
    tokio::select! {
        up = up => up,
        down = down => down,
    }
}

fn client_of(addresses: &[SocketAddr], protocol: Protocol) -> ClientBuilder {
    let connector = ConnectorOptions::default().protocol(protocol);
    // One server at least gives the number of requests to each, and none is set aside.
    let mut options = builder_options();
    options.health.enabled = false;
    unresolved().resolve(resolve::fixed(addresses.iter().copied())).connector(connector).balance(options)
}

/// A body whose second half waits.
fn halves(open: &watch::Sender<bool>) -> Body {
    let mut opened = open.subscribe();
    let second = async move {
        let _ = opened.wait_for(|open| *open).await;
        Bytes::from(vec![2; HALF])
    };
    let first = futures::future::ready(Bytes::from(vec![1; HALF]));
    let stream = futures::StreamExt::chain(futures::stream::once(first), futures::stream::once(second));
    let frames = futures::StreamExt::map(stream, |data| Ok::<_, Infallible>(Frame::data(data)));
    StreamBody::new(frames).boxed_unsync()
}

fn in_flight(users: &Users) -> u32 {
    users.status().balance.endpoints.iter().map(|row| row.in_flight).sum()
}

/// What was found out about an error, in words.
fn told(error: &BoxError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// Whether the words say that the connection is what failed.
fn is_clear(error: &BoxError) -> bool {
    let words = told(error);
    ["connection", "end of file", "reset", "broken pipe"].iter().any(|word| words.contains(word))
}

#[tokio::test]
async fn a_hundred_answers_that_break_off_are_a_hundred_clear_errors_and_leave_nothing_in_flight() {
    for (protocol, end) in PROTOCOLS.into_iter().flat_map(|protocol| ENDS.map(|end| (protocol, end))) {
        let server = Server::start(protocol).await;
        server.set(Mode::Endless);
        let relay = Relay::before(&server, end).await;
        let users = client_of(&[relay.address], protocol).build().unwrap();
        connected(&users, 1).await;
        let mut bodies = Vec::new();
        for response in join_all((0..MANY).map(|_| users.send(get()))).await {
            let mut body = response.unwrap().into_body();
            assert!(body.frame().await.unwrap().is_ok());
            bodies.push(body);
        }
        assert_eq!(in_flight(&users), 100);
        relay.cut();
        let ends = join_all(bodies.iter_mut().map(|body| body.frame())).await;
        for broken in ends {
            let error = broken.expect("it did not end by itself").unwrap_err();
            assert!(is_clear(&error), "{protocol:?} {end:?}: {}", told(&error));
        }
        let row = &users.status().balance.endpoints[0];
        assert_eq!((row.in_flight, row.failures), (0, 100), "{protocol:?} {end:?}");
        drop(bodies);
        server.set(Mode::Ok);
        assert_eq!(status(&users, get()).await.unwrap(), 200, "{protocol:?} {end:?}");
        until(|| relay.open.load(SeqCst) <= 1).await;
    }
}

#[tokio::test]
async fn a_hundred_uploads_that_may_be_repeated_survive_the_end_of_half_of_them() {
    for (protocol, end) in PROTOCOLS.into_iter().flat_map(|protocol| ENDS.map(|end| (protocol, end))) {
        let fleet = fleet(protocol, 2).await;
        let relay = Relay::before(&fleet[0], end).await;
        let users = client_of(&[relay.address, fleet[1].address], protocol).build().unwrap();
        connected(&users, 2).await;
        let open = watch::Sender::new(false);
        let puts: Vec<_> = (0..MANY)
            .map(|_| {
                let (users, body) = (users.clone(), halves(&open));
                tokio::spawn(async move { status(&users, request("PUT", body)).await })
            })
            .collect();
        until(|| relay.sent.load(SeqCst) >= MANY / 2 * HALF && in_flight(&users) == 100).await;
        relay.cut();
        // All that was cut off has gone elsewhere, or to the same server over another connection.
        until(|| users.status().retries >= 50).await;
        open.send_replace(true);
        for put in join_all(puts).await {
            assert_eq!(put.unwrap().unwrap(), 200, "{protocol:?} {end:?}");
        }
        let processed: Vec<_> = fleet.iter().flat_map(Server::seen).collect();
        assert!(processed.len() >= MANY && processed.iter().all(|seen| seen.body == 2 * HALF));
        assert_eq!(in_flight(&users), 0, "{protocol:?} {end:?}");
        assert_eq!(users.status().failures, 0, "{protocol:?} {end:?}");
    }
}

#[tokio::test]
async fn of_a_hundred_uploads_that_must_not_be_repeated_those_cut_off_fail_once_and_those_unsent_do_not() {
    for end in ENDS {
        let server = Server::start(Protocol::Http1).await;
        let relay = Relay::before(&server, end).await;
        let connector = ConnectorOptions::default().connections_per_endpoint(50);
        let users = client_of(&[relay.address], Protocol::Http1).connector(connector).build().unwrap();
        connected(&users, 1).await;
        let open = watch::Sender::new(false);
        let posts: Vec<_> = (0..MANY)
            .map(|_| {
                let (users, body) = (users.clone(), halves(&open));
                tokio::spawn(async move { status(&users, request("POST", body)).await })
            })
            .collect();
        until(|| relay.sent.load(SeqCst) >= MANY / 2 * HALF && in_flight(&users) == 100).await;
        relay.cut();
        until(|| in_flight(&users) == 50).await;
        open.send_replace(true);
        let ends: Vec<_> = join_all(posts).await.into_iter().map(Result::unwrap).collect();
        let (answered, failed): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
        assert_eq!((answered.len(), failed.len()), (50, 50), "{end:?}");
        for error in failed.into_iter().map(Result::unwrap_err) {
            assert!(is_clear(&error), "{end:?}: {}", told(&error));
            assert_eq!(mainstay::http::of_error(&error).was_sent(), Sent::Maybe);
        }
        assert_eq!((server.count(), users.status().retries), (50, 0), "none was sent twice");
        assert_eq!(in_flight(&users), 0, "{end:?}");
    }
}
