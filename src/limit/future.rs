//! The response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{AtHead, Judges, judge::Held, layer::Shared, limiter::Entering};
use crate::{
    context::Timer,
    gated::{Gated, Passage},
};

/// The response of a [`ConcurrencyLimit`](super::ConcurrencyLimit).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, J = AtHead> {
    #[pin]
    timer: Timer,
    #[pin]
    call: Gated<S, Req>,
    turn: Turn<J>,
}

/// The way in, and the place from then on.
struct Turn<J> {
    entering: Entering,
    held: Option<Held>,
    shared: Arc<Shared<J>>,
}

impl<S: Service<Req>, Req, J> ResponseFuture<S, Req, J> {
    #[inline]
    pub(super) fn new(call: Gated<S, Req>, shared: Arc<Shared<J>>) -> Self {
        let turn = Turn { entering: Entering::default(), held: None, shared };
        Self { timer: Timer::default(), call, turn }
    }
}

impl<S: Service<Req>, Req, J: Judges<S::Response>> Passage<S, Req> for Turn<J> {
    #[inline]
    fn poll_enter(&mut self, _: &mut S, _: &Req, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match ready!(self.entering.poll(&self.shared.limiter, cx)) {
            Ok(place) => {
                self.held = Some(Held(place));
                Poll::Ready(Ok(()))
            }
            Err(refusal) => {
                // Whoever keeps a future that was refused keeps no place in line.
                self.entering = Entering::default();
                Poll::Ready(Err(self.shared.named(refusal).into()))
            }
        }
    }

    #[inline]
    fn left(&mut self, result: &mut Result<S::Response, BoxError>) {
        if let Some(held) = self.held.take() {
            self.shared.judge.end(held, result);
        }
    }
}

impl<S, Req, J> Future for ResponseFuture<S, Req, J>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    J: Judges<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.timer.poll(cx, |cx| this.call.as_mut().poll(this.turn, cx))
    }
}

impl<S: Service<Req>, Req, J> fmt::Debug for ResponseFuture<S, Req, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("waiting", &self.turn.entering.is_waiting())
            .finish_non_exhaustive()
    }
}
