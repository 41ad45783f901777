//! A time in which a breaker does not change its mind: its number, what calls are counted in, and by which rules.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BreakerOptions, Trip,
    window::{Counted, Held},
};
use crate::{
    Ratio,
    sync::{AtomicU32, Ordering::SeqCst},
};

const BILLION: u64 = 1_000_000_000;

/// Options as they are asked with every call.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) options: BreakerOptions,
    /// When nothing opens the breaker yet.
    warm: Instant,
    /// In billionths and whole numbers: 7 % of 100 are 7.
    failure_rate: Option<u64>,
    slow_rate: Option<u64>,
}

fn billionths(rate: Option<Ratio>) -> Option<u64> {
    rate.map(|rate| (rate.get() * BILLION as f64).round() as u64)
}

impl Rules {
    pub(super) fn new(options: BreakerOptions, epoch: Instant) -> Self {
        Self {
            warm: epoch + options.warm_up,
            failure_rate: billionths(options.failure_rate),
            slow_rate: billionths(options.slow_rate),
            options,
        }
    }

    pub(super) fn window(&self, epoch: Instant) -> Arc<Counted> {
        Arc::new(Counted::new(self.options.window, self.slow_rate.is_some(), epoch))
    }

    /// Whether calls are counted by `other` as they are by these.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        self.options.window == other.options.window && self.slow_rate.is_some() == other.slow_rate.is_some()
    }

    /// Whether a call must tell when it begins and ends.
    pub(super) fn is_timed(&self) -> bool {
        self.slow_rate.is_some()
    }

    /// Whether a call that took so long is slow; not asked where nobody wants to know.
    #[inline]
    pub(super) fn is_slow(&self, lasted: impl FnOnce() -> Option<Duration>) -> bool {
        self.is_timed() && lasted().is_some_and(|lasted| lasted > self.options.slow_after)
    }

    /// Whether enough calls are held for a rate to count.
    pub(super) fn is_enough(&self, held: Held) -> bool {
        held.calls >= u64::from(self.options.min_calls)
    }

    /// The rule that `held` breaks.
    #[inline]
    fn broken(&self, held: Held) -> Option<Trip> {
        if held.failures | held.slow == 0 || !self.is_enough(held) {
            return None;
        }
        let reaches = |rate: Option<u64>, count: u64| {
            // A window holds less than 2^32 calls; nothing is never too much of nothing.
            rate.is_some_and(|rate| count > 0 && count * BILLION >= rate * held.calls)
        };
        if reaches(self.failure_rate, held.failures) {
            return Some(Trip::FailureRate { failures: held.failures, calls: held.calls });
        }
        reaches(self.slow_rate, held.slow).then_some(Trip::SlowRate { slow: held.slow, calls: held.calls })
    }
}

/// One period. A call that is counted in a period that is over changes nothing: nobody looks at it any more.
#[derive(Debug)]
pub(super) struct Period {
    pub(super) generation: u64,
    pub(super) rules: Arc<Rules>,
    pub(super) counted: Arc<Counted>,
    pub(super) in_a_row: Arc<AtomicU32>,
}

impl Period {
    /// Counts a call, once it is warm; the rule that is broken then.
    #[inline]
    pub(super) fn add(&self, failed: bool, slow: bool, now: impl Fn() -> Instant) -> Option<Trip> {
        // What is held of the warm-up would open it afterwards.
        if !self.is_warm(&now) {
            return None;
        }
        let in_a_row = if failed {
            self.in_a_row.fetch_add(1, SeqCst).saturating_add(1)
        } else {
            if self.in_a_row.load(SeqCst) != 0 {
                self.in_a_row.store(0, SeqCst);
            }
            0
        };
        let broken = match &*self.counted {
            Counted::Calls(calls) => self.rules.broken(calls.add(failed, slow)),
            Counted::Time(time) => match time.add(now(), failed, slow) {
                None => None,
                Some((held, number)) => {
                    let broken = self.rules.broken(held);
                    if broken.is_none() && self.rules.is_enough(held) {
                        time.is_calm(number);
                    }
                    broken
                }
            },
        };
        let consecutive = || {
            let enough = failed && self.rules.options.consecutive.is_some_and(|most| in_a_row >= most);
            enough.then_some(Trip::Consecutive { failures: in_a_row })
        };
        broken.or_else(consecutive)
    }

    #[inline]
    fn is_warm(&self, now: impl Fn() -> Instant) -> bool {
        self.rules.options.warm_up.is_zero() || now() >= self.rules.warm
    }

    /// The same options with an empty window.
    pub(super) fn emptied(&self, generation: u64, epoch: Instant) -> Self {
        Self {
            generation,
            rules: self.rules.clone(),
            counted: self.rules.window(epoch),
            in_a_row: Arc::default(),
        }
    }

    /// Another number for the same: nobody counts in it.
    pub(super) fn renumbered(&self, generation: u64) -> Self {
        Self {
            generation,
            rules: self.rules.clone(),
            counted: self.counted.clone(),
            in_a_row: self.in_a_row.clone(),
        }
    }

    /// Other rules from now on. Counts that cannot be cut anew are forgotten.
    pub(super) fn ruled(&self, rules: Rules, epoch: Instant) -> Self {
        let counted = if self.rules.counts_as(&rules) { self.counted.clone() } else { rules.window(epoch) };
        Self { generation: self.generation, rules: Arc::new(rules), counted, in_a_row: self.in_a_row.clone() }
    }
}
