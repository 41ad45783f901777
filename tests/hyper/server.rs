//! Servers that do what a test tells them, and keep a log.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::{
    backoff::Backoff,
    balance::{BalanceOptions, EndpointStatus, Load},
    hyper::{Client, ClientBuilder, ConnectorOptions, Protocol},
    random::Seeded,
    resolve,
    retry::RetryPolicy,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::BoxError;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Users = Client;

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Ok,
    /// This status, with `Retry-After`.
    Status(u16, Option<&'static str>),
    /// Reads the request and closes the connection.
    Break,
    /// Reads the request and never answers.
    Hang,
    /// Sends the body back as it comes, with a trailer.
    Echo,
    /// Sends a head, and a body that never ends.
    Endless,
}

/// What a server saw of a request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) host: String,
    pub(crate) attempt: Option<String>,
    pub(crate) body: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    protocol: Protocol,
    shared: Arc<Shared>,
    running: Mutex<Option<(JoinSet<()>, watch::Sender<()>)>>,
}

struct Shared {
    mode: Mutex<Mode>,
    log: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// A connection while it stands.
struct Standing(Arc<Shared>);

impl Standing {
    fn new(shared: Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, SeqCst);
        Self(shared)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
    }
}

impl Server {
    pub(crate) async fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Ok),
            log: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let server = Self { address, protocol, shared, running: Mutex::new(None) };
        server.run(listener);
        server
    }

    fn run(&self, listener: TcpListener) {
        let (drain, draining) = watch::channel(());
        let (protocol, shared) = (self.protocol, self.shared.clone());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, protocol, shared.clone(), draining.clone()));
            }
        });
        *self.running.lock().unwrap() = Some((running, drain));
    }

    /// Closes the port and every connection, whatever is on it.
    pub(crate) async fn kill(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some((mut running, _)) = running {
            running.shutdown().await;
        }
    }

    /// Comes back on the same port.
    pub(crate) async fn revive(&self) {
        self.run(TcpListener::bind(self.address).await.unwrap());
    }

    /// Closes every connection as soon as the requests on it are answered, and goes on taking new ones.
    pub(crate) fn drain(&self) {
        if let Some((_, drain)) = &*self.running.lock().unwrap() {
            drain.send_replace(());
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.log.lock().unwrap().len()
    }
}

async fn serve(stream: TcpStream, protocol: Protocol, shared: Arc<Shared>, mut drain: watch::Receiver<()>) {
    drain.mark_unchanged();
    let _standing = Standing::new(shared.clone());
    let answer = service_fn(move |request| answer(request, shared.clone()));
    let io = TokioIo::new(stream);
    // What a connection ends with is the client's to tell.
    if protocol == Protocol::Http1 {
        let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(io, answer));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = drain.changed() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    } else {
        let mut connection =
            std::pin::pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = drain.changed() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Answer>, BoxError> {
    let mode = *shared.mode.lock().unwrap();
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let host = match request.uri().authority() {
        Some(authority) => authority.to_string(),
        None => request.headers().get(HOST).map(text).unwrap_or_default(),
    };
    let attempt = request.headers().get("x-attempt-count").map(text);
    if mode == Mode::Echo {
        shared.log.lock().unwrap().push(Seen { host, attempt, body: 0 });
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let body =
            request.into_body().map_err(BoxError::from).with_trailers(std::future::ready(Some(Ok(trailers))));
        return Ok(Response::builder().header("trailer", "x-sum").body(body.boxed_unsync())?);
    }
    let body = request.into_body().collect().await?.to_bytes().len();
    shared.log.lock().unwrap().push(Seen { host, attempt, body });
    match mode {
        Mode::Status(status, after) => {
            let response = Response::builder().status(status);
            let response = match after {
                Some(after) => response.header("retry-after", after),
                None => response,
            };
            Ok(response.body(text_body(""))?)
        }
        Mode::Break => Err(io::Error::other("breaks").into()),
        Mode::Hang => std::future::pending().await,
        Mode::Endless => {
            use futures::StreamExt as _;
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
            Ok(Response::new(StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync()))
        }
        Mode::Ok | Mode::Echo => Ok(Response::new(text_body("ok"))),
    }
}

fn text_body(text: &'static str) -> Answer {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(BoxError::from).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Servers of one protocol.
pub(crate) async fn fleet(protocol: Protocol, servers: usize) -> Vec<Server> {
    let mut fleet = Vec::new();
    for _ in 0..servers {
        fleet.push(Server::start(protocol).await);
    }
    fleet
}

/// A client of the fleet. How fast the machine is decides nothing: load is counted, not timed.
pub(crate) fn builder(fleet: &[Server]) -> ClientBuilder {
    unresolved()
        .resolve(resolve::fixed(fleet.iter().map(|server| server.address)))
        .connector(ConnectorOptions::default().protocol(fleet[0].protocol))
}

pub(crate) fn builder_options() -> BalanceOptions {
    let mut options = BalanceOptions::default();
    options.load = Load::InFlight;
    options.attempt_limit = Some(Duration::from_secs(30));
    options.connect_timeout = Duration::from_secs(30);
    options
}

/// The same without endpoints.
pub(crate) fn unresolved() -> ClientBuilder {
    let policy = RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO));
    Client::builder("users")
        .deadline(Duration::from_secs(60))
        .balance(builder_options())
        .retry(policy)
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .random(Seeded::new(7))
}

/// The same, with all its connections standing.
pub(crate) async fn client(fleet: &[Server]) -> Users {
    let users = builder(fleet).build().unwrap();
    connected(&users, fleet.len()).await;
    users
}

pub(crate) async fn connected(users: &Users, endpoints: usize) {
    users.ready().await.unwrap();
    until(|| users.status().balance.endpoints.iter().filter(|row| row.is_available()).count() == endpoints)
        .await;
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

pub(crate) fn row(users: &Users, server: &Server) -> EndpointStatus {
    let name = server.address.to_string();
    let rows = users.status().balance.endpoints;
    rows.into_iter().find(|row| *row.name == *name).expect("it is in the fleet")
}

pub(crate) fn request(method: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("http://users.internal:8080/1").body(body).unwrap()
}

pub(crate) fn get() -> Request<Body> {
    request("GET", empty())
}

pub(crate) fn post() -> Request<Body> {
    request("POST", full("once"))
}

/// The status of the answer, read to its end.
pub(crate) async fn status(users: &Users, request: Request<Body>) -> Result<u16, BoxError> {
    let response = users.send(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}
