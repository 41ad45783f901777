//! Envoy's rules, as its code has them.

use std::{collections::HashSet, time::Duration};

use super::{
    grpc::percentage,
    sweep::{Sample, Sweep, Unenforced, Verdict, enforced, mean_and_deviation},
};
use crate::{
    health::{Trip, trip::Share},
    invalid::{Check, FOREVER},
    random::{Random, unit},
};

/// Envoy's outlier detection by success rate and failure percentage: the fields of its `OutlierDetection` message that are about
/// them, with its defaults, and the steps of its code (1.40). Its consecutive rules are
/// [`HealthOptions::consecutive`](crate::health::HealthOptions::consecutive).
///
/// With fewer than ten hosts and the default of 10 % Envoy ejects nobody, unless
/// [`always_eject_one_host`](Self::always_eject_one_host) is set: neither does this.
///
/// What is different in a client of ours: an endpoint comes back by a request that proves it, once its time is over, and
/// the cap of [`HealthOptions`](crate::health::HealthOptions) holds too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envoy {
    /// The time between sweeps \[10 s\].
    pub interval: Duration,
    /// The time of a first ejection; it is multiplied by the number of ejections, less one for each sweep in between that
    /// found the host in \[30 s\].
    pub base_ejection_time: Duration,
    /// The longest ejection \[300 s\]; the base where that is longer.
    pub max_ejection_time: Duration,
    /// As much may come on top of an ejection's time, at random \[0 s\].
    pub max_ejection_time_jitter: Duration,
    /// No more than so many in a hundred are ejected \[10\].
    pub max_ejection_percent: u32,
    /// Whether the first may always be ejected \[false\].
    pub always_eject_one_host: bool,
    /// In how many of a hundred cases what is found by success rate is done \[100\].
    pub enforcing_success_rate: u32,
    /// With fewer hosts that had enough requests success rates are not compared \[5\].
    pub success_rate_minimum_hosts: u32,
    /// Enough requests \[100\].
    pub success_rate_request_volume: u32,
    /// Thousandths of a standard deviation that a success rate may lie under the mean \[1900\].
    pub success_rate_stdev_factor: u32,
    /// In how many of a hundred cases what is found by failure percentage is done \[0\].
    pub enforcing_failure_percentage: u32,
    /// The failures in a hundred requests that are too many \[85\].
    pub failure_percentage_threshold: u32,
    /// With fewer hosts that had enough requests nobody is ejected by failure percentage \[5\].
    pub failure_percentage_minimum_hosts: u32,
    /// Enough requests for that \[50\].
    pub failure_percentage_request_volume: u32,
}

impl Default for Envoy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            enforcing_success_rate: 100,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            enforcing_failure_percentage: 0,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
        }
    }
}

impl Envoy {
    pub(super) fn check(&self, check: &mut Check) {
        check.duration("interval", self.interval).duration("base_ejection_time", self.base_ejection_time);
        for (field, value) in [
            ("max_ejection_time", self.max_ejection_time),
            ("max_ejection_time_jitter", self.max_ejection_time_jitter),
        ] {
            check.rule(value <= FOREVER, field, value, "at most 10 years");
        }
        percentage(check, "max_ejection_percent", self.max_ejection_percent);
        percentage(check, "enforcing_success_rate", self.enforcing_success_rate);
        percentage(check, "enforcing_failure_percentage", self.enforcing_failure_percentage);
        percentage(check, "failure_percentage_threshold", self.failure_percentage_threshold);
    }

    pub(super) fn sweep(
        &self,
        state: &mut Sweep,
        samples: &[Sample],
        chance: &dyn Random,
        eject: &mut dyn FnMut(Verdict) -> bool,
    ) -> Unenforced {
        // Who is in is forgiven first: gRPC does that last.
        for sample in samples.iter().filter(|sample| !sample.out) {
            if !state.gone.remove(&sample.id)
                && let Some(multiplier) = state.multipliers.get_mut(&sample.id)
            {
                *multiplier = multiplier.saturating_sub(1);
            }
        }
        state.multipliers.retain(|_, multiplier| *multiplier > 0);
        let out = samples.iter().filter(|sample| sample.out).map(|sample| sample.id).collect();
        let mut round = Round {
            envoy: self,
            state,
            hosts: samples.len(),
            out,
            chance,
            eject,
            left: Unenforced::default(),
        };
        round.success_rate(samples);
        round.failure_percentage(samples);
        round.left
    }

