//! Attempts of one request beside each other: the first success wins.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::pin_project;
use tower::BoxError;

use crate::{
    budget::{Entered, Withdrawal},
    context::{self, Call, EnterCall, EnterInherited},
    outcome::{Again, Class, Sent, Verdict},
};

/// Where a race is run: what it goes by, and where further attempts come from.
pub(crate) trait Course {
    type Response;
    type Attempt: Future<Output = Result<Self::Response, BoxError>>;

    /// When another attempt is due after the first, which is under way.
    fn arm(&mut self, call: &Call, now: Instant) -> Arm;

    /// After which time another is due after one that was sent now.
    fn every(&mut self, now: Instant) -> Option<Duration>;

    /// How many attempts there may be.
    fn most(&self) -> u32;

    /// Whether there is time for an attempt that begins at `at`.
    fn affords(&self, at: Instant, now: Instant) -> bool;

    /// Attempt `number`, with what it costs; `None` where there is no room, no budget or no copy.
    fn another(&mut self, number: u32, why: Trigger, now: Instant) -> Option<(Self::Attempt, Paid)>;

    /// How an attempt has ended.
    fn verdict(&self, call: &Call, result: &Result<Self::Response, BoxError>) -> Verdict;

    /// An attempt has failed.
    fn failed(&self, verdict: Verdict);

    /// A hedge is under way: what it costs is spent.
    fn spend(&mut self, paid: Paid);

    /// One was due and was not sent.
    fn withheld(&self);

    /// A hedge has answered first.
    fn won(&self);
}

/// When another attempt is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// To be asked again: the first is not under way yet.
    NotYet,
    Never,
    After(Duration),
}

/// Why another attempt is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Those before it take long.
    Time,
    /// One before it has failed.
    Failure,
}

/// What an attempt is paid by, given back unless it gets under way.
#[derive(Debug)]
pub(crate) struct Paid {
    /// Of the share of the hedges, where time has called for it.
    pub(crate) share: Option<Withdrawal>,
    pub(crate) budget: Withdrawal,
}

impl Paid {
    /// The attempt is under way, of a request that counts so to its end.
    pub(crate) fn spend_on(self, entered: &mut Option<Box<Entered>>) {
        self.budget.spend_on(entered.as_deref_mut());
        if let Some(share) = self.share {
            share.spend();
        }
    }
}

/// What runs beside the first attempt of a request, which is kept by whoever runs the race.
///
/// A future is copied more often than one would think (an `.await` moves it), so the room for a second attempt beside the
/// first costs those who never have one more than its box costs the one in a hundred that has.
///
/// `F` is an attempt, `T` what it answers.
#[derive(Debug)]
pub(crate) struct Race<F, T> {
    plan: Plan,
    /// When the next attempt is due.
    at: Option<Instant>,
    others: Option<Box<Others<F, T>>>,
}

#[derive(Debug)]
struct Others<F, T> {
    /// Those under way.
    legs: Vec<Pin<Box<Leg<F>>>>,
    /// How many there were.
    launched: u32,
    /// Whether one of them has won.
    has_won: bool,
    /// How an attempt has ended that did not win, with its call.
    failed: Option<(Result<T, BoxError>, Call)>,
}

#[pin_project]
#[derive(Debug)]
struct Leg<F> {
    #[pin]
    attempt: F,
    call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It is not known yet when the next is due.
    Unarmed,
    /// It is, for this reason.
    Armed(Trigger),
    /// There will be no more.
    Spent,
}

impl<F, T> Race<F, T> {
    /// No other attempts; some may come.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { plan: Plan::Unarmed, at: None, others: None }
    }

    /// How many attempts there were after the first.
    fn launched(&self) -> u32 {
        self.others.as_ref().map_or(0, |others| others.launched)
    }

    /// Whether one of those has won.
    pub(crate) fn hedge_won(&self) -> bool {
        self.others.as_ref().is_some_and(|others| others.has_won)
    }

    fn others(&mut self) -> &mut Others<F, T> {
        let none = || Box::new(Others { legs: Vec::new(), launched: 0, has_won: false, failed: None });
        self.others.get_or_insert_with(none)
    }

    fn arm(&mut self, at: Option<Instant>, why: Trigger) {
        self.plan = if at.is_some() { Plan::Armed(why) } else { Plan::Spent };
        self.at = at;
    }

    /// Whether nothing is under way beside the first.
    fn is_over(&self) -> bool {
        self.others.as_ref().is_none_or(|others| others.legs.is_empty())
    }
}

