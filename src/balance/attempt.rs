//! One request on its way to one endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use arc_swap::Guard;
use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{
    bell::Message,
    fleet::Fleet,
    lease::Lease,
    member::Member,
    pick::Picked,
    service::Lane,
    snapshot::{Resolved, Snapshot},
    wake::Place,
};
use crate::{
    context::{self, Call, EnterCall, HideCall, Timer},
    error::{Cause, Error, Reason},
    outcome::{Again, Class, Sent, Verdict},
};

/// The future of [`Balance`](super::Balance): picks when it is first polled, and ends with the head of the response.
///
/// Dropping it at any time gives back what it holds: a waiting place, a place in flight, the right to probe.
#[pin_project]
pub struct Attempt<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    state: State<S, Req, S::Future>,
    #[pin]
    timer: Timer,
    /// This call's own context, where no layer above has started one.
    call: Call,
    lane: Arc<Lane<S, Req>>,
}

#[pin_project(project = StateProjection)]
enum State<S, Req, F> {
    /// Nothing is picked yet.
    Start(Option<Req>),
    /// No endpoint can take the request now.
    Waiting(Option<Req>, Box<Waiting<S>>),
    /// The endpoint has it.
    Calling(#[pin] F, Option<Placed>),
    Done,
}

/// Where a request is, and until when it may be there.
struct Placed {
    lease: Lease,
    incarnation: u32,
    expires: Option<Instant>,
}

/// What a request holds while it waits.
struct Waiting<S> {
    place: Option<Place>,
    since: Instant,
    fleet: Arc<Fleet>,
    /// Endpoints that were picked and are not ready yet: their services wake this request when they are.
    candidates: Vec<Candidate<S>>,
}

struct Candidate<S> {
    member: Arc<Member>,
    incarnation: u32,
    service: S,
}

/// Not-ready services that a waiting request keeps polling: both choices.
const CANDIDATES: usize = 2;

impl<S> Drop for Waiting<S> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.fleet.waiters.leave(place);
        }
    }
}

/// What trying to place a request came to.
enum Tried<F> {
    Calling(F, Placed),
    Wait,
    Refused(Error),
}

impl<S, Req> Attempt<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(lane: Arc<Lane<S, Req>>, request: Req) -> Self {
        let call = Call { active: true, attempt: 1, ..Call::default() };
        Self { state: State::Start(Some(request)), timer: Timer::default(), call, lane }
    }
}

impl<S, Req> Future for Attempt<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut state, lane, call) = (this.state, &**this.lane, this.call);
        this.timer.poll(cx, |cx| {
            let _own = (!context::call().active).then(|| EnterCall::new(call));
            lane.poll(state.as_mut(), cx)
        })
    }
}

impl<S, Req> Lane<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
{
    fn poll(
        &self,
        mut state: Pin<&mut State<S, Req, S::Future>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        loop {
            match state.as_mut().project() {
                StateProjection::Calling(future, placed) => {
                    let polled = {
                        let _hidden = HideCall::new();
                        future.poll(cx)
                    };
                    return match polled {
                        Poll::Ready(result) => {
                            let placed = placed.take();
                            let result = self.answered(placed, result.map_err(Into::into));
                            state.set(State::Done);
                            Poll::Ready(result)
                        }
                        Poll::Pending => match self.expired(placed) {
                            Some(error) => {
                                // Cancels the request.
                                state.set(State::Done);
                                Poll::Ready(Err(error.into()))
                            }
                            None => Poll::Pending,
                        },
                    };
                }
                StateProjection::Start(request) => {
                    let now = context::now();
                    if let Err(error) = self.roster.ensure_running().and_then(|()| self.admits(now)) {
                        state.set(State::Done);
                        return Poll::Ready(Err(error.into()));
                    }
                    let mut candidates = Vec::new();
                    match self.place(request, now, &mut Vec::new(), &mut candidates, cx) {
                        Tried::Calling(future, placed) => state.set(State::Calling(future, Some(placed))),
                        Tried::Refused(error) => {
                            state.set(State::Done);
                            return Poll::Ready(Err(error.into()));
                        }
                        Tried::Wait => match self.join(now, candidates, cx) {
                            Ok(waiting) => {
                                let request = request.take();
                                state.set(State::Waiting(request, Box::new(waiting)));
                            }
                            Err(error) => {
                                state.set(State::Done);
                                return Poll::Ready(Err(error.into()));
                            }
                        },
                    }
                }
                StateProjection::Waiting(request, waiting) => match self.wait(request, waiting, cx) {
                    Tried::Calling(future, placed) => state.set(State::Calling(future, Some(placed))),
                    Tried::Refused(error) => {
                        state.set(State::Done);
                        return Poll::Ready(Err(error.into()));
                    }
                    Tried::Wait => return Poll::Pending,
                },
                // Polled after its end: a future may do anything then but harm.
                StateProjection::Done => return Poll::Pending,
            }
        }
    }

