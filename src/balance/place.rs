//! Finding an endpoint that takes a request, at once or after a wait.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use arc_swap::Guard;
use tower::{BoxError, Service};

use super::{
    bell::Message,
    distribution::Sticky,
    fleet::Fleet,
    lane::Lane,
    lease::Lease,
    member::Member,
    pick::{Picked, Wanted},
    snapshot::{Resolved, Snapshot},
    wake::Place,
};
use crate::{
    context::{self, HideCall},
    error::{Cause, Error, Reason},
    health,
    sync::Ordering::Relaxed,
};

/// What an attempt holds besides the call.
pub(super) struct Held<S, Req> {
    /// Until an endpoint is given it.
    pub(super) request: Option<Req>,
    /// While an endpoint has it.
    pub(super) lease: Option<Lease>,
    /// While no endpoint can take it.
    pub(super) waiting: Option<Box<Waiting<S>>>,
}

/// What a request holds while it waits.
pub(super) struct Waiting<S> {
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

/// Not-ready services that a waiting request keeps polling: each may be the one that becomes ready. Of more than these it
/// hears only when the fleet changes.
const CANDIDATES: usize = 64;

impl<S> Drop for Waiting<S> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.fleet.waiters.leave(place);
            if self.fleet.limited.load(Relaxed) {
                // Only the first in line looks for a place: now that is the next. And of a place that this one tried, and
                // gave back untold, others may have thought that it was taken.
                self.fleet.waiters.wake_next();
            }
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

impl<S, Req> Lane<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// Finds an endpoint whose service is ready, and takes a place there.
    #[inline]
    pub(super) fn place(&self, held: &mut Held<S, Req>, cx: &mut Context<'_>) -> Poll<Result<S, Error>> {
        if held.request.is_none() || held.waiting.is_some() {
            return self.place_slowly(held, None, cx);
        }
        let late = context::deadline().is_some_and(|deadline| deadline <= context::now());
        let unusual = late || !self.roster.is_running() || self.roster.fleet.is_closed();
        if unusual && let Err(error) = self.begin() {
            return Poll::Ready(Err(error));
        }
        // Almost always the first pick is ready.
        let fleet = &*self.roster.fleet;
        let snapshot: Guard<Arc<Snapshot<S>>> = self.roster.snapshot.load();
        // The clock is not read where nothing goes by time.
        let now = snapshot.timed.then(|| fleet.now());
        let Some(entry) = snapshot.pick_of_few(now, fleet) else {
            drop(snapshot);
            return self.place_slowly(held, None, cx);
        };
        let (member, limit) = (entry.member.clone(), snapshot.attempt_limit);
        let lease = held.lease.insert(Lease::begin(member, entry.incarnation, now, limit, None));
        let mut service = S::clone(&entry.service);
        // Nothing may hold the snapshot while the service does what it likes.
        drop(snapshot);
        note_pick(lease, false);
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
                self.not_ready(lease, service, error, &mut out, &mut candidates, false);
            }
            let fleet = &self.roster.fleet;
            let is_behind = fleet.limited.load(Relaxed)
                && fleet.waiters.waiting() > 0
                && !self.is_particular(&held.request)
                && fleet.waiters.has_line();
            let tried = if is_behind {
                // Places are few, and others came first.
                Tried::Wait
            } else {
                self.try_each(&mut held.lease, &held.request, &mut out, &mut candidates, false, cx)
            };
            match tried {
                Tried::Ready(service) => return Poll::Ready(Ok(service)),
                Tried::Refused(error) => return Poll::Ready(Err(error)),
                Tried::Wait => match self.join(&held.request, candidates, cx) {
                    Ok(waiting) => held.waiting = Some(Box::new(waiting)),
                    Err(error) => return Poll::Ready(Err(error)),
                },
            }
        }
        let Some(waiting) = &mut held.waiting else { return Poll::Pending };
        let done = match self.wait(&mut held.lease, &held.request, waiting, cx) {
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

    /// What the request wants, where that decides where it goes.
    fn wanted<'a>(&'a self, request: &'a Option<Req>) -> Wanted<'a> {
        let snapshot = self.roster.snapshot.load();
        let Some(request) = request.as_ref().filter(|_| snapshot.asks()) else { return Wanted::default() };
        let per_operation = snapshot.options.health.per_operation;
        let (operation, kept) = per_operation
            .map(|options| {
                let name = self.describe.operation(request);
                let found = name.map(|name| self.roster.fleet.operations.find(name, options));
                found.filter(|(id, _)| *id != 0).unwrap_or((health::SHARED, None))
            })
            .unwrap_or_default();
        let (key, host) = (self.describe.hash_key(request), self.describe.endpoint(request));
        Wanted { key, host, operation, kept }
    }

    /// Whether only the endpoint will do that the request names. Then it waits beside the line: in it, it would keep those
    /// from the other endpoints who can be served there.
    fn is_particular(&self, request: &Option<Req>) -> bool {
        let requires = self.roster.snapshot.load().options.sticky == Sticky::Require;
        requires && request.as_ref().is_some_and(|request| self.describe.endpoint(request).is_some())
    }

    /// Picks until a service is ready, each endpoint at most once.
    fn try_each(
        &self,
        held: &mut Option<Lease>,
        request: &Option<Req>,
        out: &mut Vec<u64>,
        candidates: &mut Vec<Candidate<S>>,
        has_turn: bool,
        cx: &mut Context<'_>,
    ) -> Tried<S> {
        let (call, wanted) = (context::call().unwrap_or_default(), self.wanted(request));
        loop {
            let snapshot: Guard<Arc<Snapshot<S>>> = self.roster.snapshot.load();
            let (mut service, lease) = match snapshot.pick(&call, &wanted, out, &self.roster.fleet) {
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
                    let is_probe = lease.is_probe();
                    note_pick(held.insert(lease), is_probe);
                    return Tried::Ready(service);
                }
                Poll::Ready(Err(error)) => {
                    self.not_ready(lease, service, Some(error.into()), out, candidates, has_turn)
                }
                Poll::Pending => self.not_ready(lease, service, None, out, candidates, has_turn),
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
        has_turn: bool,
    ) {
        let (member, incarnation) = (lease.member().cloned(), lease.incarnation());
        if has_turn {
            lease.unused_untold();
        } else {
            lease.unused();
        }
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
    fn join(
        &self,
        request: &Option<Req>,
        candidates: Vec<Candidate<S>>,
        cx: &Context<'_>,
    ) -> Result<Waiting<S>, Error> {
        let fleet = &self.roster.fleet;
        let most = fleet.options.load().max_waiting as usize;
        match fleet.waiters.join_as(self.is_particular(request), most, cx) {
            Some(place) => {
                Ok(Waiting { place: Some(place), since: context::now(), fleet: fleet.clone(), candidates })
            }
            None => Err(self.roster.refusal(Reason::QueueFull)),
        }
    }

    /// Tries again, with the waker registered before the look, so that no change in between is missed.
    fn wait(
        &self,
        held: &mut Option<Lease>,
        request: &Option<Req>,
        waiting: &mut Waiting<S>,
        cx: &mut Context<'_>,
    ) -> Tried<S> {
        let (fleet, now) = (&*self.roster.fleet, context::now());
        if let Some(place) = &waiting.place {
            fleet.waiters.register(place, cx);
        }
        if let Err(error) = self.admits() {
            return Tried::Refused(
                self.explain(error.with_lasted(now.saturating_duration_since(waiting.since))),
            );
        }
        if !self.roster.is_running() {
            // Its runtime has ended while this request waited; without one here the wait goes on.
            let _ = self.roster.ensure_running();
        }
        if fleet.limited.load(Relaxed)
            && waiting.place.as_ref().is_some_and(|place| !fleet.waiters.has_turn(place))
        {
            return self.keep_waiting(waiting, now);
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
                        let operation = self.wanted(request).operation;
                        note_pick(held.insert(lease.of_operation(operation)), false);
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
        match self.try_each(held, request, &mut out, &mut waiting.candidates, true, cx) {
            Tried::Wait => self.keep_waiting(waiting, now),
            tried => tried,
        }
    }

    /// Waits on, as long as there is time.
    fn keep_waiting(&self, waiting: &Waiting<S>, now: Instant) -> Tried<S> {
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
}

/// Tells the layers above where the request goes.
#[inline]
fn note_pick(lease: &Lease, is_probe: bool) {
    context::change_call(|call| {
        if let Some(member) = lease.member() {
            call.tried(member.id);
        }
        call.verdict = None;
        call.probe = is_probe;
    });
}
