//! A generated tonic client on the balancer.

use std::time::Duration;

use http::{Request, Response};
use mainstay::{
    Classify, Error, Reason, Verdict,
    backoff::Backoff,
    balance::{Balance, BalanceOptions, Load},
    clock,
    context::{self, Inherited},
    http::{BodyTrack, Classifier, Description, Idempotent, Replay, TrackBody, Tracked, of_error},
    random::Seeded,
    resolve,
    retry::{RetryLayer, RetryPolicy},
};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, ServiceBuilder, util::MapRequest};

use crate::{
    greeter::{HelloRequest, greeter_client::GreeterClient},
    greeter_server::{HANG, Server},
};

type Test = Result<(), BoxError>;

/// Judges by the `grpc-status` in the headers. One that comes in the trailers is not seen: at the head of such an answer
/// the server has done well so far, and judging its end is for a classifier that sees the end.
struct GrpcStatus;

impl<B> Classify<Response<B>> for GrpcStatus {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        let response = match result {
            Ok(response) => response,
            Err(error) => return of_error(error),
        };
        match Status::from_header_map(response.headers()).map(|status| status.code()) {
            None | Some(Code::Ok) => Classifier.classify(Ok(response)),
            Some(
                Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded,
            ) => Verdict::failure(),
            Some(Code::ResourceExhausted) => Verdict::back_off(None),
            Some(_) => Verdict::success(),
        }
    }
}

/// What the balancer holds per endpoint: a channel that dials by itself.
fn channel(endpoint: &mainstay::Endpoint) -> TrackBody<Channel> {
    let uri = format!("http://{}", endpoint.address());
    TrackBody::new(Endpoint::from_shared(uri).expect("an address makes a URI").connect_lazy())
}

/// By requests in flight alone and with ejections that outlast the test, so that how fast the machine is decides nothing.
fn options() -> BalanceOptions {
    let mut options = BalanceOptions::default();
    options.load = Load::InFlight;
    options.health.ejection = Backoff::fixed(Duration::from_secs(600));
    options
}

fn balance(servers: &[Server]) -> Result<Balance<TrackBody<Channel>, Request<Body>>, BoxError> {
    let addresses = servers.iter().map(|server| server.address);
    Ok(Balance::builder(resolve::fixed(addresses))
        .connect(channel)
        .classify(GrpcStatus)
        .track(BodyTrack)
        .options(options())
        .random(Seeded::new(1))
        .build()?)
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned(), times: 5 }
}

#[tokio::test]
async fn unary_calls_spread_over_the_servers() -> Test {
    let servers = Server::three()?;
    let mut client = GreeterClient::new(balance(&servers)?);
    let mut seen = [0; 3];
    for _ in 0..60 {
        let reply = client.say_hello(hello("mast")).await?.into_inner();
        assert_eq!(reply.text, "hello mast");
        seen[reply.server as usize] += 1;
    }
    assert!(seen.iter().all(|&calls| calls >= 10), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_stream_arrives_whole_with_its_trailers_and_is_in_flight_until_then() -> Test {
    let servers = Server::three()?;
    let balance = balance(&servers)?;
    let in_flight = || balance.status().endpoints.iter().map(|endpoint| endpoint.in_flight).sum::<u32>();
    let mut stream = GreeterClient::new(balance.clone()).say_hellos(hello("mast")).await?.into_inner();
    assert_eq!(in_flight(), 1);
    let mut texts = Vec::new();
    while let Some(reply) = stream.message().await? {
        texts.push(reply.text);
    }
    let expected: Vec<_> = (1..=5).map(|n| format!("hello mast {n}")).collect();
    assert_eq!(texts, expected);
    let trailers = stream.trailers().await?.ok_or("no trailers")?;
    assert_eq!(trailers.get("said").ok_or("not said")?, "5");
    assert_eq!(in_flight(), 0);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_dropped_half_way_is_not_in_flight_any_more() -> Test {
    let servers = Server::three()?;
    let balance = balance(&servers)?;
    let mut stream = GreeterClient::new(balance.clone()).say_hellos(hello("mast")).await?.into_inner();
    stream.message().await?;
    drop(stream);
    let status = balance.status();
    assert!(status.endpoints.iter().all(|endpoint| endpoint.in_flight == 0 && endpoint.failures == 0));
    Ok(())
}

#[tokio::test]
async fn a_dead_server_is_left_alone_after_five_failures() -> Test {
    let mut servers = Server::three()?;
    let mut client = GreeterClient::new(balance(&servers)?);
    for _ in 0..9 {
        client.say_hello(hello("mast")).await?;
    }
    servers[1].kill();
    let mut failures = 0;
    for _ in 0..60 {
        failures += u32::from(client.say_hello(hello("mast")).await.is_err());
    }
    assert_eq!(failures, 5);
    Ok(())
}

/// tonic's bodies cannot be cloned; [`Replay`] makes them copyable on their way in, and they are tonic's again on their
/// way out.
#[tokio::test]
async fn a_dead_server_costs_no_call_that_may_be_repeated() -> Test {
    let mut servers = Server::three()?;
    let send: fn(Request<Replay<Body>>) -> Request<Body> = |request| request.map(Body::new);
    let balance = Balance::builder(resolve::fixed(servers.iter().map(|server| server.address)))
        .connect(move |endpoint| MapRequest::new(channel(endpoint), send))
        .classify(GrpcStatus)
        .track(BodyTrack)
        .options(options())
        .random(Seeded::new(1))
        .build()?;
    let policy = RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO));
    let service = ServiceBuilder::new()
        .map_request(|request: Request<Body>| request.map(Replay::new))
        .layer(RetryLayer::<_, Response<Tracked<Body>>>::new(policy)?.describe(Description::default()))
        .service(balance.clone());
    let mut client = GreeterClient::new(service);
    for call in 0..120 {
        if call == 60 {
            servers[1].kill();
        }
        // gRPC is POST: only the caller knows what may be repeated.
        let mut request = tonic::Request::new(hello("mast"));
        request.extensions_mut().insert(Idempotent(true));
        client.say_hello(request).await?;
    }
    let failures: u64 = balance.status().endpoints.iter().map(|endpoint| endpoint.failures).sum();
    assert_eq!(failures, 5, "so many calls were repeated");
    Ok(())
}

#[tokio::test]
async fn the_callers_deadline_cuts_off_a_call_that_hangs() -> Test {
    let servers = Server::three()?;
    let mut client = GreeterClient::new(balance(&servers)?);
    let inherited = Inherited::default().with_deadline(clock::now() + Duration::from_millis(50));
    let status = context::scope(inherited, client.say_hello(hello(HANG))).await.unwrap_err();
    assert_eq!(Error::find(&status).map(Error::reason), Some(Reason::Deadline));
    Ok(())
}
