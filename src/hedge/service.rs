//! The service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::{pin_project, pinned_drop};
use tower::{BoxError, Service, util::Oneshot};

use super::{
    options::HedgeOptions,
    pace::{Due, Pace, Seen},
    race::{Arm, Course, Paid, Race, Trigger},
};
use crate::{
    budget::Entered,
    context::{self, Call, EnterCall, Timer},
    estimate::{Counts, Recent, Survival},
    invalid::Invalid,
    outcome::Verdict,
    retry::{Parts, stamp, unjudged},
    sync::{Padded, stripe},
    telemetry::Counter,
};

/// What all clones of a [`Hedge`] share.
pub(super) struct Shared<Req, Res> {
    pub(super) pace: Pace,
    pub(super) epoch: Instant,
    /// Latencies of first attempts that have ended well, and what is known of the others; striped by thread.
    pub(super) ended: Box<[Padded<Recent>]>,
    pub(super) cut: Box<[Padded<Recent>]>,
    pub(super) parts: Parts<Req, Res>,
}

impl<Req, Res> Shared<Req, Res> {
    fn record(of: &[Padded<Recent>], now: Instant, took: Duration) {
        of[stripe() & (of.len() - 1)].0.record(now, took);
    }

    fn counts(of: &[Padded<Recent>], now: Instant) -> Counts {
        let mut counts = Counts::default();
        of.iter().for_each(|stripe| counts.add(&stripe.0.counts(now)));
        counts
    }

    fn due(&self, now: Instant) -> Due {
        let look = |decide: &dyn Fn(Seen<'_>) -> Due| {
            let (ended, cut) = (Self::counts(&self.ended, now), Self::counts(&self.cut, now));
            let over = Recent::covered(now.saturating_duration_since(self.epoch));
            decide(Seen { latencies: Survival::new(&ended, &cut), over, capacity: None })
        };
        self.pace.due(now, look, |_| {})
    }
}

/// Sends requests again whose attempt takes long; see [`HedgeLayer`](super::HedgeLayer).
///
/// It is ready when the inner service is. Further attempts ready a clone of it inside the response future.
pub struct Hedge<S, Req, Res> {
    inner: S,
    shared: Arc<Shared<Req, Res>>,
}

impl<S, Req, Res> Hedge<S, Req, Res> {
    pub(super) fn new(inner: S, shared: Arc<Shared<Req, Res>>) -> Self {
        Self { inner, shared }
    }

    /// Replaces the options, for all that share its state; what was counted stays.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn update(&self, options: &HedgeOptions) -> Result<(), Invalid> {
        options.validate()?;
        self.shared.pace.set(options);
        Ok(())
    }

    /// Hedges that were sent.
    pub fn hedges(&self) -> u64 {
        self.shared.parts.tally.sum(Counter::Hedges)
    }
}

impl<S, Req> Service<Req> for Hedge<S, Req, S::Response>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The one that was readied is called; a clone takes its place.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        ResponseFuture {
            state: State::Start(Some((ready, request))),
            race: Race::new(),
            may_race: false,
            run: Run {
                inner: self.inner.clone(),
                shared: self.shared.clone(),
                copy: None,
                idempotent: false,
                entered: None,
            },
            call: Call::default(),
            inside: false,
            began: None,
            timer: Timer::default(),
        }
    }
}

impl<S: Clone, Req, Res> Clone for Hedge<S, Req, Res> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, Req, Res> fmt::Debug for Hedge<S, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// An attempt: of a service that was readied, or of a clone that has to be.
#[pin_project(project = AttemptProjection)]
enum Attempt<S: Service<Req>, Req> {
    Called(#[pin] S::Future),
    Anew(#[pin] Oneshot<S, Req>),
}

impl<S, Req> Future for Attempt<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AttemptProjection::Called(future) => future.poll(cx).map_err(Into::into),
            AttemptProjection::Anew(future) => future.poll(cx).map_err(Into::into),
        }
    }
}

/// The future of [`Hedge`].
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    #[pin]
    state: State<S, Req>,
    race: Race<Attempt<S, Req>, S::Response>,
    /// Whether it is a first attempt: a retry is extra load by itself.
    may_race: bool,
    run: Run<S, Req, S::Response>,
    /// Of the first attempt; a copy of that above, if there is one.
    call: Call,
    /// Whether a layer above has begun a call, and pays the budget.
    inside: bool,
    began: Option<Instant>,
    #[pin]
    timer: Timer,
}

#[pin_project(project = StateProjection)]
enum State<S: Service<Req>, Req> {
    Start(Option<(S, Req)>),
    Attempt(#[pin] Option<Attempt<S, Req>>),
}

/// Where the attempts come from.
struct Run<S, Req, Res> {
    inner: S,
    shared: Arc<Shared<Req, Res>>,
    copy: Option<Req>,
    idempotent: bool,
    entered: Option<Box<Entered>>,
}

impl<S, Req> Course for Run<S, Req, S::Response>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Attempt = Attempt<S, Req>;

