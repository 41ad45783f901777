//! One request on its way to one endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
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
    context::{self, HideCall, Timer},
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
    attempt: Untimed<S, Req>,
    #[pin]
    timer: Timer,
}

impl<S, Req> Attempt<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(lane: Arc<Lane<S, Req>>, request: Req) -> Self {
        Self { attempt: Untimed::new(lane, request), timer: Timer::default() }
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
        let mut attempt = this.attempt;
        this.timer.poll(cx, |cx| attempt.as_mut().poll(cx))
    }
}

/// An attempt for a layer above that is polled in the same frame, and keeps its time.
#[pin_project]
pub(crate) struct Untimed<S, Req>
where
    S: Service<Req>,
{
    /// The call of the endpoint's service, once there is one. It is dropped before the lease, and tells it nothing.
    #[pin]
    future: Option<S::Future>,
    held: Held<S, Req>,
    lane: Arc<Lane<S, Req>>,
}

/// What an attempt holds besides the call.
struct Held<S, Req> {
    /// Until an endpoint is given it.
    request: Option<Req>,
    /// While an endpoint has it.
    lease: Option<Lease>,
    /// While no endpoint can take it.
    waiting: Option<Box<Waiting<S>>>,
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
enum Tried<S> {
    /// A service that is ready; the place there is in [`Held::lease`].
    Ready(S),
    Wait,
    Refused(Error),
}

impl<S, Req> Untimed<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(lane: Arc<Lane<S, Req>>, request: Req) -> Self {
        let held = Held { request: Some(request), lease: None, waiting: None };
        Self { future: None, held, lane }
    }
}

impl<S, Req> Future for Untimed<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut future, held, lane) = (this.future, this.held, &**this.lane);
        if future.is_none() {
            let mut service = match ready!(lane.place(held, cx)) {
                Ok(service) => service,
                Err(error) => {
                    held.request = None;
                    return Poll::Ready(Err(error.into()));
                }
            };
            // Polled after its end: a future may do anything then but harm.
            let Some(request) = held.request.take() else { return Poll::Pending };
            let _hidden = HideCall::new();
            future.set(Some(service.call(request)));
        }
        let polled = match future.as_mut().as_pin_mut() {
            Some(future) => {
                let _hidden = HideCall::new();
                future.poll(cx)
            }
            None => return Poll::Pending,
        };
        match polled {
            Poll::Ready(result) => {
                future.set(None);
                Poll::Ready(lane.answered(&mut held.lease, result.map_err(Into::into)))
            }
            Poll::Pending => match lane.expired(&mut held.lease) {
                Some(error) => {
                    // Cancels the request.
                    future.set(None);
                    Poll::Ready(Err(error.into()))
                }
                None => Poll::Pending,
            },
        }
    }
}

