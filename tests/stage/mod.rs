//! A stage for the balancer: servers in memory whose behaviour tests set.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test target uses its part of it")]

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use mainstay::{
    Endpoint, Error, Reason,
    balance::{Balance, BalanceBuilder, BalanceOptions, EndpointStatus},
    outcome::Verdict,
    random::Seeded,
    resolve::{Channel, Feed, Resolve},
    telemetry::Event,
    track::{Guard, Track},
};
use tower::{BoxError, Service};

pub type Reply = Result<String, BoxError>;
pub type Client = Balance<Conn, u32>;

/// The time of the paused clock.
pub fn now() -> tokio::time::Instant {
    mainstay::clock::now().into()
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Mode {
    Answer(Duration),
    /// Answers after 5 to 15 ms, so that requests do not march in step.
    Vary,
    Fail(Duration),
    /// Asks to be left alone.
    BackOff(Option<Duration>),
    /// The connection turns out to be gone before anything is sent.
    Unsent,
    Hang,
}

/// Whether a server's service is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    Shut,
    Broken,
}

#[derive(Debug)]
pub struct Server {
    pub name: String,
    mode: Mutex<Mode>,
    gate: Mutex<(Gate, Vec<Waker>)>,
    served: AtomicUsize,
    active: AtomicUsize,
    peak: AtomicUsize,
    services: AtomicUsize,
    made: AtomicUsize,
    refuses_dials: AtomicBool,
    hangs_dials: AtomicBool,
    random: Seeded,
}

impl Server {
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn gate(&self, gate: Gate) {
        let woken = {
            let mut own = self.gate.lock().unwrap();
            own.0 = gate;
            std::mem::take(&mut own.1)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub fn refuse_dials(&self, refuse: bool) {
        self.refuses_dials.store(refuse, SeqCst);
    }

    pub fn hang_dials(&self, hang: bool) {
        self.hangs_dials.store(hang, SeqCst);
    }

    /// Requests that were given to it.
    pub fn served(&self) -> usize {
        self.served.load(SeqCst)
    }

    pub fn active(&self) -> usize {
        self.active.load(SeqCst)
    }

    /// Services (clones included) that are alive.
    pub fn services(&self) -> usize {
        self.services.load(SeqCst)
    }

    /// Connections made, or tried.
    pub fn made(&self) -> usize {
        self.made.load(SeqCst)
    }
}

/// All the servers there are, known by name.
#[derive(Clone, Debug, Default)]
pub struct Stage(Arc<Mutex<BTreeMap<String, Arc<Server>>>>);

impl Stage {
    pub fn server(&self, name: &str) -> Arc<Server> {
        let mut servers = self.0.lock().unwrap();
        servers
            .entry(name.to_owned())
            .or_insert_with(|| {
                Arc::new(Server {
                    name: name.to_owned(),
                    mode: Mutex::new(Mode::Answer(ms(10))),
                    gate: Mutex::new((Gate::Open, Vec::new())),
                    served: AtomicUsize::new(0),
                    active: AtomicUsize::new(0),
                    peak: AtomicUsize::new(0),
                    services: AtomicUsize::new(0),
                    made: AtomicUsize::new(0),
                    refuses_dials: AtomicBool::new(false),
                    hangs_dials: AtomicBool::new(false),
                    random: Seeded::new(name.bytes().map(u64::from).sum()),
                })
            })
            .clone()
    }

    pub fn served(&self) -> Vec<usize> {
        self.0.lock().unwrap().values().map(|server| server.served()).collect()
    }

    pub fn forget_served(&self) {
        self.0.lock().unwrap().values().for_each(|server| server.served.store(0, SeqCst));
    }

    pub fn connect(&self) -> impl FnMut(&Endpoint) -> Conn + Send + 'static {
        let stage = self.clone();
        move |endpoint| {
            let server = stage.server(&endpoint.address().to_string());
            server.made.fetch_add(1, SeqCst);
            Conn::to(server)
        }
    }

    pub fn dial(&self) -> Dial {
        Dial(self.clone())
    }

    /// A client of a resolver with a fixed seed, whose services dial by themselves.
    pub fn client(&self, resolver: impl Resolve) -> Client {
        self.builder(resolver).build().unwrap()
    }

    pub fn builder(&self, resolver: impl Resolve) -> BalanceBuilder<Conn, u32> {
        Balance::builder(resolver).connect(self.connect()).random(Seeded::new(7))
    }

    pub fn dialing(&self, resolver: impl Resolve) -> BalanceBuilder<Conn, u32> {
        Balance::builder(resolver).connect_with(self.dial()).random(Seeded::new(7))
    }
}

/// The service of a server.
#[derive(Debug)]
pub struct Conn(Arc<Server>);

impl Conn {
    pub fn to(server: Arc<Server>) -> Self {
        server.services.fetch_add(1, SeqCst);
        Self(server)
    }
}

impl Clone for Conn {
    fn clone(&self) -> Self {
        Self::to(self.0.clone())
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.services.fetch_sub(1, SeqCst);
    }
}

struct Active(Arc<Server>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, SeqCst);
    }
}

