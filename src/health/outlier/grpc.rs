//! gRPC's rules, by the letter of gRFC A50.

use std::{collections::HashSet, time::Duration};

use super::sweep::{Sample, Sweep, Unenforced, Verdict, enforced, mean_and_deviation};
use crate::{
    health::{Trip, trip::Share},
    invalid::{Check, FOREVER},
    random::Random,
};

/// The `outlier_detection` policy of gRPC ([gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md)): the
/// same fields, the same defaults, the same steps. Percentages are whole numbers, as they are there.
///
/// What is different in a client of ours: an endpoint comes back by a request that proves it, once its time is over, and
/// the cap of [`HealthOptions`](crate::health::HealthOptions) holds too. With both rules unset nothing is compared, and what was
/// ejected by them is let back.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Grpc {
    /// The time between sweeps \[10 s\].
    pub interval: Duration,
    /// The time of a first ejection; it is multiplied by the number of ejections, less one for each sweep in between that
    /// found the endpoint in \[30 s\].
    pub base_ejection_time: Duration,
    /// The longest ejection \[300 s\]; the base where that is longer.
    pub max_ejection_time: Duration,
    /// Once so many in a hundred are ejected no other is \[10\]; the first one always may be.
    pub max_ejection_percent: u32,
    /// The comparison of success rates \[with its defaults\].
    pub success_rate: Option<SuccessRate>,
    /// The limit of failures \[none\].
    pub failure_percentage: Option<FailurePercentage>,
}

/// `success_rate_ejection`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// Thousandths of a standard deviation that a success rate may lie under the mean \[1900\].
    pub stdev_factor: u32,
    /// In how many of a hundred cases what is found is done \[100\].
    pub enforcement_percentage: u32,
    /// With fewer endpoints that had enough requests there is no comparison \[5\].
    pub minimum_hosts: u32,
    /// Enough requests \[100\].
    pub request_volume: u32,
}

/// `failure_percentage_ejection`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// The failures in a hundred requests that are just allowed \[85\].
    pub threshold: u32,
    /// In how many of a hundred cases what is found is done \[100\].
    pub enforcement_percentage: u32,
    /// With fewer endpoints nobody is ejected \[5\].
    pub minimum_hosts: u32,
    /// An endpoint with fewer requests is not looked at \[50\].
    pub request_volume: u32,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            success_rate: Some(SuccessRate::default()),
            failure_percentage: None,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1900, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 100 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 50 }
    }
}

impl Grpc {
    pub(super) fn check(&self, check: &mut Check) {
        check
            .duration("interval", self.interval)
            .duration("base_ejection_time", self.base_ejection_time)
            .rule(
                self.max_ejection_time <= FOREVER,
                "max_ejection_time",
                self.max_ejection_time,
                "at most 10 years",
            );
        percentage(check, "max_ejection_percent", self.max_ejection_percent);
        if let Some(rule) = &self.success_rate {
            percentage(check, "success_rate.enforcement_percentage", rule.enforcement_percentage);
        }
        if let Some(rule) = &self.failure_percentage {
            percentage(check, "failure_percentage.threshold", rule.threshold);
            percentage(check, "failure_percentage.enforcement_percentage", rule.enforcement_percentage);
        }
    }

    pub(super) fn sweep(
        &self,
        state: &mut Sweep,
        samples: &[Sample],
        chance: &dyn Random,
        eject: &mut dyn FnMut(Verdict) -> bool,
    ) -> Unenforced {
        let out = samples.iter().filter(|sample| sample.out).map(|sample| sample.id).collect();
        let mut round = Round {
            grpc: self,
            state,
            addresses: samples.len(),
            out,
            chance,
            eject,
            left: Unenforced::default(),
        };
        if let Some(rule) = &self.success_rate {
            round.success_rate(rule, samples);
        }
        if let Some(rule) = &self.failure_percentage {
            round.failure_percentage(rule, samples);
        }
        let Round { out, left, .. } = round;
        for sample in samples.iter().filter(|sample| !out.contains(&sample.id)) {
            if let Some(multiplier) = state.multipliers.get_mut(&sample.id) {
                *multiplier = multiplier.saturating_sub(1);
            }
        }
        state.multipliers.retain(|_, multiplier| *multiplier > 0);
        left
    }

    /// The time of the ejection that is the `multiplier`th.
    fn time(&self, multiplier: u32) -> Duration {
        let most = self.base_ejection_time.max(self.max_ejection_time);
        self.base_ejection_time.saturating_mul(multiplier).min(most)
    }
}

/// One sweep.
struct Round<'a> {
    grpc: &'a Grpc,
    state: &'a mut Sweep,
    addresses: usize,
    out: HashSet<u64>,
    chance: &'a dyn Random,
    eject: &'a mut dyn FnMut(Verdict) -> bool,
    left: Unenforced,
}

impl Round<'_> {
    fn success_rate(&mut self, rule: &SuccessRate, samples: &[Sample]) {
        let enough = |sample: &&Sample| sample.requests() >= u64::from(rule.request_volume);
        let rates: Vec<f64> = samples.iter().filter(enough).map(Sample::success_rate).collect();
        if rates.is_empty() || rates.len() < rule.minimum_hosts as usize {
            return;
        }
        let (mean, deviation) = mean_and_deviation(&rates);
        let least = mean - deviation * (f64::from(rule.stdev_factor) / 1000.0);
        for sample in samples.iter().filter(enough).filter(|sample| sample.success_rate() < least) {
            let share = Share::new(sample.failures, sample.requests(), 1.0 - least);
            self.found(sample, Trip::SuccessRate(share), rule.enforcement_percentage);
        }
    }

    fn failure_percentage(&mut self, rule: &FailurePercentage, samples: &[Sample]) {
        if samples.len() < rule.minimum_hosts as usize {
            return;
        }
        let enough =
            |sample: &&Sample| sample.requests() > 0 && sample.requests() >= u64::from(rule.request_volume);
        for sample in samples.iter().filter(enough) {
            // In whole numbers: exactly 85 % is allowed, whatever the number of requests.
            if u128::from(sample.failures) * 100 > u128::from(rule.threshold) * u128::from(sample.requests())
            {
                let share = Share::new(sample.failures, sample.requests(), f64::from(rule.threshold) / 100.0);
                self.found(sample, Trip::FailureShare(share), rule.enforcement_percentage);
            }
        }
    }

    fn found(&mut self, sample: &Sample, why: Trip, enforcement: u32) {
        if self.out.len() as f64 * 100.0 / self.addresses as f64 >= f64::from(self.grpc.max_ejection_percent)
        {
            self.left.max_ejection_overflow += 1;
        } else if !enforced(enforcement, self.chance) {
            self.left.enforcement_percentage += 1;
        } else {
            let multiplier = self.state.multiplier(sample.id).saturating_add(1);
            let lasts = Some(self.grpc.time(multiplier));
            if (self.eject)(Verdict { id: sample.id, why, lasts }) {
                self.out.insert(sample.id);
                self.state.multipliers.insert(sample.id, multiplier);
            }
        }
    }
}

pub(super) fn percentage(check: &mut Check, field: &str, value: u32) {
    check.rule(value <= 100, field, value, "0 to 100");
}
