//! Attempt limits that go by more than a number.

use std::time::{Duration, Instant};

use crate::{
    context,
    estimate::{Counts, Memo, Recent, Survival},
    invalid::{Check, Ratio},
    sync::{Padded, stripe, stripes},
};

/// How long an attempt may take, within a limit that is the most: the
/// [`attempt_limit`](crate::balance::BalanceOptions::attempt_limit) of a client, or that of an
/// [`AttemptLimitLayer`](super::AttemptLimitLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum AttemptFit {
    /// Just that, or what is left of the deadline.
    #[default]
    Fixed,
    /// So many times a percentile of what attempts of this client took in the last minute, and not less than `least`;
    /// the most while fewer than 100 were answered, or more than the percentile leaves out were cut off.
    ///
    /// A tenth of the endpoints that hang are a tenth of the attempts that are cut off: the percentile has to leave out
    /// more than what is to be cut. When everything slows down at once beyond the limit, requests are cut off until so
    /// many of the last minute were that the percentile cannot be told, which may take half a minute; then the limit goes
    /// back to the most by itself. A layer takes every `Ok` for an answer unless one further in, such as a balancer, has judged
    /// it: fast failures would make it short.
    Latency {
        /// Which share of the attempts is shorter \[50 %\].
        percentile: Ratio,
        /// How many times as long an attempt may take \[10, at least 1\].
        times: f64,
        /// The shortest limit \[10 ms\].
        least: Duration,
    },
    /// An equal share of what is left of the deadline, for this attempt and each of those that may follow it: with 900 ms
    /// and three attempts, 300 ms. The last one, and one that must not be repeated, gets what is left. (A budget that is
    /// spent refuses the next attempt only when this one has been cut off.)
    Share {
        /// The shortest limit \[10 ms\].
        least: Duration,
    },
}

/// Fewer answers than this say too little about a percentile.
const ENOUGH: u64 = 100;

impl AttemptFit {
    /// Ten times the median, at least 10 ms.
    pub fn latency() -> Self {
        Self::Latency { percentile: Ratio::percent::<50>(), times: 10.0, least: Duration::from_millis(10) }
    }

    /// A share of what is left, at least 10 ms.
    pub fn share() -> Self {
        Self::Share { least: Duration::from_millis(10) }
    }

    pub(crate) fn check(self, most: Option<Duration>, check: &mut Check) {
        let least = match self {
            Self::Fixed => return,
            Self::Share { least } => least,
            Self::Latency { percentile, times, least } => {
                let share = percentile.get();
                check.rule(
                    share > 0.0 && share < 1.0,
                    "percentile",
                    percentile,
                    "more than 0 and less than 100 %",
                );
                check.rule((1.0..=1e6).contains(&times), "times", times, "1 to 1,000,000");
                least
            }
        };
        check.duration("least", least);
        if let Some(most) = most {
            check.rule(least <= most, "least", least, format!("at most attempt_limit ({most:?})"));
        }
    }

    /// When an attempt that began at `began` has to end, as far as this says. `latency` is asked for a percentile.
    pub(crate) fn expires(
        self,
        began: Instant,
        latency: impl FnOnce(f64) -> Option<Duration>,
    ) -> Option<Instant> {
        match self {
            Self::Fixed => None,
            Self::Latency { percentile, times, least } => {
                let limit = Duration::try_from_secs_f64(latency(percentile.get())?.as_secs_f64() * times);
                began.checked_add(limit.ok()?.max(least))
            }
            Self::Share { least } => {
                let more = context::attempts_left();
                let deadline = context::deadline().filter(|_| more > 0)?;
                let share = deadline.saturating_duration_since(began) / (more + 1);
                began.checked_add(share.max(least))
            }
        }
    }

    /// The percentile in microseconds, if enough is known of it.
    pub(crate) fn latency_of(latencies: Survival<'_>, share: f64) -> Option<u64> {
        let latency = if latencies.ended() < ENOUGH { None } else { latencies.quantile(share) };
        latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))
    }
}

/// What the attempts of a layer took, and how long those had lasted that were cut off or failed.
#[derive(Debug)]
pub(super) struct Measured {
    epoch: Instant,
    stripes: Box<[Padded<(Recent, Recent)>]>,
    /// The percentile, in us.
    taken: Memo,
}

impl Measured {
    pub(super) fn new(epoch: Instant) -> Self {
        let recent = || Recent::new(epoch, Recent::PERIOD);
        let stripes = (0..stripes()).map(|_| Padded((recent(), recent()))).collect();
        Self { epoch, stripes, taken: Memo::default() }
    }

    pub(super) fn note(&self, now: Instant, took: Duration, answered: bool) {
        let (ended, cut) = &self.stripes[stripe() & (self.stripes.len() - 1)].0;
        if answered { ended } else { cut }.record(now, took);
    }

    pub(super) fn latency(&self, now: Instant, share: f64) -> Option<Duration> {
        let micros = self.taken.get(self.epoch, now, || {
            let (mut ended, mut cut) = (Counts::default(), Counts::default());
            for stripe in &self.stripes {
                ended.add(&stripe.0.0.counts(now));
                cut.add(&stripe.0.1.counts(now));
            }
            AttemptFit::latency_of(Survival::new(&ended, &cut), share)
        });
        micros.map(Duration::from_micros)
    }
}