impl Service<u32> for Conn {
    type Response = String;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut gate = self.0.gate.lock().unwrap();
        match gate.0 {
            Gate::Open => Poll::Ready(Ok(())),
            Gate::Broken => Poll::Ready(Err("broken".into())),
            Gate::Shut => {
                gate.1.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let server = self.0.clone();
        let mode = server.mode.lock().unwrap().clone();
        server.served.fetch_add(1, SeqCst);
        let active = server.active.fetch_add(1, SeqCst) + 1;
        server.peak.fetch_max(active, SeqCst);
        let active = Active(server.clone());
        Box::pin(async move {
            let _active = active;
            match mode {
                Mode::Answer(after) => {
                    pause(after).await;
                    Ok(server.name.clone())
                }
                Mode::Vary => {
                    let word = mainstay::random::Random::next(&server.random);
                    pause(ms(5 + word % 11)).await;
                    Ok(server.name.clone())
                }
                Mode::Fail(after) => {
                    pause(after).await;
                    Err("failed".into())
                }
                Mode::BackOff(after) => {
                    let error = Error::new(Reason::BackingOff);
                    Err(match after {
                        Some(after) => error.with_retry_after(after),
                        None => error,
                    }
                    .into())
                }
                Mode::Unsent => Err(Error::new(Reason::Connect).into()),
                Mode::Hang => std::future::pending().await,
            }
        })
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Makes services by dialling.
#[derive(Clone, Debug)]
pub struct Dial(Stage);

impl Service<Arc<Endpoint>> for Dial {
    type Response = Conn;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Arc<Endpoint>) -> Self::Future {
        let server = self.0.server(&endpoint.address().to_string());
        server.made.fetch_add(1, SeqCst);
        Box::pin(async move {
            if server.hangs_dials.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            pause(ms(1)).await;
            if server.refuses_dials.load(SeqCst) { Err("refused".into()) } else { Ok(Conn::to(server)) }
        })
    }
}

/// A channel of resolutions, fed already.
pub fn fed<const N: usize>(names: [&str; N]) -> (Feed, Channel) {
    let (feed, channel) = mainstay::resolve::channel();
    feed.set(names);
    (feed, channel)
}

pub fn status(client: &Client, name: &str) -> EndpointStatus {
    let status = client.status();
    status
        .endpoints
        .iter()
        .find(|endpoint| &*endpoint.name == name)
        .unwrap_or_else(|| panic!("{name} is not in {status:?}"))
        .clone()
}

/// Lets everything that can go on without time do so.
pub async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub fn reason(reply: &Reply) -> Option<Reason> {
    reply.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
}

pub fn options(change: impl FnOnce(&mut BalanceOptions)) -> BalanceOptions {
    let mut options = BalanceOptions::default();
    change(&mut options);
    options
}

/// The events of a client, as they were told.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Vec<Event>>>);

impl Heard {
    pub fn observer(&self) -> impl Fn(&str, &Event) + Send + Sync + 'static {
        let heard = self.0.clone();
        move |_, event| heard.lock().unwrap().push(event.clone())
    }

    pub fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.all().iter().filter(|event| event.kind() == kind).count()
    }
}

/// Has this server fail until it is ejected.
pub async fn eject(stage: &Stage, client: &Client, name: &str) {
    stage.server(name).set(Mode::Fail(ms(1)));
    for _ in 0..2_000 {
        load(client, 8, 16).await;
        if status(client, name).word() == "ejected" {
            settle().await;
            return;
        }
    }
    panic!("{name} is never ejected: {:?}", client.status());
}

/// Keeps `concurrency` requests going, one after the other, until `requests` were sent in all; returns the failures.
pub async fn load(client: &Client, concurrency: usize, requests: usize) -> usize {
    let (left, failed) = (Arc::new(AtomicUsize::new(requests)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..concurrency)
        .map(|_| {
            let (client, left, failed) = (client.clone(), left.clone(), failed.clone());
            tokio::spawn(async move {
                while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                    if client.send(0).await.is_err() {
                        failed.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    failed.load(SeqCst)
}

/// Ends of responses, kept as long as they are to be.
#[derive(Clone, Debug, Default)]
pub struct Ends(Arc<Mutex<(bool, Vec<Guard>)>>);

impl Ends {
    /// Whether those that come are kept.
    pub fn keep(&self, keep: bool) {
        self.0.lock().unwrap().0 = keep;
    }

    pub fn take(&self) -> Vec<Guard> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl Track<String> for Ends {
    fn track(&self, _: &mut String, guard: Guard) {
        let mut own = self.0.lock().unwrap();
        if own.0 {
            own.1.push(guard);
        } else {
            drop(own);
            guard.end(Verdict::success());
        }
    }
}

/// An answer whose end is still to come, and tells whether it is good.
#[derive(Default)]
pub struct Late(pub Option<Guard>);

/// Gives it its guard.
pub struct Keep;

impl Track<Late> for Keep {
    fn track(&self, response: &mut Late, guard: Guard) {
        response.0 = Some(guard);
    }
}
