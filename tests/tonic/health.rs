//! Active checks by gRPC's health protocol, over tonic's transport to tonic's servers.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Ready, ready};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use mainstay::{
    balance::BalanceOptions,
    grpc::HealthCheck,
    health::{State, Trip},
    resolve,
    tonic::{Client, endpoint},
};
use tonic::{
    body::Body,
    transport::{self, server::TcpIncoming},
};
use tower::Service;

use crate::server::until;

/// Says of itself what it is told to, by number, and counts who asked.
#[derive(Clone, Default)]
struct Health(Arc<AtomicU8>, Arc<AtomicUsize>);

impl Service<Request<Body>> for Health {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        self.1.fetch_add(1, Relaxed);
        let answer = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, self.0.load(Relaxed)]);
        let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let frames = [Frame::data(answer), Frame::trailers(status)].map(Ok::<_, Infallible>);
        let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
        ready(Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap()))
    }
}

#[tokio::test]
async fn a_server_that_says_it_does_not_serve_is_set_aside_and_comes_back_by_its_own_word() {
    let (sick, well) = (Health::default(), Health::default());
    sick.0.store(2, Relaxed);
    well.0.store(1, Relaxed);
    let mut addresses = Vec::new();
    for health in [&sick, &well] {
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        addresses.push(incoming.local_addr().unwrap());
        tokio::spawn(transport::Server::builder().serve_with_incoming(health.clone(), incoming));
    }
    let mut options = BalanceOptions::default();
    options.connect_timeout = Duration::from_secs(30);
    let checks = &mut options.health.checks;
    (checks.interval, checks.timeout) = (Duration::from_millis(5), Duration::from_secs(30));
    (checks.unsure_interval, checks.idle_interval) = (checks.interval, checks.interval);
    let client = Client::builder("greeter", endpoint("http://greeter.internal").unwrap())
        .resolve(resolve::fixed(addresses.clone()))
        .balance(options)
        .check(HealthCheck::of("http://greeter.internal").unwrap().service("greeter.Greeter"))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    let state = |index: usize| {
        let name = addresses[index].to_string();
        let rows = client.status().balance.endpoints;
        rows.into_iter().find(|row| *row.name == *name).unwrap().state
    };
    until(|| matches!(state(0), State::Ejected { why: Trip::Check, .. })).await;
    until(|| well.1.load(Relaxed) >= 5).await;
    assert_eq!(state(1), State::Available);
    sick.0.store(1, Relaxed);
    until(|| !matches!(state(0), State::Ejected { .. })).await;
    assert_eq!(client.status().successes + client.status().failures, 0, "a check is no request");
}
