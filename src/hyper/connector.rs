//! Makes transports to endpoints.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::hyper::body::Body;
use tower::{BoxError, Service};

use super::{options::ConnectorOptions, target::Target, transport::Transport};
use crate::{Endpoint, invalid::Invalid};

/// Makes a [`Transport`] to an endpoint, for requests with bodies of type `B`.
///
/// It answers when a connection stands. An endpoint with several socket addresses is dialled in their order, of one family and
/// the other in turn, each with a head start of 250 ms before the next; an authority is looked up first. How long it may take is for the caller to
/// bound: dropping the future ends the dials.
pub struct Connector<B> {
    options: Arc<ConnectorOptions>,
    bodies: PhantomData<fn(B)>,
}

impl<B> Connector<B> {
    /// A connector with `options`.
    ///
    /// # Errors
    /// [`Invalid`] as [`ConnectorOptions::check`] says.
    pub fn new(options: ConnectorOptions) -> Result<Self, Invalid> {
        options.check()?;
        Ok(Self { options: Arc::new(options), bodies: PhantomData })
    }

    /// The options.
    pub fn options(&self) -> &ConnectorOptions {
        &self.options
    }
}

impl<B> Default for Connector<B> {
    fn default() -> Self {
        Self { options: Arc::default(), bodies: PhantomData }
    }
}

impl<B> Clone for Connector<B> {
    fn clone(&self) -> Self {
        Self { options: Arc::clone(&self.options), bodies: PhantomData }
    }
}

impl<B> fmt::Debug for Connector<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("options", &self.options).finish()
    }
}

impl<B> Service<Arc<Endpoint>> for Connector<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Transport<B>;
    type Error = BoxError;
    type Future = Connecting<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Arc<Endpoint>) -> Connecting<B> {
        let target = Target::new(endpoint, Arc::clone(&self.options));
        Connecting(Box::pin(async move { Ok(Transport::connect(target).await?) }))
    }
}

/// The future of [`Connector`].
pub struct Connecting<B>(Pin<Box<dyn Future<Output = Result<Transport<B>, BoxError>> + Send>>);

impl<B> Future for Connecting<B> {
    type Output = Result<Transport<B>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<B> fmt::Debug for Connecting<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}
