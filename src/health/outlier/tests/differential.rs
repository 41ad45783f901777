//! The rules of others against a second, straight-line writing of them, on generated histories.
//!
//! Each keeps the whole of what its original keeps for an address: when it was ejected, and its multiplier. They share
//! nothing with what is tested but the order of the sums, without which floats differ in their last bit.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::random::{Random as _, below};

/// One address as the originals keep it. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Address {
    ejected_at: Option<u64>,
    multiplier: u64,
}

type Addresses = BTreeMap<u64, Address>;
/// Successes and failures of each address in one interval.
type Interval = BTreeMap<u64, (u64, u64)>;

#[derive(Clone, Debug)]
struct Config {
    base: u64,
    max: u64,
    percent: u32,
    factor: u32,
    enforce: u32,
    hosts: u32,
    volume: u32,
    fail_on: bool,
    threshold: u32,
    fail_enforce: u32,
    fail_volume: u32,
    always_one: bool,
}

fn configs() -> impl Strategy<Value = Config> {
    (
        (1_u64..100, 1_u64..400, 0_u32..=100, prop_oneof![Just(1900_u32), 0_u32..4000]),
        (prop_oneof![Just(100_u32), 0_u32..=100], 0_u32..8, prop_oneof![Just(100_u32), 0_u32..200]),
        (any::<bool>(), 0_u32..=100, 0_u32..=100, 0_u32..150, any::<bool>()),
    )
        .prop_map(|(a, b, c)| Config {
            base: a.0,
            max: a.1,
            percent: a.2,
            factor: a.3,
            enforce: b.0,
            hosts: b.1,
            volume: b.2,
            fail_on: c.0,
            threshold: c.1,
            fail_enforce: c.2,
            fail_volume: c.3,
            always_one: c.4,
        })
}

fn histories() -> impl Strategy<Value = Vec<Interval>> {
    let count = prop_oneof![Just(0_u64), 0_u64..10, 50_u64..150, 100_u64..101, 0_u64..1_000];
    let interval = prop::collection::btree_map(0_u64..14, (count.clone(), count), 0..14);
    prop::collection::vec(interval, 1..30)
}

fn chance(percent: u32, random: &Seeded) -> bool {
    if percent == 0 || percent >= 100 { percent > 0 } else { below(random.next() as u32, 100) < percent }
}

fn rate((good, bad): (u64, u64)) -> f64 {
    if good + bad == 0 { 1.0 } else { good as f64 / (good + bad) as f64 }
}

/// gRFC A50, "Outlier Detection Behavior", in its order.
fn a50(addresses: &mut Addresses, interval: &Interval, now: u64, config: &Config, random: &Seeded) {
    addresses.retain(|id, _| interval.contains_key(id));
    for id in interval.keys() {
        addresses.entry(*id).or_default();
    }
    let percent = |addresses: &Addresses| {
        let ejected = addresses.values().filter(|address| address.ejected_at.is_some()).count();
        ejected as f64 * 100.0 / addresses.len() as f64
    };
    let volume = |(good, bad): (u64, u64)| good + bad;
    // Success rate.
    let rates: Vec<f64> = interval
        .values()
        .filter(|counts| volume(**counts) >= u64::from(config.volume))
        .map(|counts| rate(*counts))
        .collect();
    if rates.len() as u64 >= u64::from(config.hosts) && !rates.is_empty() {
        let mut sum = 0.0;
        for rate in &rates {
            sum += rate;
        }
        let mean = sum / rates.len() as f64;
        let mut squares = 0.0;
        for rate in &rates {
            squares += (rate - mean) * (rate - mean);
        }
        let stdev = (squares / rates.len() as f64).sqrt();
        for (id, counts) in interval {
            if percent(addresses) >= f64::from(config.percent) {
                break;
            }
            if volume(*counts) < u64::from(config.volume) {
                continue;
            }
            if rate(*counts) < mean - stdev * (f64::from(config.factor) / 1000.0)
                && chance(config.enforce, random)
            {
                let address = addresses.get_mut(id).unwrap();
                address.ejected_at = Some(now);
                address.multiplier += 1;
            }
        }
    }
    // Failure percentage.
    if config.fail_on && addresses.len() as u64 >= u64::from(config.hosts) {
        for (id, counts) in interval {
            if percent(addresses) >= f64::from(config.percent) {
                break;
            }
            if volume(*counts) < u64::from(config.fail_volume) || volume(*counts) == 0 {
                continue;
            }
            let failed = 100.0 * counts.1 as f64 / volume(*counts) as f64;
            if failed > f64::from(config.threshold) && chance(config.fail_enforce, random) {
                let address = addresses.get_mut(id).unwrap();
                address.ejected_at = Some(now);
                address.multiplier += 1;
            }
        }
    }
    for address in addresses.values_mut() {
        match address.ejected_at {
            None => address.multiplier = address.multiplier.saturating_sub(1),
            Some(at) => {
                if now > at + (config.base * address.multiplier).min(config.base.max(config.max)) {
                    address.ejected_at = None;
                }
            }
        }
    }
}

