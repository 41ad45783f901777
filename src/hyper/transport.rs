//! The service that sends requests to one endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Request, Response};
use ::hyper::body::{Body, Incoming};
use tower::{BoxError, Service};

use super::{http1::Pool, http2::Few, options::Protocol, target::Target};
use crate::{Error, http::Tracked};

/// Sends requests to one endpoint, over connections that all its clones share.
///
/// It is always ready, and makes connections as requests need them. A connection that cannot be made is an [`Error`] with
/// [`Reason::Connect`](crate::Reason::Connect), and the request was not sent. With the last clone, and the last response
/// that is still being read, its connections close.
pub struct Transport<B> {
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    target: Arc<Target>,
    connections: Connections<B>,
}

enum Connections<B> {
    Http1(Pool<B>),
    Http2(Few<B>),
}

impl<B> Transport<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A transport to `target` with a connection that stands.
    pub(super) async fn connect(target: Target) -> Result<Self, Error> {
        if target.options.protocol == Protocol::Negotiated {
            return Self::negotiate(target).await;
        }
        let (target, connections) = Self::speaking(target);
        match &connections {
            Connections::Http1(pool) => pool.warm(&target).await?,
            Connections::Http2(few) => few.warm(&target).await?,
        }
        Ok(Self { inner: Arc::new(Inner { target, connections }) })
    }

    /// The same to a target that says by its first connection what it speaks, and keeps to that.
    async fn negotiate(target: Target) -> Result<Self, Error> {
        let (stream, spoken) = target.dial().await?;
        let (target, connections) = Self::speaking(target.speaking(spoken));
        match &connections {
            Connections::Http1(pool) => pool.adopt(&target, stream).await?,
            Connections::Http2(few) => few.adopt(&target, stream).await?,
        }
        Ok(Self { inner: Arc::new(Inner { target, connections }) })
    }

    fn speaking(target: Target) -> (Arc<Target>, Connections<B>) {
        let connections = match target.options.protocol {
            Protocol::Http2 => Connections::Http2(Few::new()),
            _ => Connections::Http1(Pool::new(target.options.connections_per_endpoint)),
        };
        (Arc::new(target), connections)
    }
}

impl<B> Clone for Transport<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B> fmt::Debug for Transport<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections: &dyn fmt::Debug = match &self.inner.connections {
            Connections::Http1(pool) => pool,
            Connections::Http2(few) => few,
        };
        f.debug_struct("Transport")
            .field("endpoint", &self.inner.target.name())
            .field("connections", connections)
            .finish()
    }
}

impl<B> Service<Request<B>> for Transport<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Tracked<Incoming>>;
    type Error = BoxError;
    type Future = TransportFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> TransportFuture {
        let inner = Arc::clone(&self.inner);
        TransportFuture(Box::pin(async move {
            inner.target.address(&mut request)?;
            match &inner.connections {
                Connections::Http1(pool) => {
                    pool.send(&inner.target, request).await.map(|response| response.map(Tracked::new))
                }
                Connections::Http2(few) => few.send(&inner.target, request).await,
            }
        }))
    }
}

/// The future of [`Transport`].
pub struct TransportFuture(Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>);

type Answer = Response<Tracked<Incoming>>;

impl Future for TransportFuture {
    type Output = Result<Answer, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportFuture").finish_non_exhaustive()
    }
}