impl<F, T> Race<F, T>
where
    F: Future<Output = Result<T, BoxError>>,
{
    /// Polls `first` and all that are under way beside it, and sends another when it is due. `own` is the call of the first; at
    /// the end it is that of the one whose result is returned, and knows of all endpoints that were tried.
    pub(crate) fn poll<C>(
        &mut self,
        mut first: Pin<&mut Option<F>>,
        own: &mut Call,
        course: &mut C,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output>
    where
        C: Course<Attempt = F, Response = T>,
    {
        if let Some(result) = poll_first(first.as_mut(), own, cx)
            && let Some(result) = self.ended(*own, result, own, course)
        {
            return Poll::Ready(self.finish(first, own, result));
        }
        if let Some(result) = self.poll_legs(own, course, cx) {
            return Poll::Ready(self.finish(first, own, result));
        }
        loop {
            let now = context::now();
            match (self.plan, self.at) {
                (Plan::Unarmed, _) if first.is_some() => match course.arm(own, now) {
                    Arm::NotYet => break,
                    Arm::Never => self.plan = Plan::Spent,
                    Arm::After(delay) => self.arm(now.checked_add(delay), Trigger::Time),
                },
                (Plan::Armed(_), Some(at)) if at > now => {
                    if first.is_none() && self.is_over() && !course.affords(at, now) {
                        break;
                    }
                    context::wake_at(at);
                    return Poll::Pending;
                }
                (Plan::Armed(why), Some(_)) => {
                    if let Some(result) = self.launch(why, own, course, cx) {
                        return Poll::Ready(self.finish(first, own, result));
                    }
                }
                _ => break,
            }
        }
        if first.is_some() || !self.is_over() {
            return Poll::Pending;
        }
        let failed = self.others.as_mut().and_then(|others| others.failed.take());
        let Some((result, call)) = failed else { return Poll::Pending };
        (own.verdict, own.probe) = (call.verdict, call.probe);
        Poll::Ready(self.finish(first, own, result))
    }

    fn poll_legs<C>(&mut self, own: &mut Call, course: &C, cx: &mut Context<'_>) -> Option<F::Output>
    where
        C: Course<Attempt = F, Response = T>,
    {
        let mut index = 0;
        while let Some(leg) = self.others.as_mut().and_then(|others| others.legs.get_mut(index)) {
            let Poll::Ready(result) = leg.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            let call = leg.call;
            self.others().legs.remove(index);
            if let Some(result) = self.ended(call, result, own, course) {
                return Some(result);
            }
        }
        None
    }

    /// An attempt has ended: its result if it wins. If not it is kept, and may have the next sent.
    fn ended<C>(&mut self, mut call: Call, result: F::Output, own: &mut Call, course: &C) -> Option<F::Output>
    where
        C: Course<Attempt = F, Response = T>,
    {
        let verdict = course.verdict(&call, &result);
        call.verdict = Some(verdict);
        if verdict.is_plain_success() || verdict.is_settled() {
            (own.verdict, own.probe) = (call.verdict, call.probe);
            if call.hedge {
                self.others().has_won = true;
                course.won();
            }
            return Some(result);
        }
        course.failed(verdict);
        self.others().note(result, call);
        let again = match (verdict.class(), verdict.was_sent(), verdict.may_repeat()) {
            // Whoever keeps the rules of retries knows what follows, and that it is free.
            (_, Sent::No | Sent::Refused, _) => None,
            _ if call.probe => None,
            (_, _, Again::Policy) if verdict.is_wanted() => Some(Duration::ZERO),
            (Class::Failure, _, Again::Policy) => Some(Duration::ZERO),
            (Class::Failure | Class::BackOff, _, Again::After(wait)) => Some(wait),
            _ => None,
        };
        match (self.plan, again) {
            (Plan::Armed(_), Some(wait)) => self.arm(context::now().checked_add(wait), Trigger::Failure),
            _ => self.plan = Plan::Spent,
        }
        None
    }

    /// Sends another attempt, which is due, and polls it for the first time. Its result if it wins at once.
    fn launch<C>(
        &mut self,
        why: Trigger,
        own: &mut Call,
        course: &mut C,
        cx: &mut Context<'_>,
    ) -> Option<F::Output>
    where
        C: Course<Attempt = F, Response = T>,
    {
        let (now, launched) = (context::now(), self.launched());
        self.plan = Plan::Spent;
        if launched + 1 >= course.most() {
            return None;
        }
        let number = own.attempt + launched + 1;
        let another = if course.affords(now, now) { course.another(number, why, now) } else { None };
        let Some((attempt, paid)) = another else {
            course.withheld();
            return None;
        };
        let call = Call {
            attempt: number,
            verdict: None,
            hedge: true,
            repeatable: false,
            more: 0,
            probe: false,
            ..*own
        };
        let mut leg = Box::pin(Leg { attempt, call });
        let polled = leg.as_mut().poll(cx);
        let under_way = match &polled {
            // Refused before anything of it was sent: by a limit, or because no other endpoint is there.
            Poll::Ready(result) => course.verdict(&leg.call, result).was_sent() != Sent::No,
            // Attempts that pick their endpoint note it. If this has to wait, there is no room for anything twice.
            Poll::Pending => own.is_untried() || leg.call.tries > own.tries,
        };
        if !under_way {
            course.withheld();
            return None;
        }
        course.spend(paid);
        own.tried_too(&leg.call);
        let every = course.every(now);
        self.arm(every.and_then(|every| now.checked_add(every)), Trigger::Time);
        self.others().launched += 1;
        match polled {
            Poll::Ready(result) => self.ended(leg.call, result, own, course),
            Poll::Pending => {
                self.others().legs.push(leg);
                None
            }
        }
    }

    /// Cancels what is still under way.
    fn finish(&mut self, mut first: Pin<&mut Option<F>>, own: &mut Call, result: F::Output) -> F::Output {
        self.plan = Plan::Spent;
        let superseded = |call: Call| Call { superseded: true, ..call };
        if first.is_some() {
            let mut call = superseded(*own);
            let _call = EnterCall::new(&mut call);
            first.set(None);
        }
        if let Some(others) = &mut self.others {
            for leg in others.legs.drain(..) {
                let mut call = superseded(leg.call);
                let _call = EnterCall::new(&mut call);
                drop(leg);
            }
        }
        own.attempt += self.launched();
        result
    }
}

fn poll_first<F: Future>(
    mut first: Pin<&mut Option<F>>,
    own: &mut Call,
    cx: &mut Context<'_>,
) -> Option<F::Output> {
    let polled = {
        let _call = EnterCall::new(own);
        first.as_mut().as_pin_mut()?.poll(cx)
    };
    let Poll::Ready(result) = polled else { return None };
    first.set(None);
    Some(result)
}

impl<F: Future> Leg<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Whatever is called on the way of a hedge knows that it is being done again.
        let _inherited = EnterInherited::new(context::inherited().with_retry(true));
        let _call = EnterCall::new(this.call);
        this.attempt.poll(cx)
    }
}

impl<F, T> Others<F, T> {
    /// Takes note of a failure. Of several the first counts that may have been processed.
    fn note(&mut self, result: Result<T, BoxError>, call: Call) {
        let told = self.failed.as_ref().and_then(|(_, call)| call.verdict);
        if told.is_none_or(|verdict| verdict.was_sent() != Sent::Maybe) {
            self.failed = Some((result, call));
        }
    }
}