    /// Whether a request may start at all.
    fn admits(&self, now: Instant) -> Result<(), Error> {
        if self.roster.fleet.is_closed() {
            return Err(self.roster.refusal(Reason::Closed));
        }
        match context::inherited().deadline() {
            Some(deadline) if deadline <= now => Err(self.roster.refusal(Reason::Deadline)),
            _ => Ok(()),
        }
    }

    /// Picks until an endpoint takes the request.
    #[inline]
    fn place(
        &self,
        request: &mut Option<Req>,
        now: Instant,
        out: &mut Vec<u64>,
        candidates: &mut Vec<Candidate<S>>,
        cx: &mut Context<'_>,
    ) -> Tried<S::Future> {
        let fleet = &*self.roster.fleet;
        loop {
            let snapshot: Guard<Arc<Snapshot<S>>> = self.roster.snapshot.load();
            let call = context::call();
            let (mut service, incarnation, lease) = match snapshot.pick(now, &call, out, fleet) {
                Picked::One(entry, lease) => (S::clone(&entry.service), entry.incarnation, lease),
                Picked::Wait => return Tried::Wait,
                Picked::Refuse(error) => return Tried::Refused(error),
            };
            // Nothing may hold the snapshot while the service does what it likes.
            drop(snapshot);
            let ready = {
                let _hidden = HideCall::new();
                service.poll_ready(cx)
            };
            if let Poll::Ready(Ok(())) = ready {
                return self.start(request, service, incarnation, lease);
            }
            let Some(member) = lease.member().cloned() else { continue };
            out.push(member.id);
            lease.unused();
            match ready {
                Poll::Ready(Err(error)) => {
                    let cause: Cause = Arc::from(error.into());
                    fleet.bell.ring(Message::Broken(member, incarnation, cause));
                }
                _ if candidates.len() < CANDIDATES => {
                    candidates.push(Candidate { member, incarnation, service });
                }
                _ => {}
            }
        }
    }

    /// Gives the request to a service that is ready.
    #[inline]
    fn start(
        &self,
        request: &mut Option<Req>,
        mut service: S,
        incarnation: u32,
        lease: Lease,
    ) -> Tried<S::Future> {
        let Some(request) = request.take() else { return Tried::Wait };
        context::change_call(|call| {
            if let Some(member) = lease.member() {
                call.tried(member.id);
            }
            call.verdict = None;
            call.probe = lease.is_probe();
        });
        let deadline = context::inherited().deadline();
        let expires = match (lease.expires(), deadline) {
            (Some(limit), Some(deadline)) => Some(limit.min(deadline)),
            (limit, deadline) => limit.or(deadline),
        };
        let _hidden = HideCall::new();
        Tried::Calling(service.call(request), Placed { lease, incarnation, expires })
    }

    /// Takes a waiting place.
    #[cold]
    fn join(
        &self,
        now: Instant,
        candidates: Vec<Candidate<S>>,
        cx: &Context<'_>,
    ) -> Result<Waiting<S>, Error> {
        let fleet = &self.roster.fleet;
        let most = fleet.options.load().max_waiting as usize;
        match fleet.waiters.join(most, cx) {
            Some(place) => Ok(Waiting { place: Some(place), since: now, fleet: fleet.clone(), candidates }),
            None => Err(self.roster.refusal(Reason::QueueFull)),
        }
    }

