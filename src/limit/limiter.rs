//! A limit at work: the gate, what decides its width, and the guard of who is in.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    ConcurrencyLimitOptions, Gate,
    control::Controller,
    gate::{Entry, Permit, Ticket},
    meter::{Meter, Shown},
};
use crate::{
    Error, Reason, clock,
    context::{self},
    invalid::Invalid,
    outcome::{Class, Verdict},
    sync::{AtomicU64, Ordering::Relaxed},
};

/// What all services of a layer share.
pub(crate) struct Limiter {
    pub(super) gate: Gate,
    meter: Meter,
    max_wait_nanos: AtomicU64,
    epoch: Instant,
}

impl Limiter {
    /// A limit by `options`, or by a controller that somebody has made.
    pub(crate) fn new(
        options: &ConcurrencyLimitOptions,
        controller: Option<Box<dyn Controller>>,
    ) -> Result<Self, Invalid> {
        options.validate()?;
        let controller = controller.or_else(|| options.algorithm.controller());
        let limit = controller.as_ref().map_or(options.limit, |controller| controller.limit());
        let gate = Gate::new(limit, options.max_waiting);
        gate.set_queue(options.queue, options.target, options.interval);
        Ok(Self {
            gate,
            meter: Meter::new(controller),
            max_wait_nanos: AtomicU64::new(nanos(options.max_wait)),
            epoch: clock::now(),
        })
    }

    /// Replaces the options; `same` if what decides stays as it is.
    pub(crate) fn update(&self, options: &ConcurrencyLimitOptions, same: bool) -> Result<(), Invalid> {
        options.validate()?;
        self.max_wait_nanos.store(nanos(options.max_wait), Relaxed);
        self.gate.set_max_waiting(options.max_waiting);
        self.gate.set_queue(options.queue, options.target, options.interval);
        if !same {
            let set = |limit: Option<u32>| self.gate.set_limit(limit.unwrap_or(options.limit));
            self.meter.replace(&options.algorithm, set);
        } else if !self.meter.is_on() {
            self.gate.set_limit(options.limit);
        }
        Ok(())
    }

    /// What it does.
    pub(crate) fn status(&self) -> LimitStatus {
        let gate = &self.gate;
        LimitStatus { limit: gate.limit(), in_flight: gate.in_flight(), waiting: gate.waiting() }
    }

    fn max_wait(&self) -> Duration {
        Duration::from_nanos(self.max_wait_nanos.load(Relaxed))
    }

    /// Whoever is in from now on.
    #[inline]
    fn place(self: &Arc<Self>, permit: Permit) -> Place {
        let timed = self.meter.is_on().then(|| (self.clone(), context::now()));
        Place { permit, timed, shown: false }
    }
}

/// What a limit does, of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitStatus {
    /// How many may run at a time.
    pub limit: u32,
    /// How many do.
    pub in_flight: u32,
    /// How many wait.
    pub waiting: u32,
}

/// Ten years, the longest wait, fit.
fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("gate", &self.gate)
            .field("meter", &self.meter)
            .finish_non_exhaustive()
    }
}

/// A place in line, and when it is given up.
#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    since: Instant,
    until: Instant,
}

/// The way in. Dropping it gives the place in line up.
#[derive(Debug, Default)]
pub(crate) struct Entering(Option<Wait>);

