//! One attempt of a client's request, behind the limit and the breakers that there are.

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
    limit::{Entering, Limiter, Place, timed_out},
    outcome::Verdict,
    track::{Ends, Guard},
};

/// A call of the balancer. Where the client has a limit or a breaker, or the method has one, they have to let it pass.
#[pin_project]
pub(super) struct Guarded<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    attempt: Untimed<S, Req>,
    /// Given back after the attempt is dropped. In a box, or each request of each client would carry the room for it.
    gates: Option<Box<Gates<S, Req>>>,
}

/// What an attempt has to pass, in this order, and what it holds of it.
pub(super) struct Gates<S, Req>
where
    S: Service<Req>,
{
    lane: Arc<Lane<S, Req>>,
    limit: Limit,
    client: Breaks,
    method: Breaks,
}

enum Limit {
    Off,
    Ask(Arc<Limiter>, Entering),
    In(Place),
}

enum Breaks {
    Off,
    Ask(BreakerHandle),
    Passed(Pass),
}

impl Breaks {
    fn of(breaker: Option<BreakerHandle>) -> Self {
        breaker.map_or(Self::Off, Self::Ask)
    }

    fn ask(&mut self) -> Result<(), Error> {
        if let Self::Ask(breaker) = self {
            *self = Self::Passed(breaker.admit()?);
        }
        Ok(())
    }

    fn end<Res: 'static>(self, judge: &Judge<Res>, result: &mut Result<Res, BoxError>) {
        if let Self::Passed(pass) = self {
            judge.end(pass, result);
        }
    }
}

impl<S, Req> Gates<S, Req>
where
    S: Service<Req>,
{
    pub(super) fn new(
        lane: Arc<Lane<S, Req>>,
        limit: Option<Arc<Limiter>>,
        client: Option<BreakerHandle>,
        method: Option<BreakerHandle>,
    ) -> Self {
        let limit = limit.map_or(Limit::Off, |limiter| Limit::Ask(limiter, Entering::default()));
        Self { lane, limit, client: Breaks::of(client), method: Breaks::of(method) }
    }

    /// The wider breaker is asked first: what it turns away is nothing to the other. Both are asked when the turn has come,
    /// so that nobody waits in line with a probe.
    fn enter(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Limit::Ask(limiter, entering) = &mut self.limit {
            match ready!(entering.poll(limiter, cx)) {
                Ok(place) => self.limit = Limit::In(place),
                Err(refusal) => return Poll::Ready(Err(refusal.with_client(self.lane.0.label.clone()))),
            }
        }
        Poll::Ready(self.client.ask().and_then(|()| self.method.ask()))
    }

    fn end(self, result: &mut Result<S::Response, BoxError>)
    where
        S::Response: 'static,
    {
        let judge = &self.lane.0.judge;
        if let Limit::In(mut place) = self.limit {
            let verdict = judge.verdict(result.as_ref());
            place.show(verdict, timed_out(result));
            if let (Ok(response), Some(track)) = (&mut *result, &judge.track) {
                track.track(response, Guard::new(Arc::new(Streaming(place)), verdict));
            }
        }
        self.method.end(judge, result);
        self.client.end(judge, result);
    }
}

/// A place of a response whose body is being read.
struct Streaming(#[expect(dead_code, reason = "held until it is dropped")] Place);

impl Ends for Streaming {
    fn ended(self: Arc<Self>, _: Verdict, _: Option<Verdict>) {}
}

impl<S, Req> Guarded<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(attempt: Untimed<S, Req>, gates: Option<Box<Gates<S, Req>>>) -> Self {
        Self { attempt, gates }
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

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.gates {
            None => this.attempt.poll(cx),
            Some(_) => guarded(this.attempt, this.gates, cx),
        }
    }
}

/// Out of the way of those that have nothing to pass.
#[inline(never)]
fn guarded<S, Req>(
    attempt: Pin<&mut Untimed<S, Req>>,
    gates: &mut Option<Box<Gates<S, Req>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, BoxError>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    if let Some(closed) = gates
        && let Err(refusal) = ready!(closed.enter(cx))
    {
        // Whoever keeps the finished future would keep the place in the limit too.
        *gates = None;
        return Poll::Ready(Err(refusal.into()));
    }
    let mut result = ready!(attempt.poll(cx));
    if let Some(gates) = gates.take() {
        gates.end(&mut result);
    }
    Poll::Ready(result)
}
