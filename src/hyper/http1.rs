//! The HTTP/1.1 connections to one endpoint.
//!
//! A slot is the right to use one connection. Whoever holds a slot takes an idle connection, and makes a new one only if
//! there is none: then every connection there is belongs to another slot, so there are never more than slots. A slot is
//! given back after its connection has been put back.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Instant,
};

use ::http::{Request, Response};
use ::hyper::{
    body::{Body, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
};
use tower::BoxError;

use super::{dial::DIAL, stream::Stream, target::Target};
use crate::{
    Error, Reason, clock,
    sync::{Mutex, lock},
};

/// hyper's task notices that a response was read, then ours that the connection is ready.
const LET_OTHERS_RUN: usize = 2;

pub(super) struct Pool<B> {
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Idle<B>>>,
}

struct Idle<B> {
    /// The longest idle first.
    connections: Vec<Kept<B>>,
    /// The task that closes those that are idle for too long, while there are any.
    reaper: Option<AbortHandle>,
}

/// A connection that is idle.
struct Kept<B> {
    connection: Connection<B>,
    since: Instant,
}

impl<B> Kept<B> {
    /// When it is closed.
    fn ends(&self, target: &Target) -> Instant {
        let idle = self.since + target.options.idle_connection;
        self.connection.retires.map_or(idle, |retires| retires.min(idle))
    }
}

/// A connection, and when it is too old for another request.
struct Connection<B> {
    sender: SendRequest<B>,
    retires: Option<Instant>,
}

/// A connection in use, with its slot.
struct Lease<B> {
    connection: Connection<B>,
    slot: OwnedSemaphorePermit,
}

impl<B> Pool<B> {
    pub(super) fn new(connections: usize) -> Self {
        let idle = Idle { connections: Vec::new(), reaper: None };
        Self { slots: Arc::new(Semaphore::new(connections)), idle: Arc::new(Mutex::new(idle)) }
    }
}

impl<B> Pool<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Makes a connection for the first request to find.
    pub(super) async fn warm(&self, target: &Arc<Target>) -> Result<(), Error> {
        let lease = self.lease(target).await?;
        put(&self.idle, lease, target);
        Ok(())
    }

    /// Takes over a connection for the first request to find.
    pub(super) async fn adopt(&self, target: &Arc<Target>, stream: TokioIo<Stream>) -> Result<(), Error> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Error::new(Reason::Closed))?;
        let connection = handshake(target, stream).await?;
        put(&self.idle, Lease { connection, slot }, target);
        Ok(())
    }

    pub(super) async fn send(
        &self,
        target: &Arc<Target>,
        request: Request<B>,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut lease = self.lease(target).await?;
        let response =
            lease.connection.sender.try_send_request(request).await.map_err(|error| error.into_error())?;
        self.give_back(lease, target);
        Ok(response)
    }

    async fn lease(&self, target: &Arc<Target>) -> Result<Lease<B>, Error> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Error::new(Reason::Closed))?;
        // A connection whose response has just been read is put back by tasks that have not run yet: let them, since a
        // dial takes longer than they do.
        for _ in 0..LET_OTHERS_RUN {
            if let Some(connection) = self.take_idle(target) {
                return Ok(Lease { connection, slot });
            }
            tokio::task::yield_now().await;
        }
        match self.take_idle(target) {
            Some(connection) => Ok(Lease { connection, slot }),
            None => self.dial(target, slot).await,
        }
    }

    /// Makes a connection, in a task of its own: a request that gives up does not take it along, and the next finds it.
    async fn dial(&self, target: &Arc<Target>, slot: OwnedSemaphorePermit) -> Result<Lease<B>, Error> {
        let (told, dialed) = oneshot::channel();
        let (idle, own) = (Arc::downgrade(&self.idle), Arc::clone(target));
        tokio::spawn(async move {
            let connection = match tokio::time::timeout(DIAL, connect(&own)).await {
                Ok(connection) => connection,
                Err(_) => Err(Error::new(Reason::Connect).with_endpoint(own.name().into()).with_lasted(DIAL)),
            };
            if let Err(Ok(lease)) = told.send(connection.map(|connection| Lease { connection, slot }))
                && let Some(idle) = idle.upgrade()
            {
                put(&idle, lease, &own);
            }
        });
        dialed.await.unwrap_or_else(|_| Err(Error::new(Reason::Connect).with_endpoint(target.name().into())))
    }

    /// The connection used last, so that those not needed grow old.
    fn take_idle(&self, target: &Target) -> Option<Connection<B>> {
        let now = clock::now();
        let mut idle = lock(&self.idle);
        while let Some(kept) = idle.connections.pop() {
            if now < kept.ends(target) && kept.connection.sender.is_ready() {
                return Some(kept.connection);
            }
        }
        None
    }

    /// Puts the connection back once the response has been read, or drops it if it was not read to its end.
    fn give_back(&self, mut lease: Lease<B>, target: &Arc<Target>) {
        if lease.connection.sender.is_ready() {
            return put(&self.idle, lease, target);
        }
        if lease.connection.sender.is_closed() {
            return;
        }
        let (idle, target) = (Arc::downgrade(&self.idle), Arc::clone(target));
        tokio::spawn(async move {
            if lease.connection.sender.ready().await.is_ok()
                && let Some(idle) = idle.upgrade()
            {
                put(&idle, lease, &target);
            }
        });
    }
}

async fn connect<B>(target: &Target) -> Result<Connection<B>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    handshake(target, target.dial().await?.0).await
}

/// Speaks HTTP/1.1 on `stream`.
async fn handshake<B>(target: &Target, stream: TokioIo<Stream>) -> Result<Connection<B>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| target.failed(error))?;
    // Its errors are told to the request it carries; without one there is nobody to tell.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    sender.ready().await.map_err(|error| target.failed(error))?;
    Ok(Connection { sender, retires: target.options.retires() })
}

fn put<B: Send + 'static>(pool: &Arc<Mutex<Idle<B>>>, lease: Lease<B>, target: &Arc<Target>) {
    let (Lease { connection, slot }, since) = (lease, clock::now());
    if connection.retires.is_some_and(|retires| retires <= since) {
        // It has done its last request.
        return;
    }
    let mut idle = lock(pool);
    idle.connections.push(Kept { connection, since });
    if idle.reaper.is_none() {
        let reaper = tokio::spawn(reap(Arc::downgrade(pool), Arc::clone(target)));
        idle.reaper = Some(reaper.abort_handle());
    }
    drop(idle);
    drop(slot);
}

/// Closes connections that have been idle for too long, or are too old, until there is none.
async fn reap<B>(pool: Weak<Mutex<Idle<B>>>, target: Arc<Target>) {
    loop {
        let Some(idle) = pool.upgrade() else { return };
        let next = {
            let now = clock::now();
            let mut idle = lock(&idle);
            idle.connections.retain(|kept| now < kept.ends(&target) && !kept.connection.sender.is_closed());
            match idle.connections.iter().map(|kept| kept.ends(&target)).min() {
                Some(next) => next,
                None => {
                    idle.reaper = None;
                    return;
                }
            }
        };
        drop(idle);
        tokio::time::sleep_until(next.into()).await;
    }
}

impl<B> Drop for Idle<B> {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
    }
}

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = lock(&self.idle).connections.len();
        f.debug_struct("Http1")
            .field("idle", &idle)
            .field("free_slots", &self.slots.available_permits())
            .finish()
    }
}