/// Envoy's `onIntervalTimer`, in its order.
fn as_envoy(hosts: &mut Addresses, interval: &Interval, now: u64, config: &Config, random: &Seeded) {
    hosts.retain(|id, _| interval.contains_key(id));
    for id in interval.keys() {
        hosts.entry(*id).or_default();
    }
    let longest = config.base.max(config.max);
    for host in hosts.values_mut() {
        match host.ejected_at {
            None => host.multiplier = host.multiplier.saturating_sub(1),
            Some(at) => {
                if (config.base * host.multiplier).min(longest) <= now - at {
                    host.ejected_at = None;
                }
            }
        }
    }
    let eject = |hosts: &mut Addresses, id: u64, enforce: u32| {
        if hosts[&id].ejected_at.is_some() {
            return;
        }
        let active = hosts.values().filter(|host| host.ejected_at.is_some()).count();
        let percent = 100.0 * (active + 1) as f64 / hosts.len() as f64;
        let may = (active == 0 && config.always_one) || percent <= f64::from(config.percent);
        if may && chance(enforce, random) {
            let host = hosts.get_mut(&id).unwrap();
            host.ejected_at = Some(now);
            if config.base * host.multiplier < longest + config.base {
                host.multiplier += 1;
            }
        }
    };
    let valid = |hosts: &Addresses, volume: u32| -> Vec<(u64, f64, (u64, u64))> {
        interval
            .iter()
            .filter(|(id, _)| hosts[*id].ejected_at.is_none())
            .filter(|(_, (good, bad))| good + bad > 0 && good + bad >= u64::from(volume))
            .map(|(id, counts)| (*id, 100.0 * rate(*counts), *counts))
            .collect()
    };
    let (by_rate, by_failures) = (valid(hosts, config.volume), valid(hosts, config.fail_volume));
    if !by_rate.is_empty() && by_rate.len() as u64 >= u64::from(config.hosts) {
        let mut sum = 0.0;
        for (_, rate, _) in &by_rate {
            sum += rate;
        }
        let mean = sum / by_rate.len() as f64;
        let mut variance = 0.0;
        for (_, rate, _) in &by_rate {
            variance += (rate - mean).powi(2);
        }
        let stdev = (variance / by_rate.len() as f64).sqrt();
        let threshold = mean - f64::from(config.factor) / 1000.0 * stdev;
        for (id, rate, _) in by_rate {
            if rate < threshold {
                eject(hosts, id, config.enforce);
            }
        }
    }
    if !by_failures.is_empty() && by_failures.len() as u64 >= u64::from(config.hosts) {
        for (id, _, (good, bad)) in by_failures {
            if 100.0 * bad as f64 / (good + bad) as f64 >= f64::from(config.threshold) {
                eject(hosts, id, config.fail_enforce);
            }
        }
    }
}

/// What is tested, with a driver that keeps who is out until when.
#[derive(Default)]
struct Driven {
    sweep: Sweep,
    out: BTreeMap<u64, (u64, u64)>,
}

