//! The services.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Service};

use super::{
    fit::{AttemptFit, Measured},
    future::{Kind, ResponseFuture},
};

/// Gives every request a total deadline; see [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Copy, Debug)]
pub struct Deadline<S> {
    inner: S,
    total: Duration,
}

impl<S> Deadline<S> {
    /// Requests of `inner` may take `total`.
    pub fn new(inner: S, total: Duration) -> Self {
        Self { inner, total }
    }
}

impl<S, Req> Service<Req> for Deadline<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(self.inner.call(request), Kind::Total, self.total)
    }
}

/// Limits how long one attempt may take; see [`AttemptLimitLayer`](super::AttemptLimitLayer).
#[derive(Clone, Debug)]
pub struct AttemptLimit<S> {
    inner: S,
    limit: Duration,
    fit: AttemptFit,
    measured: Option<Arc<Measured>>,
}

impl<S> AttemptLimit<S> {
    /// Requests of `inner` may take `limit`.
    pub fn new(inner: S, limit: Duration) -> Self {
        Self::fitted(inner, limit, AttemptFit::Fixed, None)
    }

    pub(super) fn fitted(
        inner: S,
        limit: Duration,
        fit: AttemptFit,
        measured: Option<Arc<Measured>>,
    ) -> Self {
        Self { inner, limit, fit, measured }
    }
}

impl<S, Req> Service<Req> for AttemptLimit<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let kind = Kind::Attempt(self.fit, self.measured.clone());
        ResponseFuture::new(self.inner.call(request), kind, self.limit)
    }
}
