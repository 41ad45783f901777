//! What a breaker says of itself.

use std::{error::Error as StdError, fmt, time::Duration};

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Every call passes, and is counted.
    #[default]
    Closed,
    /// Every call is refused until its time is over.
    Open,
    /// A few calls pass, and decide; the others are refused.
    HalfOpen,
    /// Every call is refused until somebody says otherwise.
    ForcedOpen,
    /// Every call passes, and nothing is counted.
    Disabled,
    /// Every call passes and is counted; what would open the breaker is only told.
    MetricsOnly,
}

impl State {
    /// A word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

/// Why a breaker opened: the cause of its refusals, found in the chain of their error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trip {
    /// Too many of the calls in the window failed.
    FailureRate {
        /// How many.
        failures: u64,
        /// Of how many.
        calls: u64,
    },
    /// Too many of the calls in the window were slow.
    SlowRate {
        /// How many.
        slow: u64,
        /// Of how many.
        calls: u64,
    },
    /// Too many calls in a row failed.
    Consecutive {
        /// How many.
        failures: u32,
    },
    /// An answer asked to be left alone.
    Asked {
        /// For how long.
        time: Duration,
    },
    /// The calls that half-open let through failed.
    Probes {
        /// How many.
        failures: u32,
    },
    /// The calls that half-open let through did not end in time.
    Lapsed,
    /// Somebody opened it by hand.
    ByHand,
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureRate { failures, calls } => write!(f, "{failures} of {calls} calls failed"),
            Self::SlowRate { slow, calls } => write!(f, "{slow} of {calls} calls were slow"),
            Self::Consecutive { failures } => write!(f, "{failures} calls in a row failed"),
            Self::Asked { time } => write!(f, "an answer asked to be left alone for {time:?}"),
            Self::Probes { failures } => write!(f, "{failures} probes failed"),
            Self::Lapsed => f.write_str("the probes did not end in time"),
            Self::ByHand => f.write_str("it was opened by hand"),
        }
    }
}

impl StdError for Trip {}

/// A change of a breaker that is worth telling. Changes are numbered in the order in which they happened, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// 0 for the first change.
    pub number: u64,
    /// What happened.
    pub what: Moved,
}

/// What happened to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moved {
    /// It opened.
    Opened {
        /// Why.
        why: Trip,
        /// For how long.
        lasts: Duration,
    },
    /// Its time is over, and a few calls decide.
    HalfOpened,
    /// It closed, with an empty window.
    Closed {
        /// Whether somebody closed it by hand; if not, its probes did.
        by_hand: bool,
    },
    /// Somebody put it into this state.
    Forced(State),
    /// A rule was broken while it only measures.
    Exceeded(Trip),
}

/// Why a call was refused, and what is known of the end of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Open, half-open with all its probes out, or forced open.
    pub state: State,
    /// How long it remains open. Nobody knows it of half-open and forced open.
    pub remaining: Option<Duration>,
    /// How long calls have been refused.
    pub lasted: Duration,
    /// Why it opened.
    pub why: Trip,
}

/// What a breaker knows, of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// What it does with calls.
    pub state: State,
    /// For how long it has been in that state.
    pub lasted: Duration,
    /// How long it remains open, if it is.
    pub remaining: Option<Duration>,
    /// Why it opened the last time, until it is closed.
    pub why: Option<Trip>,
    /// Calls in the window. While it is open, and half-open, the window stays as it was when it opened.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow.
    pub slow: u64,
    /// The share that failed; `None` under [`min_calls`](super::BreakerOptions::min_calls).
    pub failure_rate: Option<f64>,
    /// The share that was slow; `None` under [`min_calls`](super::BreakerOptions::min_calls), or if nobody asks.
    pub slow_rate: Option<f64>,
    /// Failures in a row, up to now.
    pub consecutive: u32,
    /// Probes that are out.
    pub probing: u32,
    /// Calls it has refused since it was made.
    pub refused: u64,
    /// How often it has opened since it was made.
    pub opened: u64,
    /// Calls that ended when the state in which they began was over. They count for nothing else.
    pub late: u64,
}
