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

use super::{Answer, ThrottleLayer, layer::Shared};
use crate::{
    Error, Reason, context,
    error::ErrorsFail,
    gated::{Gated, Passage},
    limit::timed_out,
    outcome::Classify,
};

/// A service whose requests are kept back in part while the servers turn requests away; made by [`ThrottleLayer`].
///
/// Readiness is the inner service's. Whether a request is kept back is decided when its response is first polled.
pub struct Throttled<S, C = ErrorsFail> {
    inner: S,
    layer: ThrottleLayer<C>,
}

impl<S, C> Throttled<S, C> {
    pub(super) fn new(inner: S, layer: ThrottleLayer<C>) -> Self {
        Self { inner, layer }
    }
}

impl<S, C, Req> Service<Req> for Throttled<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let door = Door(self.layer.shared.clone());
        ResponseFuture { call: Gated::of(&mut self.inner, request), door }
    }
}

impl<S: Clone, C> Clone for Throttled<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Throttled<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// The response of a [`Throttled`] service.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, C = ErrorsFail> {
    #[pin]
    call: Gated<S, Req>,
    door: Door<C>,
}

struct Door<C>(Arc<Shared<C>>);

impl<S, Req, C> Passage<S, Req> for Door<C>
where
    S: Service<Req>,
    C: Classify<S::Response>,
{
    #[inline]
    fn poll_enter(&mut self, _: &mut S, _: &Req, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Shared { throttle, random, label, .. } = &*self.0;
        let class = context::inherited().criticality().unwrap_or_default();
        if throttle.admit(context::now(), class, &**random) {
            return Poll::Ready(Ok(()));
        }
        let error = Error::new(Reason::Throttled);
        Poll::Ready(Err(match label {
            Some(label) => error.with_client(label.clone()),
            None => error,
        }
        .into()))
    }

    #[inline]
    fn left(&mut self, result: &mut Result<S::Response, BoxError>) {
        let Shared { throttle, classify, .. } = &*self.0;
        let (verdict, unread) = context::judged(|| classify.classify(result.as_ref()));
        if unread {
            // What is further in has not read the clock when the answer came.
            context::forget_now();
        }
        if let Some(answer) = Answer::of(verdict, timed_out(result)) {
            throttle.ended(context::now(), answer);
        }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.call.poll(this.door, cx)
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for ResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("call", &self.call).finish_non_exhaustive()
    }
}
