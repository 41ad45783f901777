//! tonic servers that do what a test tells them, and keep a log.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use http::HeaderMap;
use mainstay::{
    backoff::Backoff,
    balance::{BalanceOptions, EndpointStatus, Load},
    random::Seeded,
    resolve,
    retry::RetryPolicy,
    tonic::{Client, ClientBuilder},
};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataMap,
    transport::{self, server::TcpIncoming},
};
use tower::{BoxError, util::MapRequestLayer};

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

pub(crate) type Test = Result<(), BoxError>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Ok,
    /// Calls, and streams after two messages, end with this code and this pushback.
    Fail(Code, Option<&'static str>),
    Hang,
}

/// What a server saw of a call.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Debug)]
struct Shared {
    number: u32,
    mode: Mutex<Mode>,
    log: Mutex<Vec<Seen>>,
}

/// A server on a runtime of its own, so that its connections die with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start(number: u32) -> Self {
        let shared = Shared { number, mode: Mutex::new(Mode::Ok), log: Mutex::default() };
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server = Self { address, shared: Arc::new(shared), runtime: None };
        server.revive();
        server
    }

    pub(crate) fn fleet(servers: u32) -> Vec<Self> {
        (0..servers).map(Self::start).collect()
    }

    /// Comes back on the same port.
    pub(crate) fn revive(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let incoming = TcpIncoming::bind(self.address).unwrap();
        self.address = incoming.local_addr().unwrap();
        let log = self.shared.clone();
        let note = MapRequestLayer::new(move |request: http::Request<_>| {
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            log.log.lock().unwrap().push(Seen { authority, headers: request.headers().clone() });
            request
        });
        let service = GreeterServer::new(Scripted(self.shared.clone()));
        runtime.spawn(transport::Server::builder().layer(note).serve_with_incoming(service, incoming));
        drop(_entered);
        self.runtime = Some(runtime);
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.log.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Scripted(Arc<Shared>);

impl Scripted {
    async fn mode(&self) -> Mode {
        let mode = *self.0.mode.lock().unwrap();
        if mode == Mode::Hang {
            std::future::pending::<()>().await;
        }
        mode
    }
}

fn failed(code: Code, pushback: Option<&'static str>) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(pushback) = pushback {
        metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    Status::with_metadata(code, "as told", metadata)
}

#[tonic::async_trait]
impl Greeter for Scripted {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        if let Mode::Fail(code, pushback) = self.mode().await {
            return Err(failed(code, pushback));
        }
        let text = format!("hello {}", request.into_inner().name);
        Ok(Response::new(HelloReply { text, server: self.0.number }))
    }

    type SayHellosStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

    async fn say_hellos(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHellosStream>, Status> {
        let (HelloRequest { name, times }, server) = (request.into_inner(), self.0.number);
        let replies = (1..=times).map(move |n| Ok(HelloReply { text: format!("hello {name} {n}"), server }));
        Ok(Response::new(match self.mode().await {
            Mode::Fail(code, pushback) => {
                let end = Err(failed(code, pushback));
                Box::pin(futures::stream::iter(replies.take(2).chain([end])))
            }
            _ => {
                let mut trailers = MetadataMap::new();
                trailers.insert("said", times.into());
                let end = Err(Status::with_metadata(Code::Ok, "", trailers));
                Box::pin(futures::stream::iter(replies.chain([end])))
            }
        }))
    }
}

/// A client of the fleet. How fast the machine is decides nothing: load is counted, and ejections outlast the test.
pub(crate) fn builder(fleet: &[Server]) -> ClientBuilder {
    let mut options = BalanceOptions::default();
    options.load = Load::InFlight;
    options.attempt_limit = Some(Duration::from_secs(30));
    options.connect_timeout = Duration::from_secs(30);
    options.health.ejection = Backoff::fixed(Duration::from_secs(600));
    let policy = RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO));
    Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal:7").unwrap())
        .resolve(resolve::fixed(fleet.iter().map(|server| server.address)))
        .deadline(Duration::from_secs(60))
        .balance(options)
        .retry(policy)
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .idempotent_methods(["greeter.Greeter/*"])
        .random(Seeded::new(7))
}

/// The client with all its connections standing, and a generated one on it.
pub(crate) async fn connected(builder: ClientBuilder, servers: usize) -> (Client, GreeterClient<Client>) {
    let client = builder.build().unwrap();
    client.ready().await.unwrap();
    until(|| client.status().balance.endpoints.iter().filter(|row| row.is_available()).count() == servers)
        .await;
    (client.clone(), GreeterClient::new(client))
}

/// Waits for something that will happen soon, however slow the machine is.
pub(crate) async fn until(happened: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never happens");
}

pub(crate) fn row(client: &Client, server: &Server) -> EndpointStatus {
    let name = server.address.to_string();
    let rows = client.status().balance.endpoints;
    rows.into_iter().find(|row| *row.name == *name).expect("it is in the fleet")
}

pub(crate) fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned(), times: 5 }
}
