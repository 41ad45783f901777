//! What is found, and what is let be.

mod differential;
mod simulation;

use std::time::Duration;

use super::{
    Envoy, FailurePercentage, Grpc, LatencyRule, Outliers, Robust, Sample, Sweep, Unenforced, Verdict,
};
use crate::{
    health::{HealthOptions, Trip},
    invalid::{Check, Ratio},
    random::Seeded,
};

fn run(rules: &Outliers, samples: &[Sample]) -> (Vec<Verdict>, Unenforced) {
    let mut found = Vec::new();
    let left = Sweep::new().run(rules, samples, &Seeded::new(1), &mut |verdict| {
        found.push(verdict);
        true
    });
    (found, left)
}

fn ids(rules: &Outliers, samples: &[Sample]) -> Vec<u64> {
    let mut ids: Vec<_> = run(rules, samples).0.into_iter().map(|verdict| verdict.id).collect();
    ids.sort_unstable();
    ids
}

/// One endpoint for each pair of requests and failures.
fn fleet(counts: impl IntoIterator<Item = (u64, u64)>) -> Vec<Sample> {
    counts
        .into_iter()
        .zip(0..)
        .map(|((requests, failures), id)| Sample::new(id, requests, failures))
        .collect()
}

fn robust() -> Outliers {
    Outliers::default()
}

fn grpc(change: impl FnOnce(&mut Grpc)) -> Outliers {
    let mut grpc = Grpc::default();
    change(&mut grpc);
    Outliers::Grpc(grpc)
}

fn envoy(change: impl FnOnce(&mut Envoy)) -> Outliers {
    let mut envoy = Envoy::default();
    change(&mut envoy);
    Outliers::Envoy(envoy)
}

#[test]
fn three_of_ten_that_fail_a_fifth_are_seen_and_hide_from_mean_and_deviation() {
    let fleet = fleet((0..10).map(|id| (1_000, if id < 3 { 200 } else { 10 })));
    assert_eq!(ids(&robust(), &fleet), [0, 1, 2]);
    let free = envoy(|envoy| envoy.max_ejection_percent = 100);
    assert_eq!(ids(&free, &fleet), [0; 0]);
}

#[test]
fn an_outlier_tells_its_numbers() {
    let fleet = fleet([(400, 0), (400, 0), (400, 0), (400, 0), (400, 80)]);
    let (found, _) = run(&robust(), &fleet);
    let Trip::SuccessRate(share) = found[0].why else { panic!("{found:?}") };
    assert_eq!((share.failures(), share.requests(), share.limit()), (80, 400, 0.02));
    assert_eq!(
        found[0].why.to_string(),
        "80 of 400 failed (20.0 %), 2.0 % is the limit because of what the others do"
    );
}

#[test]
fn what_fails_everywhere_makes_nobody_an_outlier() {
    let rules = Robust { failure_share: None, ..Robust::default() };
    for share in [1, 10, 50, 95, 100] {
        let fleet = fleet((0..20).map(|_| (1_000, share * 10)));
        assert_eq!(ids(&Outliers::Robust(rules.clone()), &fleet), [0; 0], "{share} %");
    }
}

#[test]
fn a_difference_that_does_not_matter_is_let_be_however_certain_it_is() {
    let fleet = fleet((0..20).map(|id| (1_000_000, if id == 0 { 20_000 } else { 1_000 })));
    assert_eq!(ids(&robust(), &fleet), [0; 0], "2 % and 0.1 %");
}

#[test]
fn a_fleet_whose_endpoints_differ_is_not_thinned_by_what_is_usual_there() {
    // From 1 to 10 %, evenly: the upper ones are far above the median by more than the margin, and by no chance.
    let fleet = fleet((0..10).map(|id| (100_000, 1_000 * (id + 1))));
    assert_eq!(ids(&robust(), &fleet), [0; 0]);
}

#[test]
fn a_fleet_that_is_at_the_limit_loses_nobody_by_chance() {
    // 2 % above what the others do, and two failures more of a hundred: that happens.
    let fleet = fleet((0..100).map(|id| (100, if id == 0 { 4 } else { 0 })));
    assert_eq!(ids(&robust(), &fleet), [0; 0]);
}

#[test]
fn idle_endpoints_neither_are_compared_nor_move_the_comparison() {
    let busy = (0..5).map(|id| (1_000, if id == 0 { 300 } else { 0 }));
    let idle = (0..50).map(|_| (3, 3));
    assert_eq!(ids(&robust(), &fleet(busy.chain(idle))), [0]);
}

#[test]
fn with_too_few_endpoints_or_requests_nobody_is_compared() {
    let rules = Robust { failure_share: None, ..Robust::default() };
    let rules = Outliers::Robust(rules);
    assert_eq!(ids(&rules, &fleet([(500, 0), (500, 0), (500, 0), (500, 500)])), [0; 0]);
    assert_eq!(ids(&rules, &fleet((0..10).map(|id| (99, if id == 0 { 99 } else { 0 })))), [0; 0]);
    assert_eq!(ids(&rules, &fleet((0..10).map(|id| (100, if id == 0 { 99 } else { 0 })))), [0]);
}

