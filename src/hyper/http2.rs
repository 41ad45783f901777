//! The HTTP/2 connections to one endpoint.
//!
//! All requests go over the first of them that has room, so that the others fall idle with the load and are closed. Where none has,
//! another is made beside them, up to the number of the options; a request waits for it only if it would wait for a stream otherwise.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ::http::{Request, Response};
use ::hyper::{
    body::{Body, Incoming},
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::AbortHandle;
use tower::BoxError;

use super::{
    dial::DIAL,
    stream::Stream,
    streams::{Driven, InUse, Streams, UNTOLD},
    target::Target,
};
use crate::{
    Error, Reason, clock,
    http::{BodyTrack, Tracked},
    outcome::Verdict,
    sync::{Mutex, lock},
    track::{Guard, Track as _},
};

/// When it is looked, after a connection was made, whether the server has said how many streams it allows.
const LOOKS: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];
/// How long no other connection is made beside those there are, after one could not be made, or did not live so long.
const PAUSE: Duration = Duration::from_secs(1);

/// A few connections that all requests share; the first is made anew by the first request that finds it gone.
pub(super) struct Few<B>(Arc<Shared<B>>);

struct Shared<B> {
    state: Mutex<State<B>>,
    /// Held by whoever makes a connection. A dropped holder passes it to the next in line.
    dialling: tokio::sync::Mutex<()>,
}

struct State<B> {
    connections: Vec<Connection<B>>,
    /// How many connects have failed, and how the last did.
    failures: u64,
    last: Option<Error>,
    /// Until when no other connection is made beside those there are.
    paused: Option<Instant>,
    /// Whether one is being made.
    grows: bool,
}

struct Connection<B> {
    sender: SendRequest<B>,
    streams: Arc<Streams>,
    since: Instant,
    /// What ends it when it is old, or idle beside others.
    keeper: Option<AbortHandle>,
}

impl<B> State<B> {
    fn least_full(&self) -> Option<&Connection<B>> {
        self.connections.iter().min_by(|a, b| a.streams.share().total_cmp(&b.streams.share()))
    }
}

impl<B> Connection<B> {
    fn lease(&self) -> Lease<B> {
        (self.sender.clone(), InUse::of(&self.streams))
    }
}

impl<B> Drop for Connection<B> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }
}

/// That a connection is being made, for as long as somebody does: to the end of the runtime at the most.
struct Growing<B>(Weak<Shared<B>>);

impl<B> Growing<B> {
    fn of(shared: &Arc<Shared<B>>) -> Self {
        lock(&shared.state).grows = true;
        Self(Arc::downgrade(shared))
    }
}

impl<B> Drop for Growing<B> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            lock(&shared.state).grows = false;
        }
    }
}

/// A stream to be opened.
type Lease<B> = (SendRequest<B>, Arc<InUse>);

/// What there is for a request.
enum Found<B> {
    /// A connection with room.
    Room(Lease<B>),
    /// One that is nearly full; another would be of use, if it may be made.
    Crowded(Lease<B>, bool),
    /// Only full ones; another may be made.
    Full,
    Nothing,
}

impl<B> Few<B> {
    pub(super) fn new() -> Self {
        let state = State { connections: Vec::new(), failures: 0, last: None, paused: None, grows: false };
        Self(Arc::new(Shared { state: Mutex::new(state), dialling: tokio::sync::Mutex::new(()) }))
    }
}

impl<B> Shared<B> {
    /// The best there is, and the number of failures so far.
    fn find(&self, target: &Target) -> (Found<B>, u64) {
        let mut state = lock(&self.state);
        let mut paused = None;
        state.connections.retain(|it| {
            let is_closed = it.sender.is_closed();
            // A server that takes no more connections of one client may close them as soon as it has greeted it.
            if is_closed && clock::now().saturating_duration_since(it.since) < PAUSE {
                paused = Some(clock::now() + PAUSE);
            }
            !is_closed
        });
        state.paused = paused.or(state.paused);
        let (failures, connections) = (state.failures, &state.connections);
        if let Some(roomy) = connections.iter().find(|it| it.streams.is_roomy()) {
            return (Found::Room(roomy.lease()), failures);
        }
        let Some(best) = state.least_full() else { return (Found::Nothing, failures) };
        let more = connections.len() < target.options.http2_connections
            && state.paused.is_none_or(|until| until <= clock::now());
        let found = if more && best.streams.is_full() {
            Found::Full
        } else {
            Found::Crowded(best.lease(), more && !state.grows)
        };
        (found, failures)
    }

