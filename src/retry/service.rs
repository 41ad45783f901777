//! The service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{
    oneshot::Oneshot,
    policy::RetryPolicy,
    session::{Env, Parts, Session, Underway, Wishes},
};
use crate::{
    context::{self, EnterCall, Timer},
    estimate::{Counts, Recent},
    sync::{Padded, stripe},
};

/// What all clones of a [`Retry`] share.
pub(super) struct Shared<Req, Res> {
    pub(super) policy: RetryPolicy,
    /// Latencies of calls of the inner service, striped by thread.
    pub(super) latencies: Box<[Padded<Recent>]>,
    pub(super) parts: Parts<Req, Res>,
}

/// Sends requests again that failed; see [`RetryLayer`](super::RetryLayer).
///
/// It is ready when the inner service is. Further attempts ready a clone of it inside the response future.
pub struct Retry<S, Req, Res> {
    inner: S,
    shared: Arc<Shared<Req, Res>>,
}

impl<S, Req, Res> Retry<S, Req, Res> {
    pub(super) fn new(inner: S, shared: Arc<Shared<Req, Res>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, Req> Service<Req> for Retry<S, Req, S::Response>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The one that was readied is called; a clone takes its place.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let max_attempts = self.shared.policy.max_attempts;
        let wishes = Wishes { max_attempts, steps_aside: true, idempotent: None };
        let own = Own { inner: ready, readied: true, began: None, shared: self.shared.clone() };
        ResponseFuture { session: Session::new(own, request, wishes), timer: Timer::default(), over: false }
    }
}

impl<S: Clone, Req, Res> Clone for Retry<S, Req, Res> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, Req, Res> fmt::Debug for Retry<S, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// A session of the layer.
struct Own<S, Req, Res> {
    inner: S,
    /// Whether `inner` is ready, for the first call only.
    readied: bool,
    began: Option<Instant>,
    shared: Arc<Shared<Req, Res>>,
}

impl<S, Req> Env<Req> for Own<S, Req, S::Response>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Future = Oneshot<S, Req>;
    type Beside = ();

    fn first(&mut self, request: Req) -> Self::Future {
        self.began = Some(context::now());
        let clone = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, clone);
        if std::mem::take(&mut self.readied) {
            Oneshot::ready(service, request)
        } else {
            Oneshot::new(service, request)
        }
    }

    fn again(&mut self, request: Req) -> Self::Future {
        self.began = Some(context::now());
        Oneshot::new(self.inner.clone(), request)
    }

    fn poll_beside(
        &mut self,
        first: Pin<&mut Option<Self::Future>>,
        request: Underway<'_, Req, ()>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        let _call = EnterCall::new(request.call);
        first.as_pin_mut().map_or(Poll::Pending, |first| first.poll(cx))
    }

    fn parts(&self) -> &Parts<Req, S::Response> {
        &self.shared.parts
    }

    fn policy(&self) -> RetryPolicy {
        self.shared.policy.clone()
    }

    fn succeeded(&self, now: Instant) {
        if let Some(began) = self.began {
            let stripes = &self.shared.latencies;
            stripes[stripe() & (stripes.len() - 1)].0.record(now, now.saturating_duration_since(began));
        }
    }

    fn fastest(&self, now: Instant) -> Option<Duration> {
        let mut counts = Counts::default();
        for stripe in &self.shared.latencies {
            counts.add(&stripe.0.counts(now));
        }
        counts.quantile(0.1)
    }
}

type OwnSession<S, Req> = Session<Own<S, Req, <S as Service<Req>>::Response>, Oneshot<S, Req>, (), Req>;

/// The future of [`Retry`].
#[pin_project]
pub struct ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    session: OwnSession<S, Req>,
    #[pin]
    timer: Timer,
    /// Polled after its end it may do anything then but send again.
    over: bool,
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.over {
            return Poll::Pending;
        }
        let mut session = this.session;
        let polled = this.timer.poll(cx, |cx| session.as_mut().poll(cx));
        *this.over = polled.is_ready();
        polled
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempts", &self.session.attempts()).finish_non_exhaustive()
    }
}
