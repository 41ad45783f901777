//! What decides how many may be in flight: plain types that are told of each round of requests and say a number.
//!
//! A [`Controller`] knows nothing of gates, clocks or threads. A round is some tenths of a second of requests; see
//! [`Round`]. The limits after Netflix's library keep its defaults and formulas.

mod aimd;
mod ebb;
mod gradient2;
#[cfg(all(test, not(mainstay_loom)))]
mod simulation;
mod vegas;

use std::{fmt, time::Duration};

use super::Algorithm;

pub use aimd::{Aimd, AimdOptions};
pub use ebb::{Ebb, EbbOptions};
pub use gradient2::{Gradient2, Gradient2Options};
pub use vegas::{Vegas, VegasOptions};

/// What happened in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Round {
    /// How long it was.
    pub lasted: Duration,
    /// Requests that were answered, and those that were given up after a usual time without an answer.
    pub samples: u64,
    /// Their mean latency; at least what it was, where some were given up.
    pub mean: Duration,
    /// The least of their latencies.
    pub least: Duration,
    /// How many of the samples were given up.
    pub given_up: u64,
    /// Requests that showed overload: refused by the server for load, or cut off by the limit of an attempt.
    pub dropped: u64,
    /// The most that were in flight at a time.
    pub most: u32,
    /// How many were in flight on average.
    pub in_flight: f64,
}

impl Round {
    /// A round of nothing, for tests and simulations to fill.
    pub const fn new(lasted: Duration) -> Self {
        let mean = Duration::ZERO;
        Self { lasted, samples: 0, mean, least: mean, given_up: 0, dropped: 0, most: 0, in_flight: 0.0 }
    }
}

/// How long a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// At least so long, and
    pub least: Duration,
    /// until there are so many samples and drops,
    pub samples: u64,
    /// or until this time, with whatever there is.
    pub most: Duration,
}

impl Pace {
    /// A round lasts at least `least`, until there are `samples`, or until `most` is over.
    pub const fn new(least: Duration, samples: u64, most: Duration) -> Self {
        Self { least, samples, most }
    }
}

/// Decides how many may be in flight.
pub trait Controller: fmt::Debug + Send {
    /// How many may be in flight now; at least 1.
    fn limit(&self) -> u32;

    /// A round is over: how many may be in flight from now on.
    fn round(&mut self, round: &Round) -> u32;

    /// How long the next round should be.
    fn pace(&self) -> Pace;

    /// Goes by the options of `algorithm` from now on and keeps what it has learnt, if they are for one of its kind: `false` if
    /// not, and another takes its place.
    fn retune(&mut self, algorithm: &Algorithm) -> bool {
        let _ = algorithm;
        false
    }
}

/// Netflix's window: a second, of at least 10 samples.
const SECOND: Pace = Pace::new(Duration::from_secs(1), 10, Duration::from_secs(1));
const ENOUGH: u64 = 10;

/// A limit as a number of requests.
fn whole(limit: f64) -> u32 {
    (limit as u32).max(1)
}

fn check_range(check: &mut crate::invalid::Check, initial: u32, least: u32, most: u32) {
    let largest = super::gate::MAX_LIMIT;
    check
        .rule(least >= 1, "least", least, "at least 1")
        .rule((least..=largest).contains(&most), "most", most, "at least `least` and at most 2^31 - 1")
        .rule((least..=most).contains(&initial), "initial", initial, "from `least` to `most`");
}
