//! Readying a service and calling it, in one future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

/// One call of a service that is ready already, or first has to be.
#[pin_project]
pub(super) struct Oneshot<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    state: State<S, Req, S::Future>,
}

#[pin_project(project = StateProjection)]
enum State<S, Req, F> {
    NotReady(S, Option<Req>),
    Called(#[pin] F),
}

impl<S, Req> Oneshot<S, Req>
where
    S: Service<Req>,
{
    /// Calls `service`, which is ready.
    pub(super) fn ready(mut service: S, request: Req) -> Self {
        Self { state: State::Called(service.call(request)) }
    }

    /// Calls `service` when it is ready.
    pub(super) fn new(service: S, request: Req) -> Self {
        Self { state: State::NotReady(service, Some(request)) }
    }
}

impl<S, Req> Future for Oneshot<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let future = match state.as_mut().project() {
                StateProjection::Called(future) => return future.poll(cx).map_err(Into::into),
                StateProjection::NotReady(service, request) => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    match request.take() {
                        Some(request) => service.call(request),
                        None => return Poll::Pending,
                    }
                }
            };
            state.set(State::Called(future));
        }
    }
}