impl<S, Req> Lane<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
{
    /// Finds an endpoint whose service is ready, and takes a place there.
    #[inline]
    fn place(&self, held: &mut Held<S, Req>, cx: &mut Context<'_>) -> Poll<Result<S, Error>> {
        if held.request.is_none() || held.waiting.is_some() {
            return self.place_slowly(held, None, cx);
        }
        let late = context::deadline().is_some_and(|deadline| deadline <= context::now());
        let unusual = late || !self.roster.is_running() || self.roster.fleet.is_closed();
        if unusual && let Err(error) = self.begin() {
            return Poll::Ready(Err(error));
        }
        // Almost always the first pick of two is ready.
        let fleet = &*self.roster.fleet;
        let snapshot: Guard<Arc<Snapshot<S>>> = self.roster.snapshot.load();
        // The clock is not read where nothing goes by time.
        let now = snapshot.timed.then(|| fleet.now());
        let Some(entry) = snapshot.pick_of_two(now, fleet) else {
            drop(snapshot);
            return self.place_slowly(held, None, cx);
        };
        let (member, limit) = (entry.member.clone(), snapshot.attempt_limit);
        let lease = held.lease.insert(Lease::begin(member, entry.incarnation, now, limit, None));
        let mut service = S::clone(&entry.service);
        // Nothing may hold the snapshot while the service does what it likes.
        drop(snapshot);
        note_pick(lease);
        let ready = {
            let _hidden = HideCall::new();
            service.poll_ready(cx)
        };
        match ready {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(service)),
            Poll::Ready(Err(error)) => self.place_slowly(held, Some((service, Some(error.into()))), cx),
            Poll::Pending => self.place_slowly(held, Some((service, None)), cx),
        }
    }

    /// The rest of [`place`](Self::place): the first pick was not ready, or there was none, or the request waits.
    #[cold]
    #[inline(never)]
    fn place_slowly(
        &self,
        held: &mut Held<S, Req>,
        first: Option<(S, Option<BoxError>)>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S, Error>> {
        if held.request.is_none() {
            return Poll::Pending;
        }
        if held.waiting.is_none() {
            let (mut out, mut candidates) = (Vec::new(), Vec::new());
            if let (Some((service, error)), Some(lease)) = (first, held.lease.take()) {
                self.not_ready(lease, service, error, &mut out, &mut candidates);
            }
            match self.try_each(&mut held.lease, &mut out, &mut candidates, cx) {
                Tried::Ready(service) => return Poll::Ready(Ok(service)),
                Tried::Refused(error) => return Poll::Ready(Err(error)),
                Tried::Wait => match self.join(candidates, cx) {
                    Ok(waiting) => held.waiting = Some(Box::new(waiting)),
                    Err(error) => return Poll::Ready(Err(error)),
                },
            }
        }
        let Some(waiting) = &mut held.waiting else { return Poll::Pending };
        let done = match self.wait(&mut held.lease, waiting, cx) {
            Tried::Ready(service) => Ok(service),
            Tried::Refused(error) => Err(error),
            Tried::Wait => return Poll::Pending,
        };
        held.waiting = None;
        Poll::Ready(done)
    }

    /// Whether an attempt may begin. A call that was begun before the client was closed is tried to its end, as long as
    /// an endpoint can take it at once.
    #[cold]
    fn begin(&self) -> Result<(), Error> {
        if !(self.roster.fleet.is_closed() && context::is_again()) {
            self.roster.ensure_running()?;
            return self.admits();
        }
        self.is_in_time()
    }

    /// Whether a request may go on at all.
    fn admits(&self) -> Result<(), Error> {
        if self.roster.fleet.is_closed() {
            return Err(self.roster.refusal(Reason::Closed));
        }
        self.is_in_time()
    }

    #[inline]
    fn is_in_time(&self) -> Result<(), Error> {
        match context::deadline() {
            Some(deadline) if deadline <= context::now() => Err(self.roster.refusal(Reason::Deadline)),
            _ => Ok(()),
        }
    }

    /// Picks until a service is ready, each endpoint at most once.
    fn try_each(
        &self,
        held: &mut Option<Lease>,
        out: &mut Vec<u64>,
        candidates: &mut Vec<Candidate<S>>,
        cx: &mut Context<'_>,
    ) -> Tried<S> {
        let call = context::call().unwrap_or_default();
        loop {
            let snapshot: Guard<Arc<Snapshot<S>>> = self.roster.snapshot.load();
            let (mut service, lease) = match snapshot.pick(&call, out, &self.roster.fleet) {
                Picked::One(entry, lease) => (S::clone(&entry.service), lease),
                Picked::Wait => return Tried::Wait,
                Picked::Refuse(error) => return Tried::Refused(error),
            };
            drop(snapshot);
            let ready = {
                let _hidden = HideCall::new();
                service.poll_ready(cx)
            };
            match ready {
                Poll::Ready(Ok(())) => {
                    note_pick(held.insert(lease));
                    return Tried::Ready(service);
                }
                Poll::Ready(Err(error)) => {
                    self.not_ready(lease, service, Some(error.into()), out, candidates)
                }
                Poll::Pending => self.not_ready(lease, service, None, out, candidates),
            }
        }
    }

    /// A service that was picked is not ready, or never will be.
    fn not_ready(
        &self,
        lease: Lease,
        service: S,
        error: Option<BoxError>,
        out: &mut Vec<u64>,
        candidates: &mut Vec<Candidate<S>>,
    ) {
        let (member, incarnation) = (lease.member().cloned(), lease.incarnation());
        lease.unused();
        let Some(member) = member else { return };
        out.push(member.id);
        match error {
            Some(error) => {
                self.roster.fleet.bell.ring(Message::Broken(member, incarnation, Arc::from(error)))
            }
            None if candidates.len() < CANDIDATES => {
                candidates.push(Candidate { member, incarnation, service });
            }
            None => {}
        }
    }

    /// Takes a waiting place.
    fn join(&self, candidates: Vec<Candidate<S>>, cx: &Context<'_>) -> Result<Waiting<S>, Error> {
        let fleet = &self.roster.fleet;
        let most = fleet.options.load().max_waiting as usize;
        match fleet.waiters.join(most, cx) {
            Some(place) => {
                Ok(Waiting { place: Some(place), since: context::now(), fleet: fleet.clone(), candidates })
            }
            None => Err(self.roster.refusal(Reason::QueueFull)),
        }
    }

    /// Tries again, with the waker registered before the look, so that no change in between is missed.
    fn wait(&self, held: &mut Option<Lease>, waiting: &mut Waiting<S>, cx: &mut Context<'_>) -> Tried<S> {
        let (fleet, now) = (&*self.roster.fleet, context::now());
        if let Some(place) = &waiting.place {
            fleet.waiters.register(place, cx);
        }
        if let Err(error) = self.admits() {
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
                    let (limit, most) = {
                        let snapshot = self.roster.snapshot.load();
                        (snapshot.attempt_limit, snapshot.most)
                    };
                    let stamp = Some(fleet.stamp(now));
                    if let Some(lease) = Lease::begin_within(most, member, incarnation, stamp, limit) {
                        note_pick(held.insert(lease));
                        return Tried::Ready(service);
                    }
                }
                Poll::Ready(Err(error)) => {
                    let cause: Cause = Arc::from(error.into());
                    fleet.bell.ring(Message::Broken(member, incarnation, cause));
                }
                _ => {}
            }
        }
        let mut out: Vec<u64> = waiting.candidates.iter().map(|candidate| candidate.member.id).collect();
        match self.try_each(held, &mut out, &mut waiting.candidates, cx) {
            Tried::Wait => {}
            tried => return tried,
        }
        if let Some(deadline) = context::deadline() {
            context::wake_at(deadline);
        }
        let snapshot = self.roster.snapshot.load();
        if snapshot.resolved == Resolved::Pending {
            let until = waiting.since + snapshot.options.first_resolution;
            if until <= now {
                let error = self.roster.refusal(Reason::Unresolved);
                let lasted = now.saturating_duration_since(waiting.since);
                return Tried::Refused(self.explain(error.with_lasted(lasted)));
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
        lease: &mut Option<Lease>,
        result: Result<S::Response, BoxError>,
    ) -> Result<S::Response, BoxError> {
        let verdict = self.classify.classify(result.as_ref());
        context::change_call(|call| call.verdict = Some(verdict));
        let Some(lease) = lease else { return result };
        let now = lease.is_timed().then(|| {
            context::fresh_now();
            self.roster.fleet.now()
        });
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
                    self.lost(lease, &error);
                }
                lease.head(now, verdict, false);
                Err(error)
            }
        }
    }

    /// The connection of this endpoint is gone: the background task makes another.
    #[cold]
    fn lost(&self, lease: &Lease, error: &BoxError) {
        if let Some(member) = lease.member() {
            // The error itself goes to the caller; the status gets its words.
            let cause: Cause = Arc::from(BoxError::from(error.to_string()));
            self.roster.fleet.bell.ring(Message::Broken(member.clone(), lease.incarnation(), cause));
        }
    }

    /// Whether the attempt has lasted too long, and asks to be polled when it will have.
    fn expired(&self, held: &mut Option<Lease>) -> Option<Error> {
        let limit = held.as_ref()?.expires();
        let expires = match (limit, context::deadline()) {
            (Some(limit), Some(deadline)) => limit.min(deadline),
            (limit, deadline) => limit.or(deadline)?,
        };
        let now = context::now();
        if now < expires {
            context::wake_at(expires);
            return None;
        }
        let mut lease = held.take()?;
        let name = lease.member().map(|member| member.name.clone());
        let lasted = lease.lasted(now);
        let own = limit.is_some_and(|limit| limit <= now);
        let (reason, verdict) = if own {
            (Reason::AttemptTimeout, Verdict::failure())
        } else {
            (Reason::Deadline, Verdict::inconclusive().again(Again::Never))
        };
        context::change_call(|call| call.verdict = Some(verdict));
        if own {
            lease.head(Some(self.roster.fleet.stamp(now)), verdict, false);
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

/// Tells the layers above where the request goes.
#[inline]
fn note_pick(lease: &Lease) {
    context::change_call(|call| {
        if let Some(member) = lease.member() {
            call.tried(member.id);
        }
        call.verdict = None;
        call.probe = lease.is_probe();
    });
}

impl<S, Req> fmt::Debug for Attempt<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.attempt.future, &self.attempt.held) {
            (Some(_), _) => "calling",
            (None, Held { waiting: Some(_), .. }) => "waiting",
            (None, Held { request: Some(_), .. }) => "start",
            (None, _) => "done",
        };
        f.debug_struct("Attempt").field("state", &state).finish_non_exhaustive()
    }
}
