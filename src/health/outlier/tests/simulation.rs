//! Fleets over many intervals: how often a healthy one is thinned, and how soon a bad endpoint is seen.

use super::*;
use crate::random::{Random as _, unit};

/// How many of `requests` fail at random, each with probability `rate`: by the gaps between failures.
fn failures(requests: u64, rate: f64, random: &Seeded) -> u64 {
    let (mut at, mut failures) = (0.0, 0);
    loop {
        at += (1.0 - unit(random.next())).ln() / (1.0 - rate).ln();
        if at >= requests as f64 {
            return failures;
        }
        at = at.floor() + 1.0;
        failures += 1;
        if at > requests as f64 {
            return failures;
        }
    }
}

/// Ejections of an hour in a fleet whose endpoints fail alike, over so many intervals of 10 s.
fn false_per_hour(rules: &Outliers, endpoints: u64, intervals: u32, spread: f64, seed: u64) -> f64 {
    let random = Seeded::new(seed);
    let base: Vec<f64> =
        (0..endpoints).map(|_| 0.01 * spread.powf(2.0 * unit(random.next()) - 1.0)).collect();
    let mut sweep = Sweep::new();
    let mut ejected = 0;
    for _ in 0..intervals {
        let samples: Vec<_> = (0..endpoints)
            .map(|id| {
                // From just enough to ten times that.
                let requests = 100 + (900.0 * unit(random.next()).powi(2)) as u64;
                Sample::new(id, requests, failures(requests, base[id as usize], &random))
            })
            .collect();
        sweep.run(rules, &samples, &random, &mut |_| {
            ejected += 1;
            false
        });
    }
    f64::from(ejected) * 360.0 / f64::from(intervals)
}

/// Intervals until all of the bad ones are seen, at the median of some runs; 1,000 for never.
fn intervals_until(rules: &Outliers, endpoints: u64, bad: u64, rate: f64, requests: u64) -> u32 {
    let mut runs: Vec<u32> = (0..31)
        .map(|seed| {
            let (random, mut seen) = (Seeded::new(seed), std::collections::HashSet::new());
            let mut sweep = Sweep::new();
            (1..1_000)
                .find(|_| {
                    let samples: Vec<_> = (0..endpoints)
                        .map(|id| {
                            let rate = if id < bad { rate } else { 0.01 };
                            let mut sample = Sample::new(id, requests, failures(requests, rate, &random));
                            sample.out = seen.contains(&id);
                            sample
                        })
                        .collect();
                    sweep.run(rules, &samples, &random, &mut |verdict| seen.insert(verdict.id));
                    (0..bad).all(|id| seen.contains(&id))
                })
                .unwrap_or(1_000)
        })
        .collect();
    runs.sort_unstable();
    runs[runs.len() / 2]
}

fn free_envoy() -> Outliers {
    envoy(|envoy| envoy.max_ejection_percent = 100)
}

#[test]
fn a_healthy_fleet_loses_less_than_one_endpoint_an_hour() {
    for (endpoints, intervals) in [(10, 36_000), (100, 7_200), (1_000, 1_440)] {
        let hours = f64::from(intervals) / 360.0;
        let alike = false_per_hour(&robust(), endpoints, intervals, 1.0, endpoints);
        let unlike = false_per_hour(&robust(), endpoints, intervals, 2.0, endpoints);
        println!("{endpoints} endpoints, {hours} h: {alike:.2} an hour alike, {unlike:.2} at 0.5 to 2 %");
        assert!(alike < 1.0 && unlike < 1.0, "{endpoints}: {alike}, {unlike}");
    }
}

#[test]
fn mean_and_deviation_thin_a_healthy_fleet() {
    assert!(false_per_hour(&free_envoy(), 100, 360, 1.0, 1) > 100.0);
}

#[test]
fn three_in_ten_bad_endpoints_are_seen_at_once() {
    for (endpoints, bad) in [(10, 3), (20, 6), (100, 30), (1_000, 300)] {
        for (rate, requests, within) in [(0.5, 100, 1), (0.2, 300, 1), (0.1, 1_000, 1), (0.2, 100, 10)] {
            let took = intervals_until(&robust(), endpoints, bad, rate, requests);
            println!("{bad} of {endpoints} fail {rate} of {requests}: {took} intervals");
            assert!(took <= within, "{bad} of {endpoints} fail {rate} of {requests}: {took}");
        }
        assert_eq!(intervals_until(&free_envoy(), endpoints.min(20), bad.min(6), 0.5, 1_000), 1_000);
    }
}

#[test]
#[ignore = "prints the table that the defaults were chosen by"]
fn margins_and_alarms_beside_each_other() {
    for (margin, alarms) in [
        (0.01, 0.001),
        (0.02, 0.001),
        (0.02, 0.01),
        (0.02, 0.1),
        (0.02, 1.0),
        (0.03, 0.1),
        (0.03, 1.0),
        (0.05, 1.0),
    ] {
        let mut rules = Robust::default();
        (rules.margin, rules.false_alarms) = (Ratio::new(margin).unwrap(), Ratio::new(alarms).unwrap());
        let rules = Outliers::Robust(rules);
        let fall: Vec<String> = [(10, 36_000), (100, 7_200), (1_000, 720)]
            .into_iter()
            .flat_map(|(endpoints, intervals)| {
                [1.0, 2.0, 4.0]
                    .map(|spread| format!("{:.2}", false_per_hour(&rules, endpoints, intervals, spread, 7)))
            })
            .collect();
        let seen: Vec<u32> = [(0.2, 100), (0.1, 100), (0.1, 300), (0.05, 1_000), (0.05, 3_000)]
            .into_iter()
            .map(|(rate, requests)| intervals_until(&rules, 100, 30, rate, requests))
            .collect();
        println!("margin {margin} alarms {alarms}: false {fall:?} seen {seen:?}");
    }
    for factor in [1900, 3000] {
        let rules = envoy(|envoy| {
            envoy.max_ejection_percent = 100;
            envoy.success_rate_stdev_factor = factor;
        });
        let fall: Vec<String> = [(10, 3_600), (100, 720), (1_000, 72)]
            .into_iter()
            .flat_map(|(endpoints, intervals)| {
                [1.0, 2.0, 4.0]
                    .map(|spread| format!("{:.1}", false_per_hour(&rules, endpoints, intervals, spread, 7)))
            })
            .collect();
        println!("envoy {factor}: false {fall:?}");
    }
}
