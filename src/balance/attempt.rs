//! One request on its way to one endpoint.

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

use super::{bell::Message, lane::Lane, lease::Lease, place::Held};
use crate::{
    context::{self, HideCall, Timer},
    error::{Cause, Error, Reason},
    outcome::{Again, Class, Sent, Verdict},
    sync::Ordering::Relaxed,
    track::{BodyLimits, Guard},
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
    Req: 'static,
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
    Req: 'static,
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
    Req: 'static,
{
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
        if self.roster.fleet.reports.load(Relaxed)
            && let (Ok(response), Some(member)) = (&result, lease.member())
        {
            // What is not known before its end may say it then.
            let later = self.track.is_some() && verdict.is_provisional();
            member.hear(self.classify.report(response), later);
        }
        match (result, &self.track) {
            (Ok(mut response), Some(track)) => {
                if let Some(guard) = lease.head(now, verdict, true) {
                    let limited = self.roster.fleet.bodies.load(Relaxed);
                    track.track(&mut response, if limited { self.limit_body(guard) } else { guard });
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

    /// Gives the body of a response its limits.
    #[cold]
    fn limit_body(&self, guard: Guard) -> Guard {
        let body = self.roster.fleet.options.load().body;
        let until = if body.within_deadline { context::deadline() } else { None };
        guard.within(BodyLimits { idle: body.idle, until })
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

    /// When the attempt has lasted as long as it may.
    #[inline]
    fn limit(&self, lease: &Lease) -> Option<Instant> {
        let most = lease.expires();
        if self.roster.fleet.fits.load(Relaxed) { self.fitted(lease, most) } else { most }
    }

    /// The same, where it goes by more than a number.
    #[cold]
    fn fitted(&self, lease: &Lease, most: Option<Instant>) -> Option<Instant> {
        let fleet = &self.roster.fleet;
        let fit = fleet.options.load().attempt_fit;
        let fitted = fit.expires(lease.began()?, |share| fleet.fitted(context::now(), share));
        most.into_iter().chain(fitted).min()
    }

    /// Whether the attempt has lasted too long, and asks to be polled when it will have.
    fn expired(&self, held: &mut Option<Lease>) -> Option<Error> {
        let limit = self.limit(held.as_ref()?);
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
            lease.timed_out(self.roster.fleet.stamp(now));
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