#[test]
fn the_worst_come_first() {
    let fleet = fleet((0..10).map(|id| (1_000, [300, 700, 500][..].get(id).copied().unwrap_or(0))));
    let order: Vec<_> = run(&robust(), &fleet).0.into_iter().map(|verdict| verdict.id).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn an_endpoint_that_fails_nearly_always_needs_no_comparison() {
    let mut samples = fleet([(50, 44), (10, 0)]);
    assert_eq!(ids(&robust(), &samples), [0]);
    samples[0].out = true;
    assert_eq!(ids(&robust(), &samples), [0; 0], "it is out already");
    assert_eq!(ids(&robust(), &fleet([(49, 49), (10, 0)])), [0; 0]);
}

#[test]
fn latency_is_looked_at_only_where_asked_and_says_by_how_much_it_is_too_long() {
    let mut samples = fleet((0..8).map(|_| (500, 0)));
    for sample in &mut samples {
        sample.latency = Some(Duration::from_millis(if sample.id == 3 { 400 } else { 20 + sample.id }));
        sample.latencies = 100;
    }
    assert_eq!(ids(&robust(), &samples), [0; 0]);
    let rules = Robust { latency: Some(LatencyRule::default()), ..Robust::default() };
    let (found, _) = run(&Outliers::Robust(rules.clone()), &samples);
    assert_eq!(found.len(), 1);
    let Trip::Latency(slowness) = found[0].why else { panic!("{found:?}") };
    assert_eq!(slowness.median(), Duration::from_millis(400));
    assert!(slowness.limit() <= Duration::from_millis(75), "{slowness}");
    samples[3].latency = None;
    assert_eq!(ids(&Outliers::Robust(rules), &samples), [0; 0]);
}

// C78 to C86 of what is known of the systems before this one.

#[test]
fn grpc_ejects_the_one_below_mean_less_deviations_for_thirty_seconds() {
    let fleet = fleet([(100, 50), (100, 0), (100, 0), (100, 0), (100, 0)]);
    let (found, _) = run(&grpc(|_| {}), &fleet);
    assert_eq!(found.len(), 1);
    let Trip::SuccessRate(share) = found[0].why else { panic!("{found:?}") };
    assert!((share.limit() - 0.48).abs() < 1e-6, "a success rate of 52 %: {share}");
    assert_eq!((found[0].id, found[0].lasts), (0, Some(Duration::from_secs(30))));
}

#[test]
fn exactly_the_threshold_is_allowed_by_grpc_and_too_much_for_envoy() {
    let at = |failures: u64| fleet([(100, failures), (100, 0), (100, 0), (100, 0), (100, 0), (100, 0)]);
    let grpc = grpc(|grpc| {
        grpc.success_rate = None;
        grpc.failure_percentage = Some(FailurePercentage::default());
    });
    let envoy = envoy(|envoy| {
        envoy.enforcing_success_rate = 0;
        envoy.enforcing_failure_percentage = 100;
        envoy.always_eject_one_host = true;
    });
    for (failures, by_grpc, by_envoy) in [(84, 0, 0), (85, 0, 1), (86, 1, 1)] {
        assert_eq!(run(&grpc, &at(failures)).0.len(), by_grpc, "{failures}");
        assert_eq!(run(&envoy, &at(failures)).0.len(), by_envoy, "{failures}");
    }
}

#[test]
fn grpc_always_lets_one_go_and_envoy_only_if_told() {
    let two_bad = fleet((0..10).map(|id| (1_000, if id < 2 { 900 } else { 0 })));
    let (found, left) = run(&grpc(|_| {}), &two_bad);
    assert_eq!((found.len(), left.max_ejection_overflow), (1, 1));
    let one_bad = fleet((0..5).map(|id| (1_000, if id == 0 { 500 } else { 0 })));
    assert_eq!(ids(&grpc(|_| {}), &one_bad), [0]);
    let (found, left) = run(&envoy(|_| {}), &one_bad);
    assert_eq!((found.len(), left.max_ejection_overflow), (0, 1));
    assert_eq!(ids(&envoy(|envoy| envoy.always_eject_one_host = true), &one_bad), [0]);
}

#[test]
fn a_base_longer_than_the_longest_stands() {
    let fleet = fleet((0..5).map(|id| (1_000, if id == 0 { 900 } else { 0 })));
    let (found, _) = run(&grpc(|grpc| grpc.base_ejection_time = Duration::from_secs(600)), &fleet);
    assert_eq!(found[0].lasts, Some(Duration::from_secs(600)));
}

#[test]
fn what_is_not_enforced_is_counted() {
    let fleet = fleet((0..5).map(|id| (1_000, if id == 0 { 900 } else { 0 })));
    let rules = grpc(|grpc| grpc.success_rate.as_mut().unwrap().enforcement_percentage = 0);
    let (found, left) = run(&rules, &fleet);
    assert_eq!((found.len(), left.enforcement_percentage), (0, 1));
}

#[test]
fn each_option_is_held_to_its_rule_and_all_mistakes_are_told_at_once() {
    let mut robust = Robust::default();
    (robust.endpoints, robust.margin, robust.longest) = (2, Ratio::ZERO, Duration::from_secs(1));
    robust.latency = Some(LatencyRule { factor: f64::NAN, least: Duration::ZERO, samples: 0 });
    let mut options = HealthOptions { outliers: Some(Outliers::Robust(robust)), ..HealthOptions::default() };
    let mut check = Check::default();
    options.check(&mut check);
    let problems = check.finish().unwrap_err();
    let fields: Vec<_> = problems.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "outliers.endpoints",
            "outliers.longest",
            "outliers.margin",
            "outliers.latency.factor",
            "outliers.latency.samples"
        ]
    );
    options.outliers = Some(grpc(|grpc| grpc.max_ejection_percent = 101));
    let mut check = Check::default();
    options.check(&mut check);
    assert!(check.finish().is_err());
}
