//! One request through all its attempts.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::pin_project;
use tower::BoxError;

use super::{
    decide::{Ended, Next, Wait, decide},
    policy::RetryPolicy,
};
use crate::{
    budget::{Budget, Entered, Withdrawal},
    context::{self, Call, EnterCall, EnterInherited},
    describe::{Criticality, Describe, Sending},
    error::Error,
    outcome::{Again, Class, Classify, Sent, Verdict},
    random::Random,
    telemetry::{Counter, Tally},
};

/// What retries go by, shared by all requests of a layer or client.
pub(crate) struct Parts<Req, Res> {
    pub(crate) budget: Budget,
    pub(crate) describe: Arc<dyn Describe<Req>>,
    /// Judges what nothing below has judged.
    pub(crate) classify: Arc<dyn Classify<Res>>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tally: Tally,
}

/// Where a session runs: what it sends with, and goes by.
pub(crate) trait Env<Req: 'static> {
    type Response: 'static;
    type Future: Future<Output = Result<Self::Response, BoxError>>;
    /// What may run beside an attempt.
    type Beside;

    /// Sends the request for the first time.
    fn first(&mut self, request: Req) -> Self::Future;

    /// Sends a copy.
    fn again(&mut self, request: Req) -> Self::Future;

    fn parts(&self) -> &Parts<Req, Self::Response>;

    /// The waits between attempts; asked only when one is needed.
    fn policy(&self) -> RetryPolicy;

    /// What may run beside the first attempt, if anything may.
    #[inline]
    fn beside(&self) -> Option<Self::Beside> {
        None
    }

    /// Polls the first attempt and what runs beside it.
    fn poll_beside(
        &mut self,
        first: Pin<&mut Option<Self::Future>>,
        request: Underway<'_, Req, Self::Beside>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Response, BoxError>>;

    /// The last attempt has succeeded.
    fn succeeded(&self, now: Instant);

    /// Whether so little of the capacity is in use that another attempt may be made, as far as that is known.
    fn has_room(&self, now: Instant) -> bool {
        let _ = now;
        true
    }

    /// The fastest recent tenth of latency: with less time left than that, another attempt makes no sense.
    fn fastest(&self, now: Instant) -> Option<Duration>;
}

/// What few requests have. In a box, or each would carry the room for it.
#[derive(Debug)]
pub(crate) struct Extras<B> {
    /// Where the budget goes by what is under way.
    pub(crate) entered: Option<Box<Entered>>,
    /// What runs beside the first attempt.
    pub(crate) beside: Option<B>,
}

/// What a first attempt may ask of its request.
pub(crate) struct Underway<'a, Req, B> {
    pub(crate) call: &'a mut Call,
    /// What is kept to be sent again.
    pub(crate) copy: &'a mut Option<Req>,
    pub(crate) idempotent: bool,
    pub(crate) beside: &'a mut B,
    pub(crate) entered: &'a mut Option<Box<Entered>>,
}

/// What is wished for one request, over what its description says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) max_attempts: u32,
    /// Whether the session leaves retries to one above it. A client never does: what is above it may be another call,
    /// on whose way this one is made.
    pub(crate) steps_aside: bool,
    pub(crate) idempotent: Option<bool>,
}

/// The future of a request that may be tried several times; `F` is that of one attempt, `B` what may run beside it.
///
/// Without bounds, as are the futures around it: an `async` block that holds one over an await has to prove them for
/// lifetimes it knows nothing of, and for `BoxError: Into<BoxError>` it cannot.
#[pin_project]
pub(crate) struct Session<E, F, B, Req> {
    #[pin]
    state: State<F, Req>,
    env: E,
    copy: Option<Req>,
    call: Call,
    /// A layer above retries this call: this one steps aside.
    aside: bool,
    idempotent: bool,
    /// How much the request matters, where its description says so: what is inherited below.
    criticality: Option<Criticality>,
    wishes: Wishes,
    sent: u32,
    unsent: u32,
    refused: bool,
    /// Whether an attempt before this one may have been processed.
    maybe: bool,
    waited: Duration,
    /// Retries since the server last said when.
    own_waits: u32,
    extras: Option<Box<Extras<B>>>,
}

