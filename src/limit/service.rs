//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

use super::{AtHead, Judges, ResponseFuture, layer::Shared};
use crate::gated::Gated;

/// A service whose requests wait for their turn; made by [`ConcurrencyLimitLayer`](super::ConcurrencyLimitLayer).
///
/// Readiness is the inner service's: a handle that is ready holds no place, so an idle one starves nobody. The inner
/// service that was readied goes along with the request and is called when its turn has come; what that service reserved
/// when it became ready, it keeps while the request waits.
pub struct ConcurrencyLimit<S, J = AtHead> {
    inner: S,
    shared: Arc<Shared<J>>,
}

impl<S, J> ConcurrencyLimit<S, J> {
    pub(super) fn new(inner: S, shared: Arc<Shared<J>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, J, Req> Service<Req> for ConcurrencyLimit<S, J>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    J: Judges<S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(Gated::of(&mut self.inner, request), self.shared.clone())
    }
}

impl<S: Clone, J> Clone for ConcurrencyLimit<S, J> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, J> fmt::Debug for ConcurrencyLimit<S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("inner", &self.inner)
            .field("gate", &self.shared.limiter.gate)
            .finish_non_exhaustive()
    }
}
