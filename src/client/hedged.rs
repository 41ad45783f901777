//! The first attempt of a client's request, and those beside it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tower::{BoxError, Service};

use super::{
    attempt::Guarded,
    service::{ClientEnv, Core},
};
use crate::{
    breaker::State,
    budget::Entered,
    context::{self, Call},
    estimate::{Recent, Survival},
    hedge::{Arm, Course, Due, Paid, Race, Seen, Trigger},
    outcome::{Sent, Verdict},
    retry::{Env as _, Underway, stamp, unjudged},
    telemetry::{Counter, Event},
};

/// The attempts beside the first.
pub(super) type Beside<S, Req> = Race<Guarded<S, Req>, <S as Service<Req>>::Response>;

/// Polls attempts that may be several. Out of the way of those that may not.
#[inline(never)]
pub(super) fn race<S, Req>(
    env: &mut ClientEnv<S, Req>,
    first: Pin<&mut Option<Guarded<S, Req>>>,
    request: Underway<'_, Req, Beside<S, Req>>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, BoxError>>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let Underway { call, copy, idempotent, beside, entered } = request;
    let mut run = Run { env, copy, idempotent, entered };
    beside.poll(first, call, &mut run, cx)
}

struct Run<'a, S, Req>
where
    S: Service<Req>,
{
    env: &'a ClientEnv<S, Req>,
    copy: &'a mut Option<Req>,
    idempotent: bool,
    entered: &'a mut Option<Box<Entered>>,
}

impl<S, Req> Run<'_, S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// Whether the client is at ease: nobody waits, nothing is turned away, no breaker has doubts.
    fn has_room(&self, now: Instant) -> bool {
        let core = self.env.core();
        let closed = [core.breaker(), self.env.method.as_ref()];
        core.balance.fleet().waiters.waiting() == 0
            && core.limiter().is_none_or(|limiter| limiter.status().waiting == 0)
            && core.throttle().is_none_or(|throttle| throttle.probability(now) <= 0.0)
            && closed.into_iter().flatten().all(|breaker| breaker.state() == State::Closed)
    }
}

impl<S, Req> Course for Run<'_, S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Attempt = Guarded<S, Req>;

    fn arm(&mut self, call: &Call, now: Instant) -> Arm {
        // While a probe is out its endpoint is being judged by it alone.
        if !self.idempotent || self.copy.is_none() || call.probe {
            return Arm::Never;
        }
        if call.is_untried() {
            // In a line, or waiting for an endpoint: that another attempt would do as well.
            return Arm::NotYet;
        }
        let Some(pace) = self.env.pace() else { return Arm::Never };
        pace.waited_for(now);
        self.every(now).map_or(Arm::Never, Arm::After)
    }

    fn every(&mut self, now: Instant) -> Option<Duration> {
        let core = self.env.core();
        match core.due(self.env.pace()?, now) {
            Due::After(delay) => Some(delay),
            Due::Unknown | Due::NoRoom => None,
        }
    }

    fn most(&self) -> u32 {
        self.env.pace().map_or(1, |pace| pace.max_attempts())
    }

    fn affords(&self, at: Instant, now: Instant) -> bool {
        let Some(deadline) = context::deadline() else { return true };
        deadline.saturating_duration_since(at) > self.env.fastest(now).unwrap_or_default()
    }

    fn another(&mut self, number: u32, why: Trigger, now: Instant) -> Option<(Self::Attempt, Paid)> {
        let core = self.env.core();
        if !self.has_room(now) {
            return None;
        }
        let pace = self.env.pace()?;
        let share = if why == Trigger::Time { pace.withdraw(now)? } else { None };
        let paid = Paid { share, budget: core.parts.budget.withdraw(now)? };
        // A copy that cannot be copied any more may have lost a part of its body.
        let mut request = self.copy.take()?;
        *self.copy = Some(core.parts.describe.copy(&mut request)?);
        stamp(&core.parts, &mut request, number);
        Some((self.env.attempt(request), paid))
    }

    fn verdict(&self, call: &Call, result: &Result<S::Response, BoxError>) -> Verdict {
        call.verdict.unwrap_or_else(|| unjudged(&self.env.core().parts, result))
    }

    fn failed(&self, verdict: Verdict) {
        if verdict.was_sent() == Sent::Maybe {
            self.env.core().parts.budget.fail();
        }
    }

    fn spend(&mut self, paid: Paid) {
        paid.spend_on(self.entered);
        self.env.core().parts.tally.count(Counter::Hedges);
    }

    fn withheld(&self) {
        self.env.core().parts.tally.count(Counter::HedgesWithheld);
    }

    fn won(&self) {
        self.env.core().parts.tally.count(Counter::HedgesWon);
    }
}

impl<S, Req> Core<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// When the next attempt is due after one that is under way.
    fn due(&self, pace: &crate::hedge::Pace, now: Instant) -> Due {
        let fleet = self.balance.fleet();
        let look = |decide: &dyn Fn(Seen<'_>) -> Due| {
            let (ended, cut) = (fleet.latencies(now), fleet.cuts(now));
            let over = Recent::covered(now.saturating_duration_since(fleet.epoch));
            decide(Seen { latencies: Survival::new(&ended, &cut), over, capacity: self.capacity() })
        };
        pace.due(now, look, |due| {
            self.balance.fleet().tell(&match due {
                Due::NoRoom => Event::HedgingPaused,
                Due::After(_) | Due::Unknown => Event::HedgingResumed,
            });
        })
    }

    /// Which part of the attempts that may be under way at a time is so now, where that is known.
    pub(super) fn utilisation(&self, now: Instant) -> Option<f64> {
        let own = self.limiter().map(|limiter| {
            let status = limiter.status();
            f64::from(status.in_flight) / f64::from(status.limit.max(1))
        });
        let all = self.balance.utilisation(now);
        own.into_iter().chain(all).reduce(f64::max)
    }

    /// How many attempts may be under way at a time, where that is known.
    fn capacity(&self) -> Option<f64> {
        let fleet = self.balance.fleet();
        let each = fleet.options.load().max_in_flight;
        let (_, available) = fleet.ledger.available();
        let own = self.limiter().map(|limiter| f64::from(limiter.status().limit));
        let all = each.map(|each| f64::from(each) * available as f64);
        match (own, all) {
            (Some(own), Some(all)) => Some(own.min(all)),
            (own, all) => own.or(all),
        }
    }
}
