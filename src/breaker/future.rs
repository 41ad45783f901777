//! The response: the question whether the call may be made, the call, and the word on how it went.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::service::{Held, Shared};

/// The response of a [`Breaker`](super::Breaker).
///
/// Dropping it at any time, and a panic inside, gives back the place of a probe.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    state: State<S, Req>,
    /// Given back after the call is dropped.
    held: Held<S::Response>,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    Start(Option<(S, Req)>),
    Calling(#[pin] S::Future),
    Done,
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    #[inline]
    pub(super) fn new(readied: S, request: Req, shared: Arc<Shared<S::Response>>) -> Self {
        Self { state: State::Start(Some((readied, request))), held: Held::new(shared) }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    S::Response: 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Start(call) => {
                    if let Err(refusal) = this.held.admit() {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(refusal.into()));
                    }
                    match call.take() {
                        Some((mut readied, request)) => State::Calling(readied.call(request)),
                        None => State::Done,
                    }
                }
                Projected::Calling(response) => {
                    let mut result = ready!(response.poll(cx)).map_err(Into::into);
                    this.state.set(State::Done);
                    this.held.end(&mut result);
                    return Poll::Ready(result);
                }
                Projected::Done => panic!("polled after completion"),
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start(_) => "new",
            State::Calling(_) => "calling",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
