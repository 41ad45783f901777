//! The service, and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{Limits, One, RateLimitLayer, Weigh, Whole, layer::Shared, meters::Taken};
use crate::{
    context::{self, Timer},
    gated::{Gated, Passage},
};

/// A service whose requests keep to a rate; made by [`RateLimitLayer`].
///
/// Readiness is the inner service's: the rate is asked when the response is first polled, so a handle that is ready and not
/// called takes nothing.
pub struct RateLimit<S, L = Whole, W = One> {
    inner: S,
    layer: RateLimitLayer<L, W>,
}

impl<S, L, W> RateLimit<S, L, W> {
    pub(super) fn new(inner: S, layer: RateLimitLayer<L, W>) -> Self {
        Self { inner, layer }
    }
}

impl<S, L, W, Req> Service<Req> for RateLimit<S, L, W>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    L: Limits<Req>,
    W: Weigh<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, L, W>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let turn = Turn { taken: None, shared: self.layer.shared.clone() };
        ResponseFuture { timer: Timer::default(), call: Gated::of(&mut self.inner, request), turn }
    }
}

impl<S: Clone, L, W> Clone for RateLimit<S, L, W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, L: fmt::Debug, W> fmt::Debug for RateLimit<S, L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// The response of a [`RateLimit`].
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, L = Whole, W = One> {
    #[pin]
    timer: Timer,
    #[pin]
    call: Gated<S, Req>,
    turn: Turn<L, W>,
}

/// What was taken in advance, until its time has come.
struct Turn<L, W> {
    taken: Option<Taken>,
    shared: Arc<Shared<L, W>>,
}

impl<S, Req, L, W> Passage<S, Req> for Turn<L, W>
where
    S: Service<Req>,
    L: Limits<Req>,
    W: Weigh<Req>,
{
    #[inline]
    fn poll_enter(&mut self, _: &mut S, request: &Req, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let shared = &*self.shared;
        let asks = |now| (shared.limits.limit(request, now), shared.weigh.weigh(request));
        let class = || context::inherited().criticality().unwrap_or_default();
        shared.terms.poll_turn(asks, &mut self.taken, class).map_err(|error| shared.named(error).into())
    }

    #[inline]
    fn left(&mut self, _: &mut Result<S::Response, BoxError>) {}
}

impl<S, Req, L, W> Future for ResponseFuture<S, Req, L, W>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    L: Limits<Req>,
    W: Weigh<Req>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.timer.poll(cx, |cx| this.call.as_mut().poll(this.turn, cx))
    }
}

impl<S: Service<Req>, Req, L, W> fmt::Debug for ResponseFuture<S, Req, L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("waiting", &self.turn.taken.is_some())
            .finish_non_exhaustive()
    }
}