#[pin_project(project = StateProjection)]
enum State<F, Req> {
    Start(Option<Req>),
    Attempt(#[pin] Option<F>),
    Waiting { until: Instant, request: Option<Req>, withdrawal: Option<Withdrawal> },
}

impl<E, F, B, Req> Session<E, F, B, Req> {
    #[inline(always)]
    pub(crate) fn new(env: E, request: Req, wishes: Wishes) -> Self {
        Self {
            state: State::Start(Some(request)),
            env,
            copy: None,
            call: Call::default(),
            aside: false,
            idempotent: false,
            criticality: None,
            wishes,
            sent: 0,
            unsent: 0,
            refused: false,
            maybe: false,
            waited: Duration::ZERO,
            own_waits: 0,
            extras: None,
        }
    }

    /// How many attempts may have been sent.
    pub(crate) fn attempts(&self) -> u32 {
        self.sent
    }

    /// Where the session runs.
    #[inline]
    pub(crate) fn env(&self) -> &E {
        &self.env
    }

    /// Gives up what is under way.
    pub(crate) fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.state.set(State::Start(None));
        *this.extras = None;
    }

    /// How the last attempt ended.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.call.verdict
    }

    /// Whether the last attempt ended well.
    #[inline]
    pub(crate) fn succeeded(&self) -> bool {
        self.call.verdict.is_some_and(|verdict| verdict.is_success())
    }
}

