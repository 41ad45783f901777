//! The service, and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{Limits, One, RateLimitLayer, Weigh, Whole, layer::Shared, meters::Taken};
use crate::{
    Error,
    context::{self, Timer},
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
        // The clone has not been readied: it stays, and the readied one goes.
        let clone = self.inner.clone();
        let readied = std::mem::replace(&mut self.inner, clone);
        let state = State::Start(Some((readied, request)), None);
        ResponseFuture { timer: Timer::default(), state, shared: self.layer.shared.clone() }
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
    state: State<S, Req>,
    shared: Arc<Shared<L, W>>,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    Start(Option<(S, Req)>, Option<Taken>),
    Calling(#[pin] S::Future),
    Done,
}

impl<L, W> Shared<L, W> {
    /// Ready when the request may go, or why it may not.
    #[inline]
    fn poll_turn<Req>(&self, request: &Req, taken: &mut Option<Taken>) -> Poll<Result<(), Error>>
    where
        L: Limits<Req>,
        W: Weigh<Req>,
    {
        let asks = |now| (self.limits.limit(request, now), self.weigh.weigh(request));
        let class = || context::inherited().criticality().unwrap_or_default();
        self.terms.poll_turn(asks, taken, class).map_err(|error| self.named(error))
    }
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
        let this = self.project();
        let (mut state, shared) = (this.state, this.shared);
        this.timer.poll(cx, |cx| {
            loop {
                let next = match state.as_mut().project() {
                    Projected::Start(call, taken) => {
                        let Some((_, request)) = &call else { return Poll::Pending };
                        if let Err(refusal) = ready!(shared.poll_turn(request, taken)) {
                            state.set(State::Done);
                            return Poll::Ready(Err(refusal.into()));
                        }
                        match call.take() {
                            Some((mut readied, request)) => State::Calling(readied.call(request)),
                            None => State::Done,
                        }
                    }
                    Projected::Calling(response) => {
                        let result = ready!(response.poll(cx));
                        state.set(State::Done);
                        return Poll::Ready(result.map_err(Into::into));
                    }
                    Projected::Done => panic!("polled after completion"),
                };
                state.set(next);
            }
        })
    }
}

impl<S: Service<Req>, Req, L, W> fmt::Debug for ResponseFuture<S, Req, L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start(_, Some(_)) => "waiting",
            State::Start(..) => "new",
            State::Calling(_) => "calling",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
