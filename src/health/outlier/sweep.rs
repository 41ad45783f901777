//! One comparison of all endpoints.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::Outliers;
use crate::{health::Trip, random::Random};

/// What one endpoint has shown in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Who it is.
    pub id: u64,
    /// Attempts that ended well in the interval.
    pub successes: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Whether it is ejected already.
    pub out: bool,
    /// Its median latency of late, if it is known and the endpoint was available all that time.
    pub latency: Option<Duration>,
    /// Of how many latencies that is the median.
    pub latencies: u64,
}

impl Sample {
    /// Of so many requests to endpoint `id`, which is not ejected, so many failed.
    pub fn new(id: u64, requests: u64, failures: u64) -> Self {
        let successes = requests.saturating_sub(failures);
        Self { id, successes, failures, out: false, latency: None, latencies: 0 }
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.successes + self.failures
    }

    /// The share of them that failed; 0 of nothing.
    pub fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.requests().max(1) as f64
    }

    /// The share that succeeded; 1 of nothing.
    pub fn success_rate(&self) -> f64 {
        if self.requests() == 0 { 1.0 } else { self.successes as f64 / self.requests() as f64 }
    }
}

/// An endpoint that must go, as far as the rules are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Which.
    pub id: u64,
    /// Why, with the numbers.
    pub why: Trip,
    /// For how long, where the rules say that.
    pub lasts: Option<Duration>,
}

/// Outliers that the rules found and let stay: gRPC's `ejections_unenforced`, by reason (gRFC A91).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unenforced {
    /// Their enforcement is a matter of chance, which was in favour.
    pub enforcement_percentage: u32,
    /// Too many were out already.
    pub max_ejection_overflow: u32,
}

/// What rules remember from one comparison to the next: how often each endpoint has gone of late, where their times grow
/// with that.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    pub(super) multipliers: HashMap<u64, u32>,
    /// Who was ejected and has not been seen in since: Envoy does not forgive an endpoint in the sweep that lets it back.
    pub(super) gone: HashSet<u64>,
}

impl Sweep {
    /// Nobody has ever been ejected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares `samples`, one for each endpoint there is, and calls `eject` for each that must go, the worst first where
    /// the rules have an order. It says whether the endpoint goes; others may hold it.
    ///
    /// `chance` is drawn from only where enforcement is a matter of it.
    pub fn run(
        &mut self,
        rules: &Outliers,
        samples: &[Sample],
        chance: &dyn Random,
        eject: &mut dyn FnMut(Verdict) -> bool,
    ) -> Unenforced {
        if !self.multipliers.is_empty() {
            let present: HashSet<u64> = samples.iter().map(|sample| sample.id).collect();
            self.multipliers.retain(|id, _| present.contains(id));
            self.gone.retain(|id| present.contains(id));
        }
        match rules {
            Outliers::Robust(robust) => {
                robust.sweep(samples, eject);
                Unenforced::default()
            }
            Outliers::Grpc(grpc) => grpc.sweep(self, samples, chance, eject),
            Outliers::Envoy(envoy) => envoy.sweep(self, samples, chance, eject),
        }
    }

    /// Forgets everything, as gRPC does when both of its rules are switched off.
    pub fn reset(&mut self) {
        self.multipliers.clear();
        self.gone.clear();
    }

    /// How often `id` has gone and not been forgiven.
    pub fn multiplier(&self, id: u64) -> u32 {
        self.multipliers.get(&id).copied().unwrap_or(0)
    }
}

/// The mean of `values`, and their deviation as of a whole population.
pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Whether chance of so many in a hundred says yes. Hundred and none are certain, and draw nothing.
pub(super) fn enforced(percentage: u32, chance: &dyn Random) -> bool {
    match percentage {
        0 => false,
        100.. => true,
        percentage => crate::random::below(chance.next() as u32, 100) < percentage,
    }
}