impl<E, F, B, Req> Session<E, F, B, Req>
where
    E: Env<Req, Future = F, Beside = B>,
    F: Future<Output = Result<E::Response, BoxError>>,
    Req: 'static,
{
    /// How much the request matters, before anything was sent.
    pub(crate) fn criticality(&self) -> Criticality {
        let described = match &self.state {
            State::Start(Some(request)) => self.env.parts().describe.criticality(request),
            _ => self.criticality,
        };
        described.or_else(|| context::inherited().criticality()).unwrap_or_default()
    }

    /// Polls the session; `Start` and waits are passed through until there is something to wait for.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<E::Response, BoxError>> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Start(request) => {
                    let Some(mut request) = request.take() else { return Poll::Pending };
                    let above = this.wishes.steps_aside.then(context::call).flatten();
                    *this.aside = above.is_some();
                    let parts = this.env.parts();
                    *this.idempotent =
                        this.wishes.idempotent.unwrap_or_else(|| parts.describe.is_idempotent(&request));
                    *this.criticality = parts.describe.criticality(&request);
                    if !*this.aside {
                        let beside = this.env.beside();
                        if this.wishes.max_attempts > 1 || beside.is_some() {
                            *this.copy = parts.describe.copy(&mut request);
                        }
                        if beside.is_some() || parts.budget.counts_requests() {
                            *this.extras = Some(extras(&parts.budget, beside));
                        }
                    }
                    this.call.attempt = 1;
                    *this.sent = 1;
                    this.call.repeatable =
                        this.copy.is_some() && *this.idempotent && this.wishes.max_attempts > 1;
                    this.call.more = more(this.call.repeatable, this.wishes.max_attempts, 1);
                    stamp(parts, &mut request, above.map_or(1, |call| call.attempt));
                    let future = {
                        let _call = (!*this.aside).then(|| EnterCall::new(this.call));
                        this.env.first(request)
                    };
                    this.state.set(State::Attempt(Some(future)));
                }
                StateProjection::Attempt(future) => {
                    let polled = if *this.aside {
                        poll_alone(future, cx)
                    } else {
                        // Whatever is called on the way, by whichever client, knows that it is being done again.
                        let _inherited = (this.call.attempt > 1 || this.criticality.is_some())
                            .then(|| inherit(this.call.attempt > 1, *this.criticality));
                        match this.extras.as_deref_mut() {
                            Some(Extras { beside: Some(beside), entered }) => {
                                let request = Underway {
                                    call: this.call,
                                    copy: this.copy,
                                    idempotent: *this.idempotent,
                                    beside,
                                    entered,
                                };
                                this.env.poll_beside(future, request, cx)
                            }
                            _ => {
                                let _call = EnterCall::new(this.call);
                                poll_alone(future, cx)
                            }
                        }
                    };
                    let Poll::Ready(result) = polled else { return Poll::Pending };
                    if *this.aside {
                        return Poll::Ready(result);
                    }
                    let parts = this.env.parts();
                    // A balancer below has read the clock when the answer came; a bare service has not.
                    let (verdict, now) = match this.call.verdict {
                        Some(verdict) => (verdict, context::now()),
                        None => {
                            let verdict = unjudged(parts, &result);
                            // What succeeds in the poll in which it began took no time worth another look at the clock.
                            let at_once = verdict.is_success();
                            (verdict, if at_once { context::now() } else { context::fresh_now() })
                        }
                    };
                    if verdict.is_plain_success() {
                        parts.budget.deposit_now();
                        this.env.succeeded(now);
                        if this.extras.is_some() {
                            *this.extras = None;
                        }
                        return Poll::Ready(result);
                    }
                    let progress = Progress {
                        idempotent: *this.idempotent,
                        most: this.wishes.max_attempts,
                        waited: *this.waited,
                        own_waits: this.own_waits,
                        probe: this.call.probe,
                        sent: this.sent,
                        unsent: this.unsent,
                        refused: this.refused,
                    };
                    // What ran beside the first attempt has told the budget of its failures.
                    let raced = this.extras.as_mut().and_then(|extras| extras.beside.take()).is_some();
                    match another(this.env, this.copy, progress, verdict, raced, now) {
                        Some(Planned { until, wait, request, withdrawal }) => {
                            *this.waited = wait;
                            *this.maybe |= verdict.was_sent() == Sent::Maybe;
                            // What was answered is dropped here: a body is not read to its end.
                            drop(result);
                            this.state.set(State::Waiting { until, request: Some(request), withdrawal });
                        }
                        None => {
                            *this.extras = None;
                            return Poll::Ready(if *this.maybe {
                                result.map_err(maybe_sent)
                            } else {
                                result
                            });
                        }
                    }
                }
                StateProjection::Waiting { until, request, withdrawal } => {
                    if context::now() < *until {
                        context::wake_at(*until);
                        return Poll::Pending;
                    }
                    let Some(mut request) = request.take() else { return Poll::Pending };
                    if let Some(withdrawal) = withdrawal.take() {
                        withdrawal
                            .spend_on(this.extras.as_mut().and_then(|extras| extras.entered.as_deref_mut()));
                    }
                    let parts = this.env.parts();
                    *this.sent += 1;
                    this.call.attempt += 1;
                    this.call.verdict = None;
                    this.call.repeatable = *this.idempotent && *this.sent < this.wishes.max_attempts;
                    this.call.more = more(this.call.repeatable, this.wishes.max_attempts, *this.sent);
                    parts.tally.count(Counter::Retries);
                    stamp(parts, &mut request, this.call.attempt);
                    let future = {
                        let _call = EnterCall::new(this.call);
                        this.env.again(request)
                    };
                    this.state.set(State::Attempt(Some(future)));
                }
            }
        }
    }
}

/// How many attempts may follow the one that is sent.
#[inline]
fn more(repeatable: bool, most: u32, sent: u32) -> u8 {
    if repeatable { u8::try_from(most.saturating_sub(sent)).unwrap_or(u8::MAX) } else { 0 }
}

/// What a request has besides, of those few that have it.
#[cold]
fn extras<B>(budget: &Budget, beside: Option<B>) -> Box<Extras<B>> {
    Box::new(Extras { entered: budget.enter(), beside })
}

/// Polls an attempt that nothing runs beside.
#[inline(always)]
fn poll_alone<F: Future>(attempt: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    match attempt.as_pin_mut() {
        Some(attempt) => attempt.poll(cx),
        None => Poll::Pending,
    }
}

/// What everything below inherits.
#[cold]
fn inherit(again: bool, criticality: Option<Criticality>) -> EnterInherited {
    let mut inherited = context::inherited();
    if again {
        inherited = inherited.with_retry(true);
    }
    if let Some(criticality) = criticality {
        inherited = inherited.with_criticality(criticality);
    }
    EnterInherited::new(inherited)
}

/// How far a session has come.
struct Progress<'a> {
    idempotent: bool,
    most: u32,
    waited: Duration,
    own_waits: &'a mut u32,
    probe: bool,
    sent: &'a mut u32,
    unsent: &'a mut u32,
    refused: &'a mut bool,
}

