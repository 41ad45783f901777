//! Refuses at once what the service below would let wait.
//!
//! **Problem.** A service that is not ready makes its caller wait, without bound and without a word. tower's `LoadShed` answers
//! for it, and keeps what the service reserved when it became ready on a handle that may never be called again. **Idea.** Here a
//! handle is always ready and holds nothing. Each request readies a clone of its own inside its future, once: if that is not
//! ready it is refused with [`Reason::NotReady`] and the clone is dropped, with whatever it had reserved.
//! What the service says when it is not ready for good is passed on as it is. **When to use it.** Around services whose
//! readiness tells of load; those of this crate are always ready and refuse by themselves.
//!
//! ```
//! use mainstay::{Error, Reason, limit::shed::ShedLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(ShedLayer)
//!     .layer(ConcurrencyLimitLayer::new(0)) // never ready
//!     .service(service_fn(|_: ()| async { Ok::<_, BoxError>(()) }));
//! let refused = service.oneshot(()).await.unwrap_err();
//! assert_eq!(Error::find(&*refused).map(Error::reason), Some(Reason::NotReady));
//! # }
//! ```
//!
//! **Cost.** A clone of the inner service, which is readied anew with each request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tower::{BoxError, Layer, Service};

use crate::{
    Error, Reason,
    gated::{Gated, Passage},
};

/// Refuses requests that a service is not ready for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShedLayer;

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Shed { inner }
    }
}

/// A service that is always ready, and refuses what the one below is not ready for; made by [`ShedLayer`].
#[derive(Clone, Debug)]
pub struct Shed<S> {
    inner: S,
}

impl<S, Req> Service<Req> for Shed<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture { call: Gated::new(self.inner.clone(), request) }
    }
}

/// The response of a [`Shed`] service.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    call: Gated<S, Req>,
}

/// Asks once whether the service is ready.
struct Once;

impl<S, Req> Passage<S, Req> for Once
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    fn poll_enter(&mut self, service: &mut S, _: &Req, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(match service.poll_ready(cx) {
            Poll::Ready(ready) => ready.map_err(Into::into),
            Poll::Pending => Err(Error::new(Reason::NotReady).into()),
        })
    }

    fn left(&mut self, _: &mut Result<S::Response, BoxError>) {}
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(&mut Once, cx)
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("call", &self.call).finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use tower::{ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer, service_fn};

    use super::*;

    fn reason<T>(result: &Result<T, BoxError>) -> Option<Reason> {
        result.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_service_is_not_ready_for_is_refused_with_the_true_reason() {
        let service = ServiceBuilder::new()
            .layer(ShedLayer)
            .layer(ConcurrencyLimitLayer::new(1))
            .service(service_fn(|(): ()| std::future::pending::<Result<(), BoxError>>()));
        let running = tokio::spawn(service.clone().oneshot(()));
        tokio::task::yield_now().await;
        assert_eq!(reason(&service.oneshot(()).await), Some(Reason::NotReady));
        running.abort();

        let broken = tower::util::BoxCloneService::new(Broken);
        let service = ShedLayer.layer(broken);
        let error = service.oneshot(()).await.unwrap_err();
        assert_eq!(error.to_string(), "broken for good");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_handle_that_was_ready_strands_no_permit() {
        let service = ServiceBuilder::new()
            .layer(ShedLayer)
            .layer(ConcurrencyLimitLayer::new(1))
            .service(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
        let mut idle = service.clone();
        idle.ready().await.unwrap();
        drop(idle.call(()));
        assert!(service.oneshot(()).await.is_ok());
    }

    #[derive(Clone)]
    struct Broken;

    impl Service<()> for Broken {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("broken for good".into()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }
}