impl Entering {
    /// The place, or why there is none.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        limiter: &Arc<Limiter>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Place, Error>> {
        let deadline = context::deadline();
        if self.0.is_some() {
            return self.wait(limiter, deadline, cx);
        }
        if deadline.is_some_and(|deadline| deadline <= context::now()) {
            return Poll::Ready(Err(Error::new(Reason::Deadline)));
        }
        match limiter.gate.try_acquire() {
            Some(permit) => Poll::Ready(Ok(limiter.place(permit))),
            None => self.queue(limiter, deadline, cx),
        }
    }

    #[cold]
    fn queue(
        &mut self,
        limiter: &Arc<Limiter>,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Place, Error>> {
        let now = context::now();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let class = context::inherited().criticality().unwrap_or_default();
        match limiter.gate.acquire_at(cx, now, left, class) {
            Entry::Permit(permit) => Poll::Ready(Ok(limiter.place(permit))),
            Entry::Full => Poll::Ready(Err(Error::new(Reason::Limit))),
            Entry::Wait(ticket) => {
                let wait = ticket.longest().unwrap_or(Duration::MAX).min(limiter.max_wait());
                let until = deadline.map_or(now + wait, |deadline| deadline.min(now + wait));
                context::wake_at(until);
                self.0 = Some(Wait { ticket, since: now, until });
                Poll::Pending
            }
        }
    }

    #[cold]
    fn wait(
        &mut self,
        limiter: &Arc<Limiter>,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Place, Error>> {
        let Some(waiting) = &mut self.0 else { return Poll::Pending };
        // At its deadline a turn comes too late; at the end of the wait it is still welcome.
        let now = context::now();
        let late = deadline.is_some_and(|deadline| deadline <= now);
        let turn = if late { Poll::Pending } else { waiting.ticket.poll_turn(cx) };
        match turn {
            Poll::Ready(permit) => {
                self.0 = None;
                Poll::Ready(Ok(limiter.place(permit)))
            }
            Poll::Pending if late || now >= waiting.until || waiting.ticket.is_evicted() => {
                let lasted = now.saturating_duration_since(waiting.since);
                Poll::Ready(Err(Error::new(Reason::Limit).with_lasted(lasted)))
            }
            Poll::Pending => {
                context::wake_at(waiting.until);
                Poll::Pending
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
}

/// Being in. Dropping it without a word means that the request was given up.
#[derive(Debug)]
pub(crate) struct Place {
    permit: Permit,
    /// Where somebody wants to know how long it takes: since when, as far as that is not told.
    timed: Option<(Arc<Limiter>, Instant)>,
    /// Whether what counts of it is known.
    shown: bool,
}

impl Place {
    /// The request has ended, or its head is there: what counts of it is known. `timed_out` if the limit of an attempt cut
    /// it off. The place itself is kept until this is dropped.
    #[inline]
    pub(crate) fn show(&mut self, verdict: Verdict, timed_out: bool) {
        if self.timed.is_some() && !std::mem::replace(&mut self.shown, true) {
            self.tell(Some((verdict, timed_out)));
        }
    }

    /// All of it is told: nothing is left for when it is dropped.
    #[inline]
    pub(crate) fn over(mut self) {
        self.timed = None;
    }

    fn tell(&mut self, shown: Option<(Verdict, bool)>) {
        let Some((limiter, began)) = &mut self.timed else { return };
        let now = context::now();
        let lasted = now.saturating_duration_since(std::mem::replace(began, now));
        limiter.meter.held(lasted);
        let shown = match shown {
            Some((_, true)) => Shown::Dropped,
            Some((verdict, false)) => match verdict.class() {
                Class::Success => Shown::Took(lasted),
                Class::BackOff => Shown::Dropped,
                Class::Failure | Class::Inconclusive => Shown::Nothing,
            },
            // A server that answers nobody any more must not look idle.
            None if limiter.meter.is_long(lasted) => Shown::GivenUp(lasted),
            None => Shown::Nothing,
        };
        let since = crate::estimate::slices::nanos_since(limiter.epoch, now);
        let in_flight = self.permit.gate().in_flight();
        limiter.meter.count(shown, in_flight, since, |limit| limiter.gate.set_limit(limit));
    }
}

impl Drop for Place {
    #[inline]
    fn drop(&mut self) {
        let Some((limiter, began)) = &self.timed else { return };
        if self.shown {
            // What it was held for a body.
            limiter.meter.held(context::now().saturating_duration_since(*began));
        } else {
            self.tell(None);
        }
    }
}