    /// The least full of those there are, whatever else could be made.
    fn any(&self) -> Option<Lease<B>> {
        lock(&self.state).least_full().map(Connection::lease)
    }
}

impl<B> Few<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Makes the first connection for the first request to find.
    pub(super) async fn warm(&self, target: &Arc<Target>) -> Result<(), Error> {
        self.lease(target).await.map(drop)
    }

    /// Takes over a connection for the first request to find.
    pub(super) async fn adopt(&self, target: &Arc<Target>, stream: TokioIo<Stream>) -> Result<(), Error> {
        let made = handshake(target, stream).await?;
        self.0.add(target, made);
        Ok(())
    }

    pub(super) async fn send(
        &self,
        target: &Arc<Target>,
        request: Request<B>,
    ) -> Result<Response<Tracked<Incoming>>, BoxError> {
        let (mut sender, in_use) = self.lease(target).await?;
        let response = sender.try_send_request(request).await.map_err(|error| error.into_error())?;
        in_use.streams().look();
        let mut response = response.map(Tracked::new);
        BodyTrack.track(&mut response, Guard::new(in_use, Verdict::success()));
        Ok(response)
    }

    async fn lease(&self, target: &Arc<Target>) -> Result<Lease<B>, Error> {
        let failures_before = match self.0.find(target) {
            (Found::Room(lease) | Found::Crowded(lease, false), _) => return Ok(lease),
            (Found::Crowded(lease, true), _) => {
                self.grow(target);
                return Ok(lease);
            }
            (Found::Full | Found::Nothing, failures) => failures,
        };
        let _turn = self.0.dialling.lock().await;
        let failures = match self.0.find(target) {
            (Found::Room(lease) | Found::Crowded(lease, _), _) => return Ok(lease),
            (Found::Full | Found::Nothing, failures) => failures,
        };
        if failures > failures_before {
            // Those who waited share the failure; else they would dial one after the other, each for its full time.
            let last = lock(&self.0.state).last.clone();
            if let Some(error) = last {
                return self.0.any().ok_or(error);
            }
        }
        match connect(target).await {
            Ok(made) => Ok(self.0.add(target, made)),
            Err(error) => {
                self.0.failed(&error);
                // One that is full is better than none: what is beyond its streams waits inside of it.
                self.0.any().ok_or(error)
            }
        }
    }

    /// Makes another connection, for requests to come.
    fn grow(&self, target: &Arc<Target>) {
        let (growing, target) = (Growing::of(&self.0), Arc::clone(target));
        tokio::spawn(async move {
            let Some(shared) = growing.0.upgrade() else { return };
            let _turn = shared.dialling.lock().await;
            // Somebody may have made it meanwhile.
            if lock(&shared.state).connections.len() < target.options.http2_connections {
                match dialled(&target).await {
                    Ok(made) => drop(shared.add(&target, made)),
                    Err(error) => shared.failed(&error),
                }
            }
        });
    }
}

impl<B> Shared<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Adds a connection, with a stream to be opened on it.
    fn add(self: &Arc<Self>, target: &Arc<Target>, made: Made<B>) -> Lease<B> {
        let (sender, streams) = made;
        let lease = (sender.clone(), InUse::of(&streams));
        let mut state = lock(&self.state);
        (state.last, state.paused) = (None, None);
        let is_beside = !state.connections.is_empty();
        let retires = target.options.retires();
        let keeper = (is_beside || retires.is_some()).then(|| {
            let keeper = Keeper { shared: Arc::downgrade(self), streams: Arc::clone(&streams), retires };
            tokio::spawn(keeper.keep(Arc::clone(target))).abort_handle()
        });
        state.connections.push(Connection { sender, streams, since: clock::now(), keeper });
        lease
    }

    fn failed(&self, error: &Error) {
        let mut state = lock(&self.state);
        state.failures += 1;
        state.last = Some(error.clone());
        state.paused = Some(clock::now() + PAUSE);
    }
}

impl<B> Shared<B> {
    /// Gives no further request to this connection, which ends with those it has. Says whether it was still there.
    fn retire(&self, streams: &Arc<Streams>, unless_last: bool) -> bool {
        let mut state = lock(&self.state);
        let open = state.connections.iter().filter(|it| !it.sender.is_closed()).count();
        if unless_last && open < 2 {
            return false;
        }
        let place = state.connections.iter().position(|it| Arc::ptr_eq(&it.streams, streams));
        let retired = place.map(|place| state.connections.remove(place));
        drop(state);
        retired.is_some()
    }