/// Another attempt: when, with what, after which wait, and paid by what.
struct Planned<Req> {
    until: Instant,
    wait: Duration,
    request: Req,
    withdrawal: Option<Withdrawal>,
}

/// Plans another attempt, if there is to be one.
#[cold]
fn another<E, Req>(
    env: &E,
    copy: &mut Option<Req>,
    progress: Progress<'_>,
    verdict: Verdict,
    raced: bool,
    now: Instant,
) -> Option<Planned<Req>>
where
    E: Env<Req>,
    Req: 'static,
{
    if verdict.was_sent() == Sent::No {
        *progress.unsent += 1;
        *progress.sent = progress.sent.saturating_sub(1);
    }
    let ended = Ended {
        verdict,
        idempotent: progress.idempotent,
        sent: *progress.sent,
        most: progress.most,
        unsent: *progress.unsent,
        refused_before: *progress.refused,
        probe: progress.probe,
    };
    *progress.refused |= verdict.was_sent() == Sent::Refused;
    let next = decide(&ended);
    let parts = env.parts();
    if !raced && drains(&ended, next) {
        parts.budget.fail();
    }
    let Next::Again { free, wait } = next else { return None };
    if progress.most <= 1 {
        // The copy is for hedges.
        return None;
    }
    // A copy that cannot be copied any more may have lost a part of its body.
    let mut request = copy.take()?;
    *copy = Some(parts.describe.copy(&mut request)?);
    let wait = match wait {
        Wait::No => Duration::ZERO,
        Wait::Exactly(wait) => {
            // The server knows better: what comes after that begins anew.
            *progress.own_waits = 0;
            wait
        }
        Wait::Backoff => {
            let previous = if *progress.own_waits == 0 { Duration::ZERO } else { progress.waited };
            *progress.own_waits += 1;
            env.policy().backoff.delay(*progress.own_waits, previous, &*parts.random)
        }
    };
    let until = now.checked_add(wait)?;
    if let Some(deadline) = context::deadline()
        && deadline.saturating_duration_since(until) <= env.fastest(now).unwrap_or_default()
    {
        return None;
    }
    let withdrawal = if free {
        None
    } else {
        let withdrawal = if env.has_room(now) { parts.budget.withdraw(now) } else { None };
        if withdrawal.is_none() {
            parts.tally.count(Counter::BudgetExhausted);
            return None;
        }
        withdrawal
    };
    Some(Planned { until, wait, request, withdrawal })
}

/// Whether a failure drains a throttle: one that a retry could have helped, or that the server does not want repeated. What is
/// sent again free was never processed, and what the caller did wrong is no failure.
fn drains(ended: &Ended, next: Next) -> bool {
    let verdict = &ended.verdict;
    let processed = verdict.was_sent() == Sent::Maybe && verdict.class() != Class::Inconclusive;
    processed
        && !verdict.is_plain_success()
        && !verdict.is_settled()
        && !matches!(next, Next::Again { free: true, .. })
}

/// The verdict on what nothing below has judged. A refusal by the whole of what is below is final.
pub(crate) fn unjudged<Req, Res: 'static>(
    parts: &Parts<Req, Res>,
    result: &Result<Res, BoxError>,
) -> Verdict {
    let verdict = parts.classify.classify(result.as_ref());
    let refused = result.as_ref().err().and_then(|error| Error::find(&**error));
    if refused.is_some_and(|error| error.reason().is_final()) { verdict.again(Again::Never) } else { verdict }
}

/// That nothing was sent in the last attempt does not mean that of the request.
#[cold]
fn maybe_sent(error: BoxError) -> BoxError {
    match error.downcast::<Error>() {
        Ok(ours) if ours.sent() != Sent::Maybe => ours.with_sent(Sent::Maybe).into(),
        Ok(ours) => ours,
        Err(foreign) => foreign,
    }
}

pub(crate) fn stamp<Req: 'static, Res>(parts: &Parts<Req, Res>, request: &mut Req, attempt: u32) {
    let inherited = context::inherited();
    let sending = Sending::new(attempt, context::now(), inherited.deadline());
    parts.describe.stamp(request, &sending.with_retry_above(inherited.is_retry()));
}
