//! Why an endpoint is out.

use std::{fmt, time::Duration};

/// Which rule found that an endpoint must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trip {
    /// So many failures in a row that the endpoint counts as unavailable.
    Consecutive,
    /// Too many among the last attempts.
    Count,
    /// Too low a success rate over the window.
    Rate,
    /// It fails more than the others do: a judgement of [`outlier`](super::outlier).
    SuccessRate(Share),
    /// It fails more than an endpoint may, whatever the others do: a judgement of [`outlier`](super::outlier).
    FailureShare(Share),
    /// It takes longer than the others do: a judgement of [`outlier`](super::outlier).
    Latency(Slowness),
    /// Another client of this process finds it dead, and a request of this one has not shown otherwise.
    Hearsay,
    /// Active checks of it failed, and no request succeeded meanwhile.
    Check,
    /// Somebody said so.
    ByHand,
}

impl Trip {
    /// Whether this is a judgement, which the cap of ejected endpoints holds for; if not, the endpoint is unavailable by
    /// what it shows, or somebody said so.
    pub fn is_judgement(&self) -> bool {
        !matches!(self, Self::Consecutive | Self::ByHand)
    }

    /// Whether the endpoint was compared with others, or with what any may do.
    pub fn is_outlier(&self) -> bool {
        matches!(self, Self::SuccessRate(_) | Self::FailureShare(_) | Self::Latency(_))
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive => f.write_str("too many failures in a row"),
            Self::Count => f.write_str("too many failures among the last attempts"),
            Self::Rate => f.write_str("success rate too low"),
            Self::SuccessRate(share) => write!(f, "{share} because of what the others do"),
            Self::FailureShare(share) => write!(f, "{share} for any endpoint"),
            Self::Latency(slowness) => slowness.fmt(f),
            Self::Hearsay => f.write_str("another client finds it dead, and so did a request"),
            Self::Check => f.write_str("checks fail, and no request succeeded meanwhile"),
            Self::ByHand => f.write_str("by hand"),
        }
    }
}

/// How many of an endpoint's requests failed, and how many would have been too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    failures: u32,
    requests: u32,
    /// In millionths.
    limit: u32,
}

impl Share {
    pub(super) fn new(failures: u64, requests: u64, limit: f64) -> Self {
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            failures: count(failures),
            requests: count(requests),
            limit: (limit.clamp(0.0, 1.0) * 1e6).round() as u32,
        }
    }

    /// The requests that failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Of so many.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// The share of failures, from 0 to 1, that was compared with.
    pub fn limit(&self) -> f64 {
        f64::from(self.limit) / 1e6
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, requests, .. } = self;
        let share = 100.0 * f64::from(*failures) / f64::from((*requests).max(1));
        write!(
            f,
            "{failures} of {requests} failed ({share:.1} %), {:.1} % is the limit",
            self.limit() * 100.0
        )
    }
}

/// How long an endpoint takes, and how long would have been too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slowness {
    /// In microseconds; more than 71 minutes count as that.
    median: u32,
    limit: u32,
}

impl Slowness {
    pub(super) fn new(median: Duration, limit: Duration) -> Self {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self { median: micros(median), limit: micros(limit) }
    }

    /// Its median latency.
    pub fn median(&self) -> Duration {
        Duration::from_micros(u64::from(self.median))
    }

    /// The median latency that was compared with.
    pub fn limit(&self) -> Duration {
        Duration::from_micros(u64::from(self.limit))
    }
}

impl fmt::Display for Slowness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "median latency of {:?}, {:?} is the limit because of what the others do",
            self.median(),
            self.limit()
        )
    }
}
