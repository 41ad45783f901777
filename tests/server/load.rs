//! What servers say of their load: on a paused clock, on axum's server, and on tonic's.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, routing::any};
use bytes::Bytes;
use futures::{FutureExt as _, Stream};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use mainstay::{
    balance::BalanceOptions,
    grpc::{LOAD_METRICS, LOAD_METRICS_BIN, LoadReport, LoadReports, STATUS},
    http::InFlightHeader,
    limit::ConcurrencyLimitOptions,
    resolve,
    server::{LoadRecorder, Measured, ServerLayer, ServerOptions},
};
use tokio::{net::TcpListener, sync::Notify};
use tonic::{
    Code, Status,
    transport::{self, server::TcpIncoming},
};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

type Test = Result<(), BoxError>;

const IN_FLIGHT: HeaderName = HeaderName::from_static("x-in-flight");

/// A third of the CPU is in use, and two thirds of the disk.
fn load() -> LoadRecorder {
    let load = LoadRecorder::new();
    load.update(|report| {
        report.cpu = 0.375;
        report.utilization.insert("disk".into(), 0.625);
    });
    load
}

fn options() -> ServerOptions {
    ServerOptions::default().report_load(load()).in_flight_header(IN_FLIGHT)
}

/// What a request cost.
fn cost() -> LoadReport {
    let mut cost = LoadReport::default();
    cost.request_cost.insert("rows".into(), 70.0);
    cost
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_flight_until_its_body_has_ended_and_not_to_itself() -> Test {
    let layer = ServerLayer::new(options())?;
    let service = layer.layer(service_fn(|request: Request<u64>| async move {
        tokio::time::sleep(Duration::from_millis(request.into_body())).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
    }));
    let ask = |millis| service.clone().oneshot(Request::new(millis));
    let told = |answer: &Response<_>| answer.headers()[IN_FLIGHT].to_str().unwrap().to_owned();
    let (slow, quick) = tokio::join!(ask(20), ask(10));
    let (slow, quick) = (slow?, quick?);
    assert_eq!((told(&quick), told(&slow)), ("1".into(), "1".into()), "the quick one is still sent");
    quick.into_body().collect().await?;
    let third = ask(0).await?;
    assert_eq!(told(&third), "1", "the slow one is still sent");
    drop((slow, third));
    assert_eq!(told(&ask(0).await?), "0");
    let mut given_up = Box::pin(ask(10));
    assert!(given_up.as_mut().now_or_never().is_none());
    assert_eq!(told(&ask(0).await?), "1");
    drop(given_up);
    assert_eq!(told(&ask(0).await?), "0");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn requests_and_errors_per_second_are_measured_and_refusals_are_neither() -> Test {
    let limit = ConcurrencyLimitOptions::default().limit(1).max_waiting(0);
    let layer = ServerLayer::new(options().limit(limit))?;
    let service = layer.layer(service_fn(|request: Request<u16>| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = StatusCode::from_u16(request.into_body()).unwrap();
        Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
    }));
    let ask = |status| service.clone().oneshot(Request::new(status));
    let mut last = None;
    for round in 0..100 {
        let (answer, refused) = tokio::join!(ask(if round % 5 == 0 { 500 } else { 200 }), ask(200));
        let refused = refused?;
        assert_eq!(refused.status(), 503);
        assert!(LoadReport::read(refused.headers()).is_some_and(|report| report.cpu == 0.375));
        last = LoadReport::read(answer?.headers());
    }
    let last = last.unwrap();
    assert!((9.5..=10.5).contains(&last.rps) && (1.5..=2.5).contains(&last.eps), "{last:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_unless_asked_for_and_the_handlers_own_word_is_left_alone() -> Test {
    let handler = service_fn(|request: Request<bool>| async move {
        let mut response = Response::new(());
        if request.into_body() {
            response.headers_mut().insert(LOAD_METRICS, "TEXT eps=1".parse().unwrap());
        }
        Ok::<_, Infallible>(response)
    });
    let silent = ServerLayer::default().layer(handler).oneshot(Request::new(false)).await?;
    assert!(silent.headers().is_empty());
    let layer = ServerLayer::new(options())?;
    let service = layer.layer(handler);
    let own = service.clone().oneshot(Request::new(true)).await?;
    assert_eq!(own.headers()[LOAD_METRICS], "TEXT eps=1");
    layer.update(ServerOptions::default())?;
    assert!(service.oneshot(Request::new(false)).await?.headers().is_empty());
    Ok(())
}

#[tokio::test]
async fn axums_answers_tell_it_in_a_header_to_a_client_of_ours() -> Test {
    let handler = || async {
        let mut response = Response::new(axum::body::Body::from("done"));
        response.extensions_mut().insert(cost());
        response
    };
    let app = Router::new().fallback(any(handler)).layer(ServerLayer::new(options())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    let users = mainstay::hyper::Client::builder("users").resolve(resolve::fixed([address])).build()?;
    for _ in 0..3 {
        let request = Request::get("http://users.internal/").body(Empty::<Bytes>::new())?;
        let answer = users.send(request).await?;
        let report = LoadReport::read(answer.headers()).expect("it is told");
        assert_eq!(
            (report.cpu, report.utilization["disk"], report.request_cost["rows"]),
            (0.375, 0.625, 70.0)
        );
        assert_eq!(answer.headers()[IN_FLIGHT], "0");
        assert!(!answer.headers().contains_key(LOAD_METRICS_BIN));
        assert_eq!(answer.into_body().collect().await?.to_bytes(), "done");
    }
    Ok(())
}

#[derive(Clone)]
struct Costly;

type Hellos = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Costly {
    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        if name.is_empty() {
            return Err(Status::invalid_argument("no name"));
        }
        let mut response = tonic::Response::new(HelloReply { text: name, server: 0 });
        response.extensions_mut().insert(cost());
        Ok(response)
    }

    type SayHellosStream = Hellos;

    async fn say_hellos(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<Hellos>, Status> {
        let times = request.into_inner().times;
        let replies = (0..times).map(|_| Ok(HelloReply::default()));
        let end = Err(Status::unavailable("in the middle"));
        Ok(tonic::Response::new(Box::pin(futures::stream::iter(replies.chain([end])))))
    }
}

async fn serve_grpc() -> Result<(SocketAddr, GreeterClient<mainstay::tonic::Client>), BoxError> {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    let server = transport::Server::builder().layer(ServerLayer::new(options())?);
    tokio::spawn(async move { server.serve_with_incoming(GreeterServer::new(Costly), incoming).await });
    let endpoint = mainstay::tonic::endpoint("http://greeter.internal")?;
    let client =
        mainstay::tonic::Client::builder("greeter", endpoint).resolve(resolve::fixed([address])).build()?;
    Ok((address, GreeterClient::new(client)))
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned(), times: 2 }
}

#[tokio::test]
async fn tonics_answers_tell_it_in_a_trailer_to_a_client_of_ours() -> Test {
    let (_, mut greeter) = serve_grpc().await?;
    let answer = greeter.say_hello(hello("mast")).await?;
    // A unary answer of tonic's has its trailers among the metadata.
    let headers = answer.metadata().clone().into_headers();
    let report = LoadReport::read(&headers).expect("it is told");
    assert_eq!((report.cpu, report.utilization["disk"], report.request_cost["rows"]), (0.375, 0.625, 70.0));
    assert_eq!(headers[IN_FLIGHT], "0");

    // What ends with its head has no trailers.
    let status = greeter.say_hello(hello("")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(LoadReport::read(&status.metadata().clone().into_headers()).map(|it| it.cpu), Some(0.375));

    let mut stream = greeter.say_hellos(hello("mast")).await?.into_inner();
    let mut messages = 0;
    let status = loop {
        match stream.message().await {
            Ok(message) => messages += u32::from(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!((messages, status.code()), (2, Code::Unavailable));
    assert_eq!(LoadReport::read(&status.metadata().clone().into_headers()).map(|it| it.cpu), Some(0.375));
    Ok(())
}

#[tokio::test]
async fn on_the_wire_it_is_one_binary_trailer() -> Test {
    let (address, _) = serve_grpc().await?;
    let channel = transport::Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let question = Bytes::from_static(b"\0\0\0\0\x06\x0a\x04mast");
    let request = Request::post(format!("http://{address}/greeter.Greeter/SayHello"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(question)))?;
    let answer = channel.oneshot(request).await?;
    assert!(!answer.headers().contains_key(LOAD_METRICS_BIN), "the head says nothing yet");
    let trailers = answer.into_body().collect().await?.trailers().cloned().expect("gRPC has trailers");
    assert_eq!(trailers.get_all(LOAD_METRICS_BIN).iter().count(), 1);
    assert!(!trailers.contains_key(LOAD_METRICS));
    assert_eq!(LoadReport::read(&trailers).map(|report| report.request_cost["rows"]), Some(70.0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_badly_or_breaks_off_is_an_error_of_the_second() -> Test {
    let reporter = |measured: &Measured| {
        let mut report = LoadReport::default();
        report.named.insert("others".into(), measured.in_flight as f64);
        report
    };
    let layer = ServerLayer::new(ServerOptions::default().report_load(reporter))?;
    let service = layer.layer(service_fn(|request: Request<&'static str>| async move {
        let data = Ok(Frame::data(Bytes::from("part")));
        let end = match request.into_body() {
            "breaks" => Err(BoxError::from("broken")),
            code => Ok(Frame::trailers(HeaderMap::from_iter([(STATUS, code.parse().unwrap())]))),
        };
        let body = StreamBody::new(futures::stream::iter([data, end]));
        Ok::<_, Infallible>(Response::new(tonic::body::Body::new(body)))
    }));
    let ask = |end| {
        let request = Request::post("/").header("content-type", "application/grpc").body(end).unwrap();
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap().into_body().collect().await }
    };
    assert!(ask("breaks").await.is_err());
    for code in ["14", "5", "0"] {
        assert!(ask(code).await.is_ok());
    }
    let trailers = ask("0").await.unwrap().trailers().cloned().unwrap();
    let report = LoadReport::read(&trailers).unwrap();
    assert_eq!((report.rps, report.eps, report.named["others"]), (4.0, 2.0, 0.0));
    Ok(())
}

/// Answers `wait` when told to, and all else at once.
#[derive(Clone, Default)]
struct Held(Arc<Notify>);

#[tonic::async_trait]
impl Greeter for Held {
    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        match &*request.into_inner().name {
            "wait" => self.0.notified().await,
            "fail" => return Err(Status::not_found("nobody of that name")),
            _ => {}
        }
        Ok(tonic::Response::new(HelloReply::default()))
    }

    type SayHellosStream = Hellos;

    async fn say_hellos(&self, _: tonic::Request<HelloRequest>) -> Result<tonic::Response<Hellos>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tokio::test]
async fn a_client_of_tonic_knows_what_other_clients_have_in_flight_at_a_server() -> Test {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    let (held, layer) = (Held::default(), ServerLayer::new(ServerOptions::default().report_load(load()))?);
    let (service, server) = (GreeterServer::new(held.clone()), transport::Server::builder().layer(layer));
    tokio::spawn(async move { server.serve_with_incoming(service, incoming).await });
    let client = || {
        let mut balance = BalanceOptions::default();
        balance.reports = true;
        let endpoint = mainstay::tonic::endpoint("http://greeter.internal")?;
        let builder = mainstay::tonic::Client::builder("greeter", endpoint);
        Ok::<_, BoxError>(builder.resolve(resolve::fixed([address])).balance(balance).build()?)
    };
    let (other, own) = (client()?, client()?);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut greeter = GreeterClient::new(other.clone());
            tokio::spawn(async move { greeter.say_hello(hello("wait")).await })
        })
        .collect();
    let mut greeter = GreeterClient::new(own.clone());
    // Until all three have arrived.
    loop {
        greeter.say_hello(hello("at once")).await?;
        if own.status().balance.endpoints[0].others_in_flight == Some(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held.0.notify_waiters();
    for waits in waiting {
        waits.await??;
    }
    greeter.say_hello(hello("at once")).await?;
    assert_eq!(own.status().balance.endpoints[0].others_in_flight, Some(0));

    // What ends with its head tells it there.
    let new = client()?;
    assert!(GreeterClient::new(new.clone()).say_hello(hello("fail")).await.is_err());
    assert_eq!(new.status().balance.endpoints[0].others_in_flight, Some(0));
    Ok(())
}

#[tokio::test]
async fn clients_of_hyper_and_reqwest_read_it_from_either_header() -> Test {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/", any(|| async { "done" })).layer(ServerLayer::new(options())?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut balance = BalanceOptions::default();
    balance.reports = true;

    let client = || {
        let builder = mainstay::hyper::Client::builder("users").resolve(resolve::fixed([address]));
        builder.balance(balance.clone())
    };
    let (report, header) = (LoadReports::new(), InFlightHeader::new(IN_FLIGHT));
    for client in [client().classify(report).build()?, client().classify(header.clone()).build()?] {
        let request = Request::get("http://users.internal/").body(Empty::<Bytes>::new())?;
        client.send(request).await?.into_body().collect().await?;
        assert_eq!(client.status().balance.endpoints[0].others_in_flight, Some(0));
    }

    let client = || {
        let make = || reqwest::Client::builder().no_proxy();
        let builder = mainstay::reqwest::builder("users", "users.internal", make)?;
        Ok::<_, BoxError>(builder.resolve(resolve::fixed([address])).balance(balance.clone()))
    };
    let own = mainstay::reqwest::Classifier;
    for client in
        [client()?.classify(report.beside(own)).build()?, client()?.classify(header.beside(own)).build()?]
    {
        let request = reqwest::Request::new(reqwest::Method::GET, "http://users.internal/".parse()?);
        client.send(request).await?.bytes().await?;
        assert_eq!(client.status().balance.endpoints[0].others_in_flight, Some(0));
    }
    Ok(())
}
