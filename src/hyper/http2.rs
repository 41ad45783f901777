//! The HTTP/2 connection to one endpoint.

use std::{fmt, sync::Arc};

use ::http::{Request, Response};
use ::hyper::{
    body::{Body, Incoming},
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::BoxError;

use super::{stream::Stream, target::Target};
use crate::{
    Error,
    sync::{Mutex, lock},
};

/// One connection that all requests share, made anew by the first request that finds it gone.
pub(super) struct Single<B> {
    state: Mutex<State<B>>,
    /// Held by whoever makes the connection. A dropped holder passes it to the next in line.
    dialling: tokio::sync::Mutex<()>,
}

struct State<B> {
    sender: Option<SendRequest<B>>,
    /// How many connects have failed, and how the last did.
    failures: u64,
    last: Option<Error>,
}

impl<B> Single<B> {
    pub(super) fn new() -> Self {
        let state = State { sender: None, failures: 0, last: None };
        Self { state: Mutex::new(state), dialling: tokio::sync::Mutex::new(()) }
    }

    /// The connection, unless it is gone; and the number of failures so far.
    fn current(&self) -> (Option<SendRequest<B>>, u64) {
        let mut state = lock(&self.state);
        if state.sender.as_ref().is_some_and(SendRequest::is_closed) {
            state.sender = None;
        }
        (state.sender.clone(), state.failures)
    }
}

impl<B> Single<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Makes the connection for the first request to find.
    pub(super) async fn warm(&self, target: &Arc<Target>) -> Result<(), Error> {
        self.sender(target).await.map(drop)
    }

    /// Takes over a connection for the first request to find.
    pub(super) async fn adopt(&self, target: &Arc<Target>, stream: TokioIo<Stream>) -> Result<(), Error> {
        let sender = handshake(target, stream).await?;
        lock(&self.state).sender = Some(sender);
        Ok(())
    }

    pub(super) async fn send(
        &self,
        target: &Arc<Target>,
        request: Request<B>,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut sender = self.sender(target).await?;
        Ok(sender.try_send_request(request).await.map_err(|error| error.into_error())?)
    }

    async fn sender(&self, target: &Arc<Target>) -> Result<SendRequest<B>, Error> {
        let (sender, failures_before) = self.current();
        if let Some(sender) = sender {
            return Ok(sender);
        }
        let _turn = self.dialling.lock().await;
        let (sender, failures) = self.current();
        if let Some(sender) = sender {
            return Ok(sender);
        }
        if failures > failures_before {
            // Those who waited share the failure; else they would dial one after the other, each for its full time.
            let last = lock(&self.state).last.clone();
            if let Some(error) = last {
                return Err(error);
            }
        }
        let connected = connect(target).await;
        let mut state = lock(&self.state);
        match connected {
            Ok(sender) => {
                state.sender = Some(sender.clone());
                Ok(sender)
            }
            Err(error) => {
                state.failures += 1;
                state.last = Some(error.clone());
                Err(error)
            }
        }
    }
}

async fn connect<B>(target: &Target) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    handshake(target, target.dial().await?.0).await
}

/// Speaks HTTP/2 on `stream`.
async fn handshake<B>(target: &Target, stream: TokioIo<Stream>) -> Result<SendRequest<B>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let options = &target.options;
    let (mut sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(options.ping_while_idle)
        .handshake(stream)
        .await
        .map_err(|error| target.failed(error))?;
    // Its errors are told to the requests it carries; without one there is nobody to tell.
    tokio::spawn(async move { drop(connection.await) });
    sender.ready().await.map_err(|error| target.failed(error))?;
    Ok(sender)
}

impl<B> fmt::Debug for Single<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").field("connected", &self.current().0.is_some()).finish_non_exhaustive()
    }
}
