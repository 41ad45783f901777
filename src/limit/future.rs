//! The response: a wait for the turn, then the call.

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
use crate::context::Timer;

/// The response of a [`ConcurrencyLimit`](super::ConcurrencyLimit).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req, J = AtHead> {
    #[pin]
    timer: Timer,
    #[pin]
    state: State<S, Req>,
    /// Given back after the response is dropped.
    held: Option<Held>,
    shared: Arc<Shared<J>>,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    /// What is called when the turn has come.
    Entering(Option<(S, Req)>, Entering),
    Calling(#[pin] S::Future),
    Done,
}

impl<S: Service<Req>, Req, J> ResponseFuture<S, Req, J> {
    #[inline]
    pub(super) fn new(readied: S, request: Req, shared: Arc<Shared<J>>) -> Self {
        let state = State::Entering(Some((readied, request)), Entering::default());
        Self { timer: Timer::default(), state, held: None, shared }
    }
}

impl<S, Req> State<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    #[inline]
    fn poll<J: Judges<S::Response>>(
        mut self: Pin<&mut Self>,
        held: &mut Option<Held>,
        shared: &Shared<J>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        loop {
            let next = match self.as_mut().project() {
                Projected::Entering(call, entering) => {
                    match ready!(entering.poll(&shared.limiter, cx)) {
                        Ok(place) => *held = Some(Held(place)),
                        Err(refusal) => {
                            self.set(Self::Done);
                            return Poll::Ready(Err(shared.named(refusal).into()));
                        }
                    }
                    match call.take() {
                        Some((mut readied, request)) => Self::Calling(readied.call(request)),
                        None => Self::Done,
                    }
                }
                Projected::Calling(response) => {
                    let mut result = ready!(response.poll(cx)).map_err(Into::into);
                    self.set(Self::Done);
                    if let Some(held) = held.take() {
                        shared.judge.end(held, &mut result);
                    }
                    return Poll::Ready(result);
                }
                Projected::Done => panic!("polled after completion"),
            };
            self.set(next);
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
        this.timer.poll(cx, |cx| this.state.as_mut().poll(this.held, this.shared, cx))
    }
}

impl<S: Service<Req>, Req, J> fmt::Debug for ResponseFuture<S, Req, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Entering(_, entering) if entering.is_waiting() => "waiting",
            State::Entering(..) => "new",
            State::Calling(_) => "calling",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