    fn has(&self, streams: &Arc<Streams>) -> bool {
        lock(&self.state).connections.iter().any(|it| Arc::ptr_eq(&it.streams, streams))
    }
}

/// Ends a connection in time.
struct Keeper<B> {
    shared: Weak<Shared<B>>,
    streams: Arc<Streams>,
    retires: Option<Instant>,
}

impl<B> Keeper<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn keep(mut self, target: Arc<Target>) {
        let idle = target.options.idle_connection;
        let mut before = None;
        loop {
            let look = clock::now() + idle;
            let at = self.retires.map_or(look, |retires| retires.min(look));
            tokio::time::sleep_until(at.into()).await;
            if !self.shared.upgrade().is_some_and(|shared| shared.has(&self.streams)) {
                return;
            }
            if self.retires.is_some_and(|retires| retires <= clock::now()) {
                // The next one first, so that no request waits for it.
                let made = dialled(&target).await;
                let Some(shared) = self.shared.upgrade() else { return };
                match made {
                    Ok(made) => {
                        drop(shared.add(&target, made));
                        shared.retire(&self.streams, false);
                        return;
                    }
                    // An old connection is better than none.
                    Err(error) => {
                        shared.failed(&error);
                        self.retires = target.options.retires_later();
                    }
                }
                continue;
            }
            // Nothing since the last look, and nothing now.
            let now = self.streams.idle();
            if now.is_some()
                && now == before
                && self.shared.upgrade().is_some_and(|shared| shared.retire(&self.streams, true))
            {
                return;
            }
            before = now;
        }
    }
}

/// A connection, and what is known of its streams.
type Made<B> = (SendRequest<B>, Arc<Streams>);

/// Makes a connection that no request waits for, and that its server has spoken on.
async fn dialled<B>(target: &Target) -> Result<Made<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let timed_out = || Error::new(Reason::Connect).with_endpoint(target.name().into()).with_lasted(DIAL);
    let proven = async {
        let made = connect(target).await?;
        // The system takes connections that no server takes from it. One that has said something is there.
        while !made.1.is_told() {
            if made.0.is_closed() {
                return Err(Error::new(Reason::Connect).with_endpoint(target.name().into()));
            }
            tokio::time::sleep(LOOKS[0]).await;
            // By itself its task looks too seldom for a server that is far away.
            made.1.look();
        }
        Ok(made)
    };
    tokio::time::timeout(DIAL, proven).await.unwrap_or_else(|_| Err(timed_out()))
}

async fn connect<B>(target: &Target) -> Result<Made<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    handshake(target, target.dial().await?.0).await
}

/// Speaks HTTP/2 on `stream`.
async fn handshake<B>(target: &Target, stream: TokioIo<Stream>) -> Result<Made<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let options = &target.options;
    let (mut sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_max_send_streams(UNTOLD)
        .keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(options.ping_while_idle)
        .handshake(stream)
        .await
        .map_err(|error| target.failed(error))?;
    let streams = Arc::new(Streams::new());
    let driven = Driven::new(connection, Arc::clone(&streams), |it| it.current_max_send_streams());
    let told = Arc::clone(&streams);
    // Its errors are told to the requests it carries; without one there is nobody to tell.
    tokio::spawn(async move {
        let mut driven = std::pin::pin!(driven);
        for look in LOOKS {
            if !told.is_told() && tokio::time::timeout(look, driven.as_mut()).await.is_ok() {
                return;
            }
        }
        drop(driven.await);
    });
    sender.ready().await.map_err(|error| target.failed(error))?;
    Ok((sender, streams))
}

impl<B> fmt::Debug for Few<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = lock(&self.0.state).connections.len();
        f.debug_struct("Http2").field("connections", &connections).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    type Body = http_body_util::Empty<bytes::Bytes>;

    #[test]
    fn what_was_being_made_on_a_runtime_that_has_ended_may_be_made_again() {
        let few = Few::<Body>::new();
        let growing = Growing::of(&few.0);
        assert!(lock(&few.0.state).grows);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(growing);
        });
        drop(runtime);
        assert!(!lock(&few.0.state).grows);
    }
}
