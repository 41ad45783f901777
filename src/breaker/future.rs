//! The response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::service::{Held, Shared};
use crate::gated::Gated;

/// The response of a [`Breaker`](super::Breaker).
///
/// Dropping it at any time, and a panic inside, gives back the place of a probe.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    call: Gated<S, Req>,
    held: Held<S::Response>,
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    #[inline]
    pub(super) fn new(call: Gated<S, Req>, shared: Arc<Shared<S::Response>>) -> Self {
        Self { call, held: Held::new(shared) }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    S::Response: 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.call.poll(this.held, cx)
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("call", &self.call).finish_non_exhaustive()
    }
}
