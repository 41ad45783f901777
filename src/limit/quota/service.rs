//! The service, and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{Granted, QuotaLayer, Taking, layer::Shared};
use crate::{
    Error, Reason,
    context::{self, Timer},
    gated::{Gated, Passage},
    invalid::FOREVER,
    limit::rate::{One, Weigh},
};

/// A service whose requests keep to a quota; made by [`QuotaLayer`].
pub struct QuotaLimited<S, W = One> {
    inner: S,
    layer: QuotaLayer<W>,
}

impl<S, W> QuotaLimited<S, W> {
    pub(super) fn new(inner: S, layer: QuotaLayer<W>) -> Self {
        Self { inner, layer }
    }
}

impl<S, W, Req> Service<Req> for QuotaLimited<S, W>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    W: Weigh<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let turn = Turn::New(self.layer.weigh.weigh(&request));
        let door = Door { turn, shared: self.layer.shared.clone() };
        ResponseFuture { timer: Timer::default(), call: Gated::of(&mut self.inner, request), door }
    }
}

impl<S: Clone, W> Clone for QuotaLimited<S, W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug, W> fmt::Debug for QuotaLimited<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaLimited").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// The response of a [`QuotaLimited`] service.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    timer: Timer,
    #[pin]
    call: Gated<S, Req>,
    door: Door,
}

struct Door {
    turn: Turn,
    shared: Arc<Shared>,
}

impl<S: Service<Req>, Req> Passage<S, Req> for Door {
    fn poll_enter(&mut self, _: &mut S, _: &Req, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let entered = ready!(self.turn.poll(&self.shared, cx));
        // Whoever keeps a future that was refused keeps no question.
        self.turn = Turn::New(0);
        Poll::Ready(entered.map_err(Into::into))
    }

    fn left(&mut self, _: &mut Result<S::Response, BoxError>) {}
}

/// How far a request is on its way to its turn.
enum Turn {
    /// It weighs so much.
    New(u32),
    Asking(Asking),
    Waiting(Instant),
}

/// A question that is on its way.
struct Asking {
    taking: Taking<'static>,
    since: Instant,
    until: Instant,
    weight: u32,
    patience: Duration,
    shared: Arc<Shared>,
    over: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.over {
            self.shared.given_up(context::now().saturating_duration_since(self.since));
        }
    }
}

impl Turn {
    fn poll(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let now = context::now();
            let granted = match self {
                Self::New(weight) => {
                    let (weight, deadline) = (*weight, context::deadline());
                    if deadline.is_some_and(|deadline| deadline <= now) {
                        return Poll::Ready(Err(shared.refusal(Reason::Deadline)));
                    }
                    let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
                    let patience = shared.patience(left);
                    match shared.ask(weight, now, left) {
                        Some((taking, until)) => {
                            let (shared, over) = (shared.clone(), false);
                            let since = now;
                            let asking = Asking { taking, since, until, weight, patience, shared, over };
                            *self = Self::Asking(asking);
                            continue;
                        }
                        None => shared.instead(weight, now, patience, None)?,
                    }
                }
                Self::Asking(asking) => {
                    let answer = asking.taking.as_mut().poll(cx);
                    if answer.is_pending() && now < asking.until {
                        context::wake_at(asking.until);
                        return Poll::Pending;
                    }
                    asking.over = true;
                    let cause = match answer {
                        Poll::Ready(Ok(granted)) => {
                            shared.is_back(now.saturating_duration_since(asking.since));
                            Ok(granted)
                        }
                        Poll::Ready(Err(cause)) => Err(Some(cause)),
                        Poll::Pending => Err(None),
                    };
                    match cause {
                        Ok(granted) => granted,
                        Err(cause) => {
                            shared.is_away(now);
                            shared.instead(asking.weight, now, asking.patience, cause)?
                        }
                    }
                }
                Self::Waiting(until) if now >= *until => return Poll::Ready(Ok(())),
                Self::Waiting(until) => {
                    context::wake_at(*until);
                    return Poll::Pending;
                }
            };
            match granted {
                // Whatever a quota says, time can be added to.
                Granted::After(wait) => *self = Self::Waiting(now + wait.min(FOREVER)),
                Granted::NotYet(wait) => {
                    let error = shared.refusal(Reason::RateLimit);
                    return Poll::Ready(Err(match wait {
                        Some(wait) => error.with_retry_after(wait),
                        None => error,
                    }));
                }
            }
        }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.timer.poll(cx, |cx| this.call.as_mut().poll(this.door, cx))
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turn = match self.door.turn {
            Turn::New(_) => "new",
            Turn::Asking(_) => "asking",
            Turn::Waiting(_) => "waiting",
        };
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("turn", &turn)
            .finish_non_exhaustive()
    }
}
