//! How long a breaker stays open.

use std::{fmt, sync::Arc, time::Duration};

use super::Trip;
use crate::{
    backoff::Backoff,
    invalid::{Check, FOREVER},
    random::Random,
};

/// What a function that gives the open time is told.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Opening {
    /// How often it has gone from half-open back to open since it was last closed: 0 for the first opening.
    pub attempt: u32,
    /// Why it opens.
    pub why: Trip,
    /// How long it was open the last time, 0 for the first opening since it was closed.
    pub previous: Duration,
}

/// How long a breaker stays open: fixed, growing, or as a function says.
#[derive(Clone)]
pub struct OpenTime(Source);

#[derive(Clone)]
enum Source {
    Backoff(Backoff),
    Function(Arc<dyn Fn(&Opening) -> Duration + Send + Sync>),
}

impl OpenTime {
    /// Always `time`.
    pub const fn fixed(time: Duration) -> Self {
        Self(Source::Backoff(Backoff::fixed(time)))
    }

    /// By a backoff: its first wait for the first opening, the next ones for each that follows without a close in between.
    pub const fn growing(backoff: Backoff) -> Self {
        Self(Source::Backoff(backoff))
    }

    /// What `function` says, at most 10 years. It is called under the breaker's lock: it must not block, and must not call
    /// the breaker.
    pub fn function(function: impl Fn(&Opening) -> Duration + Send + Sync + 'static) -> Self {
        Self(Source::Function(Arc::new(function)))
    }

    pub(super) fn of(&self, opening: &Opening, random: &dyn Random) -> Duration {
        match &self.0 {
            Source::Backoff(backoff) => {
                backoff.delay(opening.attempt.saturating_add(1), opening.previous, random)
            }
            Source::Function(function) => function(opening).min(FOREVER),
        }
    }

    pub(super) fn check(&self, check: &mut Check) {
        if let Source::Backoff(backoff) = &self.0 {
            backoff.check(check);
            check.rule(!backoff.longest().is_zero(), "cap", backoff.longest(), "more than 0");
        }
    }
}

impl Default for OpenTime {
    fn default() -> Self {
        Self::fixed(Duration::from_secs(5))
    }
}

impl From<Duration> for OpenTime {
    fn from(time: Duration) -> Self {
        Self::fixed(time)
    }
}

impl From<Backoff> for OpenTime {
    fn from(backoff: Backoff) -> Self {
        Self::growing(backoff)
    }
}

impl PartialEq for OpenTime {
    /// Functions are equal to their own clones only.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Backoff(own), Source::Backoff(other)) => own == other,
            (Source::Function(own), Source::Function(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl fmt::Debug for OpenTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Backoff(backoff) if *backoff == Backoff::fixed(backoff.longest()) => {
                fmt::Debug::fmt(&backoff.longest(), f)
            }
            Source::Backoff(backoff) => fmt::Debug::fmt(backoff, f),
            Source::Function(_) => f.write_str("a function"),
        }
    }
}
