//! What the layers may know of a request.
//!
//! Without a description a request is opaque: it cannot be copied and is not idempotent, so it is sent once. A
//! [`Describe`] of the protocol says more; the caller's word for one request or method overrides it.

use std::time::{Duration, Instant};

/// How much a request matters when not everything can be served. Ordered: the least important first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Criticality {
    /// May fail for a long time without anybody noticing.
    Sheddable,
    /// Batch work that will be tried again.
    SheddablePlus,
    /// What users wait for.
    #[default]
    Critical,
    /// What must work for anything else to work.
    CriticalPlus,
}

impl Criticality {
    /// All of them, the least important first.
    pub const ALL: [Self; 4] = [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus];

    /// The word that stands for it on the wire: `sheddable`, `sheddable_plus`, `critical` or `critical_plus`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// What such a word stands for, in whatever case it is written.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name().eq_ignore_ascii_case(name))
    }
}

/// One sending of a request, told to [`Describe::stamp`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sending {
    /// 1 for the first attempt.
    pub attempt: u32,
    now: Instant,
    deadline: Option<Instant>,
    above: bool,
}

impl Sending {
    /// The sending of attempt `attempt` at `now`, within `deadline`.
    pub fn new(attempt: u32, now: Instant, deadline: Option<Instant>) -> Self {
        Self { attempt, now, deadline, above: false }
    }

    /// The same sending, on behalf of work that is itself a retry by somebody above.
    #[must_use]
    pub fn with_retry_above(mut self, above: bool) -> Self {
        self.above = above;
        self
    }

    /// Whether the work is being done again: this is not the first attempt, or it is made on behalf of a retry by somebody
    /// above, as [`Inherited::is_retry`](crate::context::Inherited::is_retry) says. Nobody below takes that for a reason
    /// not to retry: what calls another service keeps its own retries.
    pub fn is_retry(&self) -> bool {
        self.attempt > 1 || self.above
    }

    /// What is left of the total deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(self.now))
    }
}

/// Describes requests of type `Req`.
pub trait Describe<Req>: Send + Sync + 'static {
    /// A copy to send again, if one can be made. It may change how `request` holds its body, never what is sent.
    fn copy(&self, request: &mut Req) -> Option<Req> {
        let _ = request;
        None
    }

    /// Whether processing the request twice does no more than processing it once.
    fn is_idempotent(&self, request: &Req) -> bool {
        let _ = request;
        false
    }

    /// The operation, from a small fixed set: a gRPC method, a route.
    fn operation<'a>(&self, request: &'a Req) -> Option<&'a str> {
        let _ = request;
        None
    }

    /// Requests with the same key go to the same endpoint under a hashing balancer.
    fn hash_key(&self, request: &Req) -> Option<u64> {
        let _ = request;
        None
    }

    /// The endpoint that the request wants, by its address or its registry's instance id, where the balancer lets it choose
    /// (see [`Sticky`](crate::balance::Sticky)). Several are separated by commas: the first that may be used is taken, so
    /// that a retry finds another.
    fn endpoint<'a>(&self, request: &'a Req) -> Option<&'a str> {
        let _ = request;
        None
    }

    /// How much the request matters; without a word the inherited criticality counts.
    fn criticality(&self, request: &Req) -> Option<Criticality> {
        let _ = request;
        None
    }

    /// Writes what the other side should know onto a request that is about to be sent.
    fn stamp(&self, request: &mut Req, sending: &Sending) {
        let _ = (request, sending);
    }
}

/// A key for some bytes: XXH64, the same on every machine. What [`Describe::hash_key`] may be made of.
pub fn key_of(bytes: &[u8]) -> u64 {
    crate::hash::xxh64(bytes, 0)
}

/// Nothing is known: no copy, not idempotent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opaque;

impl<Req> Describe<Req> for Opaque {}

/// Requests that can be cloned and may be processed twice: reads, look-ups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idempotent;

impl<Req: Clone> Describe<Req> for Idempotent {
    fn copy(&self, request: &mut Req) -> Option<Req> {
        Some(request.clone())
    }

    fn is_idempotent(&self, _: &Req) -> bool {
        true
    }
}

/// Requests that can be cloned and must not be processed twice: repeated only when they were never processed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotIdempotent;

impl<Req: Clone> Describe<Req> for NotIdempotent {
    fn copy(&self, request: &mut Req) -> Option<Req> {
        Some(request.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_read_by_the_word_it_is_written_as() {
        for class in Criticality::ALL {
            assert_eq!(Criticality::from_name(class.name()), Some(class));
            assert_eq!(Criticality::from_name(&class.name().to_uppercase()), Some(class));
        }
        assert_eq!(Criticality::from_name("urgent"), None);
    }
}