    /// The time of an ejection, of which there were `multiplier`.
    fn time(&self, multiplier: u32, chance: &dyn Random) -> Duration {
        let most = self.base_ejection_time.max(self.max_ejection_time);
        let time = self.base_ejection_time.saturating_mul(multiplier).min(most);
        if self.max_ejection_time_jitter.is_zero() {
            return time;
        }
        time + self.max_ejection_time_jitter.mul_f64(unit(chance.next()))
    }
}

/// One sweep.
struct Round<'a> {
    envoy: &'a Envoy,
    state: &'a mut Sweep,
    hosts: usize,
    out: HashSet<u64>,
    chance: &'a dyn Random,
    eject: &'a mut dyn FnMut(Verdict) -> bool,
    left: Unenforced,
}

impl Round<'_> {
    fn success_rate(&mut self, samples: &[Sample]) {
        let valid = valid(samples, self.envoy.success_rate_request_volume);
        if valid.is_empty() || valid.len() < self.envoy.success_rate_minimum_hosts as usize {
            return;
        }
        // In hundredths, as there.
        let rates: Vec<f64> = valid.iter().map(|sample| 100.0 * sample.success_rate()).collect();
        let (mean, deviation) = mean_and_deviation(&rates);
        let least = mean - f64::from(self.envoy.success_rate_stdev_factor) / 1000.0 * deviation;
        for (sample, rate) in valid.iter().zip(rates) {
            if rate < least {
                let share = Share::new(sample.failures, sample.requests(), 1.0 - least / 100.0);
                self.found(sample, Trip::SuccessRate(share), self.envoy.enforcing_success_rate);
            }
        }
    }

    fn failure_percentage(&mut self, samples: &[Sample]) {
        let valid = valid(samples, self.envoy.failure_percentage_request_volume);
        if valid.is_empty() || valid.len() < self.envoy.failure_percentage_minimum_hosts as usize {
            return;
        }
        let threshold = self.envoy.failure_percentage_threshold;
        for sample in &valid {
            // In whole numbers: exactly 85 % is too much, whatever the number of requests.
            if u128::from(sample.failures) * 100 >= u128::from(threshold) * u128::from(sample.requests()) {
                let share = Share::new(sample.failures, sample.requests(), f64::from(threshold) / 100.0);
                self.found(sample, Trip::FailureShare(share), self.envoy.enforcing_failure_percentage);
            }
        }
    }

    fn found(&mut self, sample: &Sample, why: Trip, enforcing: u32) {
        // One that the other rule has just ejected is out.
        if self.out.contains(&sample.id) {
            return;
        }
        let percent = 100.0 * (self.out.len() + 1) as f64 / self.hosts as f64;
        let first = self.out.is_empty() && self.envoy.always_eject_one_host;
        if !first && percent > f64::from(self.envoy.max_ejection_percent) {
            self.left.max_ejection_overflow += 1;
        } else if !enforced(enforcing, self.chance) {
            self.left.enforcement_percentage += 1;
        } else {
            let before = self.state.multiplier(sample.id);
            let (base, most) = (self.envoy.base_ejection_time, self.envoy.max_ejection_time);
            // It stops growing where the time does.
            let grows = base.saturating_mul(before) < base.max(most).saturating_add(base);
            let multiplier = before.saturating_add(u32::from(grows));
            let lasts = Some(self.envoy.time(multiplier, self.chance));
            if (self.eject)(Verdict { id: sample.id, why, lasts }) {
                self.out.insert(sample.id);
                self.state.gone.insert(sample.id);
                self.state.multipliers.insert(sample.id, multiplier);
            }
        }
    }
}

/// Those that are in and had enough requests.
fn valid(samples: &[Sample], volume: u32) -> Vec<Sample> {
    let enough =
        |sample: &&Sample| !sample.out && sample.requests() > 0 && sample.requests() >= u64::from(volume);
    samples.iter().filter(enough).copied().collect()
}