    /// Tries again, with the waker registered before the look, so that no change in between is missed.
    #[cold]
    fn wait(
        &self,
        request: &mut Option<Req>,
        waiting: &mut Waiting<S>,
        cx: &mut Context<'_>,
    ) -> Tried<S::Future> {
        let (fleet, now) = (&*self.roster.fleet, context::now());
        if let Some(place) = &waiting.place {
            fleet.waiters.register(place, cx);
        }
        if let Err(error) = self.admits(now) {
            return Tried::Refused(
                self.explain(error.with_lasted(now.saturating_duration_since(waiting.since))),
            );
        }
        if !waiting.candidates.is_empty() {
            // Those whose endpoint, or connection, is gone by now are given nothing.
            let snapshot = self.roster.snapshot.load();
            waiting.candidates.retain(|candidate| snapshot.has(candidate.member.id, candidate.incarnation));
        }
        let mut index = 0;
        while let Some(candidate) = waiting.candidates.get_mut(index) {
            let ready = {
                let _hidden = HideCall::new();
                candidate.service.poll_ready(cx)
            };
            if ready.is_pending() && candidate.member.health.is_usable_in_panic() {
                index += 1;
                continue;
            }
            let Candidate { member, incarnation, service } = waiting.candidates.swap_remove(index);
            match ready {
                Poll::Ready(Ok(())) if member.health.is_available() => {
                    let limit = self.roster.snapshot.load().attempt_limit;
                    let lease = Lease::begin(member, now, limit, None);
                    return self.start(request, service, incarnation, lease);
                }
                Poll::Ready(Err(error)) => {
                    let cause: Cause = Arc::from(error.into());
                    fleet.bell.ring(Message::Broken(member, incarnation, cause));
                }
                _ => {}
            }
        }
        let mut out: Vec<u64> = waiting.candidates.iter().map(|candidate| candidate.member.id).collect();
        match self.place(request, now, &mut out, &mut waiting.candidates, cx) {
            Tried::Wait => {}
            tried => return tried,
        }
        if let Some(deadline) = context::inherited().deadline() {
            context::wake_at(deadline);
        }
        let snapshot = self.roster.snapshot.load();
        if snapshot.resolved == Resolved::Pending {
            let until = waiting.since + snapshot.options.first_resolution;
            if until <= now {
                let error = self.roster.refusal(Reason::Unresolved);
                return Tried::Refused(self.explain(error.with_lasted(now - waiting.since)));
            }
            context::wake_at(until);
        }
        Tried::Wait
    }

    /// The same error with why nothing was available.
    fn explain(&self, error: Error) -> Error {
        let snapshot = self.roster.snapshot.load();
        let cause = snapshot
            .unconnected
            .iter()
            .find_map(|unconnected| unconnected.cause.clone())
            .or_else(|| snapshot.failure.clone());
        match cause {
            Some(cause) => error.with_cause(cause),
            None => error,
        }
    }

    /// The head has arrived, or an error.
    #[inline]
    fn answered(
        &self,
        placed: Option<Placed>,
        result: Result<S::Response, BoxError>,
    ) -> Result<S::Response, BoxError> {
        let now = context::fresh_now();
        let verdict = self.classify.classify(result.as_ref());
        context::change_call(|call| call.verdict = Some(verdict));
        let Some(Placed { lease, incarnation, .. }) = placed else { return result };
        match (result, &self.track) {
            (Ok(mut response), Some(track)) => {
                if let Some(guard) = lease.head(now, verdict, true) {
                    track.track(&mut response, guard);
                }
                Ok(response)
            }
            (Ok(response), None) => {
                lease.head(now, verdict, false);
                Ok(response)
            }
            (Err(error), _) => {
                if verdict.was_sent() == Sent::No && verdict.class() == Class::Failure && self.roster.dials {
                    self.lost(&lease, incarnation, &error);
                }
                lease.head(now, verdict, false);
                Err(error)
            }
        }
    }

    /// The connection of this endpoint is gone: the background task makes another.
    #[cold]
    fn lost(&self, lease: &Lease, incarnation: u32, error: &BoxError) {
        if let Some(member) = lease.member() {
            // The error itself goes to the caller; the status gets its words.
            let cause: Cause = Arc::from(BoxError::from(error.to_string()));
            self.roster.fleet.bell.ring(Message::Broken(member.clone(), incarnation, cause));
        }
    }

    /// Whether the attempt has lasted too long, and asks to be polled when it will have.
    fn expired(&self, placed: &mut Option<Placed>) -> Option<Error> {
        let expires = placed.as_ref()?.expires?;
        let now = context::now();
        if now < expires {
            context::wake_at(expires);
            return None;
        }
        let Placed { lease, .. } = placed.take()?;
        let name = lease.member().map(|member| member.name.clone());
        let lasted = lease.lasted(now);
        let own = lease.expires().is_some_and(|limit| limit <= now);
        let (reason, verdict) = if own {
            (Reason::AttemptTimeout, Verdict::failure())
        } else {
            (Reason::Deadline, Verdict::inconclusive().again(Again::Never))
        };
        context::change_call(|call| call.verdict = Some(verdict));
        if own {
            lease.head(now, verdict, false);
        } else {
            lease.cut_off(now);
        }
        let error = self.roster.refusal(reason).with_sent(Sent::Maybe).with_lasted(lasted);
        Some(match name {
            Some(name) => error.with_endpoint(name),
            None => error,
        })
    }
}

impl<S, Req> fmt::Debug for Attempt<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start(_) => "start",
            State::Waiting(..) => "waiting",
            State::Calling(..) => "calling",
            State::Done => "done",
        };
        f.debug_struct("Attempt").field("state", &state).finish_non_exhaustive()
    }
}
