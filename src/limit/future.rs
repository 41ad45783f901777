//! The response: a wait for the turn, then the call.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{
    gate::{Entry, Permit, Ticket},
    layer::Shared,
};
use crate::{
    Error, Reason,
    context::{self, Timer},
};

/// The response of a [`ConcurrencyLimit`](super::ConcurrencyLimit).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    timer: Timer,
    #[pin]
    state: State<S, Req>,
}

#[pin_project(project = Projected)]
enum State<S: Service<Req>, Req> {
    Entering {
        /// What is called when the turn has come.
        call: Option<(S, Req)>,
        wait: Option<Wait>,
        shared: Arc<Shared>,
    },
    Calling {
        #[pin]
        response: S::Future,
        /// Given back after the response is dropped.
        permit: Permit,
    },
    Done,
}

/// A place in line, and when it is given up.
struct Wait {
    ticket: Ticket,
    since: Instant,
    until: Instant,
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    pub(super) fn new(readied: S, request: Req, shared: Arc<Shared>) -> Self {
        let state = State::Entering { call: Some((readied, request)), wait: None, shared };
        Self { timer: Timer::default(), state }
    }
}

/// The permit, or why there is none.
fn poll_enter(shared: &Shared, wait: &mut Option<Wait>, cx: &mut Context<'_>) -> Poll<Result<Permit, Error>> {
    let deadline = context::inherited().deadline();
    if let Some(waiting) = wait {
        // At its deadline a turn comes too late; at the end of the wait it is still welcome.
        let now = context::now();
        let late = deadline.is_some_and(|deadline| deadline <= now);
        let turn = if late { Poll::Pending } else { waiting.ticket.poll_turn(cx) };
        if turn.is_pending() && (late || now >= waiting.until) {
            let lasted = now.saturating_duration_since(waiting.since);
            return Poll::Ready(Err(shared.refusal(Reason::Limit).with_lasted(lasted)));
        }
        if turn.is_pending() {
            context::wake_at(waiting.until);
        }
        return turn.map(Ok);
    }
    if deadline.is_some_and(|deadline| deadline <= context::now()) {
        return Poll::Ready(Err(shared.refusal(Reason::Deadline)));
    }
    match shared.gate.acquire(cx) {
        Entry::Permit(permit) => Poll::Ready(Ok(permit)),
        Entry::Full => Poll::Ready(Err(shared.refusal(Reason::Limit))),
        Entry::Wait(ticket) => {
            let since = context::now();
            let longest = since + shared.max_wait();
            let until = deadline.map_or(longest, |deadline| deadline.min(longest));
            context::wake_at(until);
            *wait = Some(Wait { ticket, since, until });
            Poll::Pending
        }
    }
}

impl<S, Req> State<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, BoxError>> {
        loop {
            let next = match self.as_mut().project() {
                Projected::Entering { call, wait, shared } => {
                    let permit = match ready!(poll_enter(shared, wait, cx)) {
                        Ok(permit) => permit,
                        Err(refusal) => {
                            self.set(Self::Done);
                            return Poll::Ready(Err(refusal.into()));
                        }
                    };
                    match call.take() {
                        Some((mut readied, request)) => {
                            Self::Calling { response: readied.call(request), permit }
                        }
                        None => Self::Done,
                    }
                }
                Projected::Calling { response, .. } => {
                    let response = ready!(response.poll(cx));
                    self.set(Self::Done);
                    return Poll::Ready(response.map_err(Into::into));
                }
                Projected::Done => panic!("polled after completion"),
            };
            self.set(next);
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
        this.timer.poll(cx, |cx| this.state.as_mut().poll(cx))
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Entering { wait: None, .. } => "new",
            State::Entering { .. } => "waiting",
            State::Calling { .. } => "calling",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
