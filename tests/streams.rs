//! Long streams, both ways at a time, in constant memory: 256 MiB over each protocol, and 1 GiB with
//! `cargo test --all-features --test streams -- --ignored`.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use http::{Request, Response, uri::PathAndQuery};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::{
    balance::BalanceOptions,
    hyper::{ConnectorOptions, Protocol},
    resolve,
};
use tokio::{net::TcpListener, sync::Mutex};
use tonic::{Status, Streaming, body::Body, transport::server::TcpIncoming};
use tonic_prost::ProstCodec;
use tower::{BoxError, Service};

type Test = Result<(), BoxError>;

const MIB: usize = 1 << 20;

/// What may be in memory at a time besides what was before: windows and buffers of both ends, which are in this process.
const ROOM: usize = 32 * MIB;

/// One stream at a time, or nobody knows whose the memory is.
static TURN: Mutex<()> = Mutex::const_new(());

/// A chunk whose bytes differ from place to place.
static CHUNK: LazyLock<Bytes> = LazyLock::new(|| {
    (0..64 * 1_024_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
});

/// So many bytes, a chunk at a time.
fn chunks(bytes: usize) -> impl Stream<Item = Bytes> + Send {
    futures::stream::iter((0..bytes / CHUNK.len()).map(|_| CHUNK.clone()))
}

/// Takes what comes, and holds it against what was sent.
#[derive(Default)]
struct Check {
    bytes: usize,
}

impl Check {
    fn take(&mut self, mut data: impl Buf) {
        while data.has_remaining() {
            let place = self.bytes % CHUNK.len();
            let part = data.chunk();
            let length = part.len().min(CHUNK.len() - place);
            assert!(part[..length] == CHUNK[place..place + length], "byte {} is another", self.bytes);
            data.advance(length);
            self.bytes += length;
        }
    }
}

/// The memory of this process that is in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// How much more memory was in use, at its highest, while `stream` ran.
async fn growth(stream: impl Future<Output = Result<usize, BoxError>>) -> Result<(usize, usize), BoxError> {
    let before = resident();
    let mut highest = before;
    let mut stream = std::pin::pin!(stream);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let bytes = loop {
        tokio::select! {
            bytes = stream.as_mut() => break bytes?,
            _ = look.tick() => highest = highest.max(resident()),
        }
    };
    Ok((bytes, highest.max(resident()) - before))
}

fn hold_to(what: &str, bytes: usize, (received, growth): (usize, usize)) {
    println!("{what}: {} MiB each way, {} KiB more in memory", bytes / MIB, growth / 1_024);
    assert_eq!(received, bytes);
    assert!(growth < ROOM, "{what}: {} MiB more in memory", growth / MIB);
}

fn patient() -> BalanceOptions {
    let mut options = BalanceOptions::default();
    options.attempt_limit = Some(Duration::from_secs(30));
    options.connect_timeout = Duration::from_secs(30);
    options
}

async fn echo_server(protocol: Protocol) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = |request: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(request.into_body())) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let io = TokioIo::new(stream);
            tokio::spawn(async move {
                if protocol == Protocol::Http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(io, service_fn(echo)).await);
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    drop(builder.serve_connection(io, service_fn(echo)).await);
                }
            });
        }
    });
    address
}

async fn over_hyper(protocol: Protocol, bytes: usize) -> Test {
    let _turn = TURN.lock().await;
    let address = echo_server(protocol).await;
    let users = mainstay::hyper::Client::builder("users")
        .resolve(resolve::fixed([address]))
        .connector(ConnectorOptions::default().protocol(protocol))
        .deadline(Duration::from_secs(60))
        .balance(patient())
        .build()?;
    let echo = |bytes| {
        let users = users.clone();
        async move {
            let frames = chunks(bytes).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            // It may be repeated: what is kept for that is bounded too.
            let request =
                Request::put("http://users.internal/").body(StreamBody::new(frames).boxed_unsync())?;
            let (mut body, mut check) = (users.send(request).await?.into_body(), Check::default());
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    check.take(data);
                }
            }
            Ok(check.bytes)
        }
    };
    echo(32 * MIB).await.map_err(|error: BoxError| error)?;
    let grown = growth(echo(bytes)).await?;
    hold_to(&format!("{protocol:?}"), bytes, grown);
    assert_eq!(users.status().balance.endpoints[0].in_flight, 0);
    Ok(())
}

/// Sends each message back as it comes.
#[derive(Clone)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            let mut server = tonic::server::Grpc::new(ProstCodec::<Bytes, Bytes>::default());
            Ok(server.streaming(Echo, request).await)
        })
    }
}

impl tonic::server::StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = BoxFuture<'static, Result<tonic::Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async { Ok(tonic::Response::new(request.into_inner())) })
    }
}

async fn over_tonic(bytes: usize) -> Test {
    let _turn = TURN.lock().await;
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(Echo, incoming));
    let client = mainstay::tonic::Client::builder("echo", mainstay::tonic::endpoint("http://echo.internal")?)
        .resolve(resolve::fixed([address]))
        .idempotent_methods(["streams.Echo/*"])
        .deadline(Duration::from_secs(60))
        .balance(patient())
        .build()?;
    let echo = |bytes| {
        let client = client.clone();
        async move {
            let mut grpc = tonic::client::Grpc::new(client);
            grpc.ready().await?;
            let path = PathAndQuery::from_static("/streams.Echo/Echo");
            let codec = ProstCodec::<Bytes, Bytes>::default();
            let response = grpc.streaming(tonic::Request::new(chunks(bytes)), path, codec).await?;
            let (mut messages, mut check) = (response.into_inner(), Check::default());
            while let Some(message) = messages.message().await? {
                check.take(message);
            }
            Ok(check.bytes)
        }
    };
    echo(32 * MIB).await.map_err(|error: BoxError| error)?;
    let grown = growth(echo(bytes)).await?;
    hold_to("gRPC", bytes, grown);
    assert_eq!(client.status().balance.endpoints[0].in_flight, 0);
    Ok(())
}

#[tokio::test]
async fn http1_streams_both_ways_in_constant_memory() -> Test {
    over_hyper(Protocol::Http1, 256 * MIB).await
}

#[tokio::test]
async fn http2_streams_both_ways_in_constant_memory() -> Test {
    over_hyper(Protocol::Http2, 256 * MIB).await
}

#[tokio::test]
async fn grpc_streams_both_ways_in_constant_memory() -> Test {
    over_tonic(256 * MIB).await
}

#[tokio::test]
#[ignore = "a gibibyte takes its time"]
async fn http1_streams_a_gibibyte() -> Test {
    over_hyper(Protocol::Http1, 1_024 * MIB).await
}

#[tokio::test]
#[ignore = "a gibibyte takes its time"]
async fn http2_streams_a_gibibyte() -> Test {
    over_hyper(Protocol::Http2, 1_024 * MIB).await
}

#[tokio::test]
#[ignore = "a gibibyte takes its time"]
async fn grpc_streams_a_gibibyte() -> Test {
    over_tonic(1_024 * MIB).await
}
