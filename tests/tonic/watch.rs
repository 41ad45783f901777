//! What servers say of their health, over tonic's transport from tonic's servers.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mainstay::{
    backoff::Backoff,
    balance::BalanceOptions,
    grpc::{HealthWatch, ServiceConfig},
    health::{State, Trip},
    resolve,
    tonic::{Client, ClientBuilder, endpoint},
};
use tokio::sync::watch;
use tonic::{
    body::Body,
    transport::{self, server::TcpIncoming},
};
use tower::Service;

use crate::server::{Server, builder, connected, hello, row, until};

const UNKNOWN: u8 = 0;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
/// The call ends.
const HANGS_UP: u8 = 255;

/// Says of itself what it is told to, to all who listen.
#[derive(Clone)]
struct Health {
    says: watch::Sender<u8>,
    /// Whom it was asked after.
    asked: Arc<Mutex<Vec<String>>>,
    listeners: Arc<AtomicUsize>,
}

impl Health {
    fn serve() -> (Self, SocketAddr) {
        let health =
            Self { says: watch::Sender::new(SERVING), asked: Arc::default(), listeners: Arc::default() };
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = incoming.local_addr().unwrap();
        tokio::spawn(transport::Server::builder().serve_with_incoming(health.clone(), incoming));
        (health, address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn listeners(&self) -> usize {
        self.listeners.load(SeqCst)
    }
}

struct Listening(Arc<AtomicUsize>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Service<Request<Body>> for Health {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Watch");
        let own = self.clone();
        Box::pin(async move {
            let question = request.into_body().collect().await.unwrap().to_bytes();
            let name = question.get(7..).unwrap_or_default();
            own.asked.lock().unwrap().push(String::from_utf8(name.to_vec()).unwrap());
            own.listeners.fetch_add(1, SeqCst);
            let state = (own.says.subscribe(), Listening(own.listeners), true);
            let words = futures::stream::unfold(state, |(mut says, listening, first)| async move {
                if !first {
                    says.changed().await.ok()?;
                }
                let word = *says.borrow_and_update();
                let frame = match word {
                    HANGS_UP => return None,
                    word => Frame::data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, word])),
                };
                Some((Ok::<_, Infallible>(frame), (says, listening, false)))
            });
            let status =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("14"))]);
            let body = StreamBody::new(words.chain(futures::stream::iter([Ok(Frame::trailers(status))])));
            let response = Response::builder().header("content-type", "application/grpc");
            Ok(response.body(Body::new(body)).unwrap())
        })
    }
}

fn client(addresses: &[SocketAddr]) -> ClientBuilder {
    let mut options = BalanceOptions::default();
    options.connect_timeout = Duration::from_secs(30);
    options.health.ejection = Backoff::fixed(Duration::from_secs(600));
    Client::builder("greeter", endpoint("http://greeter.internal:7").unwrap())
        .resolve(resolve::fixed(addresses.to_vec()))
        .balance(options)
}

fn state(client: &Client, address: SocketAddr) -> State {
    let rows = client.status().balance.endpoints;
    rows.into_iter().find(|row| *row.name == *address.to_string()).unwrap().state
}

fn is_out(client: &Client, address: SocketAddr) -> bool {
    matches!(state(client, address), State::Ejected { why: Trip::Check, .. })
}

#[tokio::test]
async fn a_server_that_says_it_does_not_serve_is_set_aside_and_comes_back_by_its_word() {
    let ((sick, first), (well, second)) = (Health::serve(), Health::serve());
    let watch = HealthWatch::of("http://greeter.internal").unwrap();
    let client = client(&[first, second]).watch(watch).build().unwrap();
    client.ready().await.unwrap();
    until(|| sick.listeners() == 1 && well.listeners() == 1).await;
    for word in [NOT_SERVING, UNKNOWN] {
        sick.says.send_replace(word);
        until(|| is_out(&client, first)).await;
        sick.says.send_replace(SERVING);
        until(|| state(&client, first) == State::Available).await;
    }
    assert_eq!(state(&client, second), State::Available);
    assert_eq!((sick.asked(), well.asked()), (vec![String::new()], vec![String::new()]), "one call each");
    assert_eq!(client.status().successes + client.status().failures, 0, "a watch is no request");
    drop(client);
    until(|| sick.listeners() + well.listeners() == 0).await;
}

