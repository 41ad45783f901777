//! Counters that many threads write without meeting.

use crate::sync::{AtomicU64, Ordering::Relaxed, Padded, stripe, stripes};

/// What is counted for every call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    Successes,
    Failures,
    Cancelled,
    Retries,
    BudgetExhausted,
    /// Attempts sent beside others, those of them that won, and those that were due and not sent.
    Hedges,
    HedgesWon,
    HedgesWithheld,
    /// Responses whose body is tracked, and those whose body is over.
    BodiesBegun,
    BodiesEnded,
    /// Answers that were asked for a report of load, and questions for one.
    Heard,
    Probes,
}

const COUNTERS: usize = 12;

/// A set of counters, one stripe for each thread.
#[derive(Debug)]
pub(crate) struct Tally(Box<[Padded<[AtomicU64; COUNTERS]>]>);

impl Tally {
    pub(crate) fn new() -> Self {
        Self((0..stripes()).map(|_| Padded(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }

    #[inline]
    pub(crate) fn count(&self, counter: Counter) {
        let stripe = &self.0[stripe() & (self.0.len() - 1)].0;
        stripe[counter as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn sum(&self, counter: Counter) -> u64 {
        self.0.iter().map(|stripe| stripe.0[counter as usize].load(Relaxed)).sum()
    }
}