    fn arm(&mut self, call: &Call, now: Instant) -> Arm {
        if !self.idempotent || self.copy.is_none() || call.probe {
            return Arm::Never;
        }
        self.shared.pace.waited_for(now);
        self.every(now).map_or(Arm::Never, Arm::After)
    }

    fn every(&mut self, now: Instant) -> Option<Duration> {
        match self.shared.due(now) {
            Due::After(delay) => Some(delay),
            Due::Unknown | Due::NoRoom => None,
        }
    }

    fn most(&self) -> u32 {
        self.shared.pace.max_attempts()
    }

    fn affords(&self, at: Instant, now: Instant) -> bool {
        let Some(deadline) = context::deadline() else { return true };
        let fastest = Shared::<Req, S::Response>::counts(&self.shared.ended, now).quantile(0.1);
        deadline.saturating_duration_since(at) > fastest.unwrap_or_default()
    }

    fn another(&mut self, number: u32, why: Trigger, now: Instant) -> Option<(Self::Attempt, Paid)> {
        let parts = &self.shared.parts;
        let share = if why == Trigger::Time { self.shared.pace.withdraw(now)? } else { None };
        let paid = Paid { share, budget: parts.budget.withdraw(now)? };
        // A copy that cannot be copied any more may have lost a part of its body.
        let mut request = self.copy.take()?;
        self.copy = Some(parts.describe.copy(&mut request)?);
        stamp(parts, &mut request, number);
        Some((Attempt::Anew(Oneshot::new(self.inner.clone(), request)), paid))
    }

    fn verdict(&self, call: &Call, result: &Result<S::Response, BoxError>) -> Verdict {
        call.verdict.unwrap_or_else(|| unjudged(&self.shared.parts, result))
    }

    fn failed(&self, verdict: Verdict) {
        if verdict.was_sent() == crate::outcome::Sent::Maybe {
            self.shared.parts.budget.fail();
        }
    }

    fn spend(&mut self, paid: Paid) {
        paid.spend_on(&mut self.entered);
        self.shared.parts.tally.count(Counter::Hedges);
    }

    fn withheld(&self) {
        self.shared.parts.tally.count(Counter::HedgesWithheld);
    }

    fn won(&self) {
        self.shared.parts.tally.count(Counter::HedgesWon);
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req> + Clone,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut state, race, run) = (this.state, this.race, this.run);
        let (call, inside, began, may_race) = (this.call, this.inside, this.began, this.may_race);
        this.timer.poll(cx, |cx| {
            if let StateProjection::Start(start) = state.as_mut().project() {
                let Some((mut service, mut request)) = start.take() else { return Poll::Pending };
                let above = context::call();
                *inside = above.is_some();
                *call = above.unwrap_or(Call { attempt: 1, ..Call::default() });
                let parts = &run.shared.parts;
                run.idempotent = parts.describe.is_idempotent(&request);
                *may_race = call.attempt == 1;
                if run.idempotent && *may_race {
                    run.copy = parts.describe.copy(&mut request);
                }
                run.entered = if *inside { parts.budget.enter_within() } else { parts.budget.enter() };
                if !*inside {
                    stamp(parts, &mut request, 1);
                }
                *began = Some(context::now());
                let attempt = {
                    let _call = EnterCall::new(call);
                    Attempt::Called(service.call(request))
                };
                state.set(State::Attempt(Some(attempt)));
            }
            let StateProjection::Attempt(mut first) = state.as_mut().project() else { return Poll::Pending };
            let polled = match first.as_mut().as_pin_mut() {
                Some(alone) if !*may_race => {
                    let _call = EnterCall::new(call);
                    alone.poll(cx)
                }
                _ => race.poll(first, call, run, cx),
            };
            let Poll::Ready(result) = polled else { return Poll::Pending };
            let (verdict, now) = match call.verdict {
                Some(verdict) => (verdict, context::now()),
                None => (unjudged(&run.shared.parts, &result), context::fresh_now()),
            };
            if let Some(began) = began.take() {
                let took = now.saturating_duration_since(began);
                // What a hedge has won is of the first attempt no more than that it lasted so long.
                let of = if verdict.is_success() && !race.hedge_won() {
                    &run.shared.ended
                } else {
                    &run.shared.cut
                };
                Shared::<Req, S::Response>::record(of, now, took);
            }
            if *inside {
                context::change_call(|above| *above = *call);
            } else if verdict.is_plain_success() {
                run.shared.parts.budget.deposit_now();
            }
            run.entered = None;
            state.set(State::Start(None));
            Poll::Ready(result)
        })
    }
}

/// Callers who give up have waited at least so long.
#[pinned_drop]
impl<S, Req> PinnedDrop for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn drop(self: Pin<&mut Self>) {
        if let Some(began) = self.began {
            let (shared, now) = (&self.run.shared, context::now());
            Shared::<Req, S::Response>::record(&shared.cut, now, now.saturating_duration_since(began));
        }
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempt", &self.call.attempt).finish_non_exhaustive()
    }
}
