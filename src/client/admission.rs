//! What lets a request of a client in, before its first attempt: a rate, and a throttle.

use std::{
    sync::Arc,
    task::{Poll, ready},
};

use crate::{
    clock, context,
    describe::Criticality,
    error::{Error, Reason},
    limit::{
        rate::{Gcra, RateLimitOptions, Taken, Terms},
        throttle::{Answer, Throttle},
    },
    outcome::Verdict,
    random::Random,
};

/// The rate of a client.
pub(super) struct Rate {
    limit: Arc<Gcra>,
    terms: Terms,
}

impl Rate {
    pub(super) fn new(options: &RateLimitOptions) -> Self {
        Self { limit: Arc::new(Gcra::new(options, clock::now())), terms: Terms::new(options) }
    }

    pub(super) fn set(&self, options: &RateLimitOptions) {
        self.terms.set(options, || self.limit.set(options, clock::now()));
    }

    /// How many requests would be let in now if nobody else came.
    pub(super) fn available(&self) -> u32 {
        self.limit.available(clock::now())
    }
}

/// One request on its way in, and what is to be told when it ends.
pub(super) struct Admission {
    rate: Option<Arc<Rate>>,
    throttle: Option<Arc<Throttle>>,
    taken: Option<Taken>,
    is_in: bool,
}

impl Admission {
    pub(super) fn new(rate: Option<Arc<Rate>>, throttle: Option<Arc<Throttle>>) -> Self {
        Self { rate, throttle, taken: None, is_in: false }
    }

    /// Ready when the request is in, or why it is not. The throttle is asked first: what it refuses takes nothing of the rate.
    pub(super) fn poll(
        &mut self,
        class: impl FnOnce() -> Criticality,
        random: &dyn Random,
    ) -> Poll<Result<(), Error>> {
        if self.is_in {
            return Poll::Ready(Ok(()));
        }
        let class = class();
        if let (None, Some(throttle)) = (&self.taken, &self.throttle)
            && !throttle.admit(context::now(), class, random)
        {
            self.throttle = None;
            return Poll::Ready(Err(Error::new(Reason::Throttled)));
        }
        if let Some(rate) = &self.rate {
            ready!(rate.terms.poll_turn(|_| (rate.limit.clone(), 1), &mut self.taken, || class))?;
        }
        self.is_in = true;
        Poll::Ready(Ok(()))
    }

    /// The request has ended with this verdict on its last attempt, if there was one.
    pub(super) fn ended(self, verdict: Option<Verdict>, timed_out: bool) {
        let answer = verdict.and_then(|verdict| Answer::of(verdict, timed_out));
        if let (Some(throttle), Some(answer)) = (&self.throttle, answer) {
            throttle.ended(context::now(), answer);
        }
    }
}
