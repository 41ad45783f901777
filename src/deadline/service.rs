//! The services.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower::{BoxError, Service};

use super::future::{Kind, ResponseFuture};

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
#[derive(Clone, Copy, Debug)]
pub struct AttemptLimit<S> {
    inner: S,
    limit: Duration,
}

impl<S> AttemptLimit<S> {
    /// Requests of `inner` may take `limit`.
    pub fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit }
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
        ResponseFuture::new(self.inner.call(request), Kind::Attempt, self.limit)
    }
}