impl Driven {
    fn sweep(&mut self, rules: &Outliers, interval: &Interval, now: u64, random: &Seeded) {
        self.out.retain(|id, _| interval.contains_key(id));
        if matches!(rules, Outliers::Envoy(_)) {
            self.out.retain(|_, (at, lasts)| now - *at < *lasts);
        }
        let samples: Vec<_> = interval
            .iter()
            .map(|(id, (good, bad))| {
                let mut sample = Sample::new(*id, good + bad, *bad);
                sample.out = self.out.contains_key(id);
                sample
            })
            .collect();
        let Self { sweep, out } = self;
        sweep.run(rules, &samples, random, &mut |verdict| {
            out.insert(verdict.id, (now, verdict.lasts.unwrap().as_secs()));
            true
        });
        if matches!(rules, Outliers::Grpc(_)) {
            out.retain(|_, (at, lasts)| now <= *at + *lasts);
        }
    }

    fn as_addresses(&self, interval: &Interval) -> Addresses {
        let address = |id: &u64| Address {
            ejected_at: self.out.get(id).map(|(at, _)| *at),
            multiplier: u64::from(self.sweep.multiplier(*id)),
        };
        interval.keys().map(|id| (*id, address(id))).collect()
    }
}

proptest! {
    #[test]
    fn grpc_is_a50_step_by_step(config in configs(), history in histories(), seed in any::<u64>()) {
        let rules = grpc(|grpc| {
            grpc.base_ejection_time = Duration::from_secs(config.base);
            grpc.max_ejection_time = Duration::from_secs(config.max);
            grpc.max_ejection_percent = config.percent;
            let rule = grpc.success_rate.as_mut().unwrap();
            rule.stdev_factor = config.factor;
            rule.enforcement_percentage = config.enforce;
            rule.minimum_hosts = config.hosts;
            rule.request_volume = config.volume;
            grpc.failure_percentage = config.fail_on.then_some(FailurePercentage {
                threshold: config.threshold,
                enforcement_percentage: config.fail_enforce,
                minimum_hosts: config.hosts,
                request_volume: config.fail_volume,
            });
        });
        let (mut driven, mut expected) = (Driven::default(), Addresses::new());
        let (ours, theirs) = (Seeded::new(seed), Seeded::new(seed));
        for (interval, number) in history.iter().zip(1..) {
            driven.sweep(&rules, interval, number * 10, &ours);
            a50(&mut expected, interval, number * 10, &config, &theirs);
            prop_assert_eq!(driven.as_addresses(interval), expected.clone(), "interval {}", number);
        }
    }

    #[test]
    fn envoy_is_its_code_step_by_step(config in configs(), history in histories(), seed in any::<u64>()) {
        let rules = envoy(|envoy| {
            envoy.base_ejection_time = Duration::from_secs(config.base);
            envoy.max_ejection_time = Duration::from_secs(config.max);
            envoy.max_ejection_percent = config.percent;
            envoy.always_eject_one_host = config.always_one;
            envoy.success_rate_stdev_factor = config.factor;
            envoy.enforcing_success_rate = config.enforce;
            envoy.success_rate_minimum_hosts = config.hosts;
            envoy.success_rate_request_volume = config.volume;
            envoy.enforcing_failure_percentage = if config.fail_on { config.fail_enforce } else { 0 };
            envoy.failure_percentage_threshold = config.threshold;
            envoy.failure_percentage_minimum_hosts = config.hosts;
            envoy.failure_percentage_request_volume = config.fail_volume;
        });
        let config = Config { fail_enforce: if config.fail_on { config.fail_enforce } else { 0 }, ..config };
        let (mut driven, mut expected) = (Driven::default(), Addresses::new());
        let (ours, theirs) = (Seeded::new(seed), Seeded::new(seed));
        for (interval, number) in history.iter().zip(1..) {
            driven.sweep(&rules, interval, number * 10, &ours);
            as_envoy(&mut expected, interval, number * 10, &config, &theirs);
            prop_assert_eq!(driven.as_addresses(interval), expected.clone(), "interval {}", number);
        }
    }
}
