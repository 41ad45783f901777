//! How long an attempt counts: to the head of the response, or to the end of its body.
//!
//! What an attempt holds (its place in the in-flight count, its permits) is one [`Guard`]. A [`Track`] hangs it on the
//! response: for plain types nowhere, so it ends with the head; for streaming responses in the body, so that it ends
//! when the body does, and can say that the body broke off.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{outcome::Verdict, report::Report};

/// What learns how the rest of an attempt went.
pub(crate) trait Ends: Send + Sync {
    /// The attempt is over; `worse` is the verdict of its end where that is worse than the head's.
    fn ended(self: Arc<Self>, head: Verdict, end: Option<Verdict>);

    /// The same, of an attempt of this generation of the endpoint's health.
    fn ended_in(self: Arc<Self>, generation: u32, head: Verdict, end: Option<Verdict>) {
        let _ = generation;
        self.ended(head, end);
    }

    /// Whether it goes by what servers say of their load.
    fn wants_report(&self) -> bool {
        false
    }

    /// The server has said this of its load.
    fn reported(&self, report: Report) {
        let _ = report;
    }

    /// The endpoint that it is about, if it is about one.
    fn endpoint(&self) -> Option<&Arc<str>> {
        None
    }
}

/// How long the body of a response may take, for a [`Track`] that can cut it off. The default is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyLimits {
    /// How long its reader may wait for more of it at a time. The time that a reader takes between two reads does not
    /// count.
    pub idle: Option<Duration>,
    /// When all of it must have been read.
    pub until: Option<Instant>,
}

impl BodyLimits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The nearer of both.
    fn and(self, other: Self) -> Self {
        Self {
            idle: self.idle.into_iter().chain(other.idle).min(),
            until: self.until.into_iter().chain(other.until).min(),
        }
    }
}

/// What an attempt holds once its head has arrived; dropping it ends the attempt.
///
/// The head's verdict stands unless [`end`](Guard::end) tells a worse one. A guard dropped without a word means that
/// the caller lost interest: a good head stays good, and a provisional one becomes inconclusive.
pub struct Guard {
    of: Option<Arc<dyn Ends>>,
    head: Verdict,
    generation: u32,
    limits: BodyLimits,
    /// What else ends with it.
    other: Option<Box<Self>>,
}

impl Guard {
    pub(crate) fn new(of: Arc<dyn Ends>, head: Verdict) -> Self {
        Self { of: Some(of), head, generation: 0, limits: BodyLimits::default(), other: None }
    }

    /// One guard that ends both: for a [`Track`] whose response has a guard already, of a layer further in.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let other = match self.other.take() {
            Some(more) => other.and(*more),
            None => other,
        };
        self.limits = self.limits.and(other.limits);
        self.other = Some(Box::new(other));
        self
    }

    /// The same of an attempt of this generation of the endpoint's health.
    pub(crate) fn in_generation(mut self, generation: u32) -> Self {
        self.generation = generation;
        self
    }

    /// The same of an attempt whose body has these limits.
    pub(crate) fn within(mut self, limits: BodyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long the body may take. Nothing but a [`Track`] holds it to that.
    pub fn limits(&self) -> BodyLimits {
        self.limits
    }

    /// The endpoint that answers, by its name in errors and metrics.
    pub fn endpoint(&self) -> Option<&Arc<str>> {
        let own = self.of.as_ref().and_then(|of| of.endpoint());
        own.or_else(|| self.other.as_ref().and_then(|other| other.endpoint()))
    }

    /// Whether somebody goes by what the server says of its load: else it need not be read.
    pub fn wants_report(&self) -> bool {
        self.of.as_ref().is_some_and(|of| of.wants_report())
            || self.other.as_ref().is_some_and(|other| other.wants_report())
    }

    /// Hands on what the server says of its load after the head.
    pub fn report(&self, report: Report) {
        if let Some(of) = &self.of {
            of.reported(report);
        }
        if let Some(other) = &self.other {
            other.report(report);
        }
    }

    /// The verdict at the head.
    pub fn head(&self) -> Verdict {
        self.head
    }

    /// Ends the attempt with the verdict that its end gives. It can only be worse than the head's, unless that one was
    /// provisional.
    pub fn end(mut self, verdict: Verdict) {
        if let Some(other) = self.other.take() {
            other.end(verdict);
        }
        if let Some(of) = self.of.take() {
            let worse = self.head.is_provisional() || verdict.badness() > self.head.badness();
            of.ended_in(self.generation, self.head, worse.then_some(verdict));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            let end = self.head.is_provisional().then(Verdict::inconclusive);
            of.ended_in(self.generation, self.head, end);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Hangs the guard of an attempt on its response.
pub trait Track<Res>: Send + Sync + 'static {
    /// Puts `guard` into `response`, or drops it if the attempt ends with the head.
    fn track(&self, response: &mut Res, guard: Guard);
}

/// The attempt ends with the head: for responses that are complete when they arrive.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtHead;

impl<Res> Track<Res> for AtHead {
    #[inline]
    fn track(&self, _: &mut Res, guard: Guard) {
        drop(guard);
    }
}
