//! One attempt of a client's request, behind the breakers that there are.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::service::Lane;
use crate::{
    balance::Untimed,
    breaker::{BreakerHandle, Judge, Pass},
    error::Error,
};

/// A call of the balancer, which the client's breaker and that of the method have to let pass.
#[pin_project]
pub(super) struct Guarded<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    attempt: Untimed<S, Req>,
    /// Given back after the attempt is dropped; the method's first.
    method: Guard,
    client: Guard,
    /// Kept only where somebody has to be told how it ends.
    lane: Option<Arc<Lane<S, Req>>>,
}

/// What one breaker has to do with one attempt.
enum Guard {
    /// There is none.
    Off,
    /// It was not asked yet.
    Ask(BreakerHandle),
    /// It has let the attempt pass.
    Passed(Pass),
}

impl Guard {
    fn of(breaker: Option<BreakerHandle>) -> Self {
        breaker.map_or(Self::Off, Self::Ask)
    }

    fn ask(&mut self) -> Result<(), Error> {
        if let Self::Ask(breaker) = self {
            *self = Self::Passed(breaker.admit()?);
        }
        Ok(())
    }

    fn end<Res: 'static>(&mut self, judge: &Judge<Res>, result: &mut Result<Res, BoxError>) {
        if let Self::Passed(pass) = std::mem::replace(self, Self::Off) {
            judge.end(pass, result);
        }
    }
}

impl<S, Req> Guarded<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn free(attempt: Untimed<S, Req>) -> Self {
        Self { attempt, method: Guard::Off, client: Guard::Off, lane: None }
    }

    #[cold]
    pub(super) fn behind(
        attempt: Untimed<S, Req>,
        lane: Arc<Lane<S, Req>>,
        client: Option<BreakerHandle>,
        method: Option<BreakerHandle>,
    ) -> Self {
        Self { attempt, method: Guard::of(method), client: Guard::of(client), lane: Some(lane) }
    }
}

impl<S, Req> Future for Guarded<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(lane) = this.lane else { return this.attempt.poll(cx) };
        // The wider one first: what it turns away is nothing to the other.
        if let Err(refusal) = this.client.ask().and_then(|()| this.method.ask()) {
            (*this.client, *this.method) = (Guard::Off, Guard::Off);
            return Poll::Ready(Err(refusal.into()));
        }
        let mut result = ready!(this.attempt.poll(cx));
        this.method.end(&lane.0.judge, &mut result);
        this.client.end(&lane.0.judge, &mut result);
        Poll::Ready(result)
    }
}
