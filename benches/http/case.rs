//! One row of the benchmark: how its client is made, and how callers drive it.

use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use mainstay::clock;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt as _};

/// A request as every client takes it.
pub(crate) type Request = http::Request<Full<Bytes>>;

/// The two servers.
pub(crate) type Servers = [SocketAddr; 2];

/// A row: a name and a way to make its client.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Whether it runs only when it is asked for.
    pub(crate) hidden: bool,
    start: Box<dyn Fn(Servers, usize) -> Box<dyn Running>>,
}

impl Case {
    /// A client that callers share by cloning it. `build` is called within the runtime.
    pub(crate) fn new<S, B>(name: &'static str, build: impl AsyncFn(Servers) -> S + 'static) -> Self
    where
        S: Service<Request, Response = Response<B>, Error: Debug, Future: Send> + Clone + Send + 'static,
        B: Body<Data: Send, Error: Debug> + Send + Unpin + 'static,
    {
        let start = move |servers, concurrency| -> Box<dyn Running> {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = runtime.block_on(build(servers));
            Box::new(Callers { clients: vec![client; concurrency], runtime })
        };
        Self { name, hidden: false, start: Box::new(start) }
    }

    /// The same row, for those who ask for it.
    pub(crate) fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// A fresh runtime, client and connections: no round inherits the state of another.
    pub(crate) fn start(&self, servers: Servers, concurrency: usize) -> Box<dyn Running> {
        (self.start)(servers, concurrency)
    }
}

/// How long callers call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Time(Duration),
    /// Each caller makes so many.
    Requests(u64),
}

impl Length {
    fn is_over(self, began: Instant, now: Instant, made: usize) -> bool {
        match self {
            Self::Time(time) => now.saturating_duration_since(began) >= time,
            Self::Requests(requests) => made as u64 >= requests,
        }
    }
}

/// A case that has been started.
pub(crate) trait Running {
    /// Every caller calls, one request after the other; gives how long each request took.
    fn run(&mut self, length: Length) -> Vec<Duration>;
}

struct Callers<S> {
    // Dropped before the runtime that its tasks live on.
    clients: Vec<S>,
    runtime: Runtime,
}

impl<S, B> Running for Callers<S>
where
    S: Service<Request, Response = Response<B>, Error: Debug, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Debug> + Send + Unpin + 'static,
{
    fn run(&mut self, length: Length) -> Vec<Duration> {
        let clients = &self.clients;
        self.runtime.block_on(async {
            let began = clock::now();
            let callers: Vec<_> =
                clients.iter().map(|client| tokio::spawn(call(client.clone(), length, began))).collect();
            let mut latencies = Vec::new();
            for caller in callers {
                latencies.extend(caller.await.expect("a caller that ends"));
            }
            latencies
        })
    }
}

async fn call<S, B>(mut client: S, length: Length, began: Instant) -> Vec<Duration>
where
    S: Service<Request, Response = Response<B>, Error: Debug>,
    B: Body<Error: Debug> + Unpin,
{
    let mut latencies = Vec::with_capacity(1_024);
    let mut now = began;
    while !length.is_over(began, now, latencies.len()) {
        let response = client.ready().await.expect("ready").call(request()).await.expect("a response");
        assert!(response.status().is_success());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.expect("a whole body");
        }
        let then = clock::now();
        latencies.push(then.saturating_duration_since(now));
        now = then;
    }
    latencies
}

/// The path of every request.
pub(crate) const PATH: &str = "/users/1?fields=name";

/// A request with eight headers: a clone of one that was made before.
fn request() -> Request {
    static MADE: LazyLock<Request> = LazyLock::new(|| {
        http::Request::get(format!("http://users.internal{PATH}"))
            .header("host", HeaderValue::from_static("users.internal"))
            .header("accept", HeaderValue::from_static("application/json"))
            .header("accept-encoding", HeaderValue::from_static("gzip"))
            .header("user-agent", HeaderValue::from_static("bench/1"))
            .header(
                "traceparent",
                HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            )
            .header("authorization", HeaderValue::from_static("Bearer 0123456789abcdef"))
            .header("x-request-id", HeaderValue::from_static("1e9f"))
            .header("cache-control", HeaderValue::from_static("no-cache"))
            .body(Full::default())
            .expect("a request")
    });
    MADE.clone()
}