#[tokio::test]
async fn a_call_that_ends_is_no_verdict_and_is_made_again() {
    let ((health, first), (_, second)) = (Health::serve(), Health::serve());
    let quick = Backoff::exponential(Duration::from_millis(10));
    let watch = HealthWatch::of("http://greeter.internal").unwrap().backoff(quick);
    let client = client(&[first, second]).watch(watch).build().unwrap();
    client.ready().await.unwrap();
    health.says.send_replace(HANGS_UP);
    until(|| health.asked().len() >= 3).await;
    assert_eq!(state(&client, first), State::Available);
    health.says.send_replace(NOT_SERVING);
    until(|| is_out(&client, first)).await;
    let before = health.asked().len();
    health.says.send_replace(HANGS_UP);
    until(|| health.asked().len() > before).await;
    assert!(is_out(&client, first), "not to know does not bring it back either");
    health.says.send_replace(SERVING);
    until(|| state(&client, first) == State::Available).await;
}

fn config(service: Option<&str>) -> ServiceConfig {
    let document = match service {
        None => "{}".to_owned(),
        Some(service) => format!(r#"{{"healthCheckConfig": {{"serviceName": "{service}"}}}}"#),
    };
    ServiceConfig::parse(&document).unwrap()
}

#[tokio::test]
async fn a_service_config_turns_it_on_for_its_service_and_off_again_while_the_client_runs() {
    let ((health, first), (_, second)) = (Health::serve(), Health::serve());
    let client = client(&[first, second]).service_config(&config(Some("greeter.A"))).build().unwrap();
    client.ready().await.unwrap();
    until(|| health.asked() == ["greeter.A"]).await;
    health.says.send_replace(NOT_SERVING);
    until(|| is_out(&client, first)).await;

    client.update_config(&config(Some("greeter.B"))).unwrap();
    until(|| health.asked() == ["greeter.A", "greeter.B"] && health.listeners() == 1).await;
    client.update_config(&config(Some("greeter.B"))).unwrap();
    client.update_config(&config(None)).unwrap();
    until(|| health.listeners() == 0).await;
    client.update_config(&config(Some("greeter.C"))).unwrap();
    until(|| health.listeners() == 1).await;
    assert_eq!(health.asked(), ["greeter.A", "greeter.B", "greeter.C"], "the same again is not asked again");
    health.says.send_replace(SERVING);
    until(|| state(&client, first) == State::Available).await;
}

#[tokio::test]
async fn without_a_config_the_builders_word_holds_and_with_one_the_configs() {
    let (health, address) = Health::serve();
    let watch = HealthWatch::of("http://greeter.internal").unwrap().service("own");
    let client = client(&[address]).watch(watch).service_config(&config(None)).build().unwrap();
    client.ready().await.unwrap();
    until(|| health.asked() == ["own"]).await;
    client.update_config(&config(Some("theirs"))).unwrap();
    until(|| health.asked() == ["own", "theirs"]).await;
    client.update_config(&config(None)).unwrap();
    until(|| health.asked() == ["own", "theirs", "own"]).await;
}

#[tokio::test]
async fn a_server_without_the_protocol_counts_as_serving_and_that_is_told_for_each_connection() {
    let mut fleet = Server::fleet(2);
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let watched = builder(&fleet).service_config(&config(Some("greeter.Greeter"))).observe(
        move |_: &str, event: &mainstay::telemetry::Event| {
            count.fetch_add(usize::from(event.kind() == "unwatched"), SeqCst);
        },
    );
    let (client, mut greeter) = connected(watched, 2).await;
    until(|| told.load(SeqCst) == 2).await;
    for _ in 0..20 {
        greeter.say_hello(hello("mast")).await.unwrap();
    }
    assert!(fleet.iter().all(|server| row(&client, server).is_available() && server.count() > 1));
    assert_eq!(fleet.iter().map(Server::count).sum::<usize>(), 22, "with a question each");
    fleet[0].kill();
    while row(&client, &fleet[0]).is_available() {
        greeter.say_hello(hello("mast")).await.unwrap();
    }
    fleet[0].revive();
    until(|| told.load(SeqCst) == 3).await;
}
