//! The experiments in seconds, with fixed seeds: a change for the worse fails here.
//!
//! What is asserted is what is owed, on shorter runs; where a short run scatters, over the median of a few seeds.

use lab::{
    scenario::{Outcome, Point, Run, Scenario, Spread},
    scenarios,
};

fn scenario(name: &str) -> &'static dyn Scenario {
    *scenarios::ALL.iter().find(|scenario| scenario.name() == name).expect("a scenario of this name")
}

/// The point of the grid with these values.
fn point(scenario: &dyn Scenario, values: &[(&str, f64)]) -> Point {
    let fits = |point: &&Point| values.iter().all(|(name, value)| point.get(name) == *value);
    scenario.points().iter().find(fits).expect("a point with these values").clone()
}

struct Short {
    scenario: &'static dyn Scenario,
    point: Point,
    scale: f64,
}

impl Short {
    fn of(name: &str, values: &[(&str, f64)], scale: f64) -> Self {
        let scenario = scenario(name);
        Self { scenario, point: point(scenario, values), scale }
    }

    fn run(&self, contender: &'static str, seed: u64) -> Outcome {
        self.scenario.run(&Run { point: self.point.clone(), contender, seed, scale: self.scale })
    }

    fn metric(&self, contender: &'static str, seed: u64, metric: &str) -> f64 {
        self.run(contender, seed).metrics[metric]
    }

    /// The median over three seeds.
    fn median(&self, contender: &'static str, metric: &str) -> f64 {
        let values = (1..=3).map(|seed| self.metric(contender, seed, metric));
        Spread::of(values).expect("three values").median
    }

    /// The median over three seeds of a metric by that of another contender.
    fn ratio(&self, contender: &'static str, rival: &'static str, metric: &str) -> f64 {
        let ratio = |seed| self.metric(contender, seed, metric) / self.metric(rival, seed, metric);
        Spread::of((1..=3).map(ratio)).expect("three values").median
    }
}

#[test]
fn the_simulator_and_the_real_layers_agree_with_the_theory_of_queues() {
    for (load, contender) in [
        (0.7, "oracle_p2c"),
        (0.7, "mainstay_in_flight"),
        (0.9, "mainstay_in_flight"),
        (0.9, "mainstay_in_flight_3"),
    ] {
        let short = Short::of("theory", &[("load", load)], 1.0);
        let (mean, p99) =
            (short.metric(contender, 1, "mean_by_theory"), short.metric(contender, 1, "p99_by_theory"));
        assert!(
            (mean - 1.0).abs() <= 0.03 && (p99 - 1.0).abs() <= 0.05,
            "{contender} at {load}: {mean}, {p99}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome_bit_for_bit_and_another_seed_does_not() {
    for name in ["noisy_fleet", "sinkhole", "metastable", "reconnect_storm"] {
        let short = Short { scenario: scenario(name), point: scenario(name).points().remove(0), scale: 0.05 };
        let (one, other) = (short.run("mainstay", 7), short.run("mainstay", 7));
        assert_eq!(one.metrics, other.metrics, "{name}");
        assert_eq!(format!("{:?}", one.timeline), format!("{:?}", other.timeline), "{name}");
        assert_ne!(one.metrics, short.run("mainstay", 8).metrics, "{name}");
    }
}

#[test]
fn the_tail_over_a_noisy_fleet_is_shorter_than_tower_s() {
    for (load, bound) in [(0.7, 0.86), (1.05, 0.80)] {
        let short = Short::of("noisy_fleet", &[("load", load)], 0.3);
        let ratio = short.ratio("mainstay_once", "tower_ewma", "p99_ms");
        assert!(ratio <= bound, "load {load}: {ratio}");
    }
}

#[test]
fn twenty_clients_find_the_slow_half_of_a_fleet() {
    let short = Short::of("halves", &[("clients", 20.0), ("load", 0.9)], 1.0);
    let p99 = |contender| short.metric(contender, 1, "p99_ms");
    let (own, tower, oracle) = (p99("mainstay_once"), p99("tower_ewma"), p99("oracle_p2c"));
    assert!((own - oracle) / (tower - oracle) <= 0.5, "{own} between {oracle} and {tower}");
}

#[test]
fn a_replica_that_becomes_too_slow_is_detected_at_once() {
    let short = Short::of("slow_replica", &[], 1.0);
    let outcome = short.run("mainstay", 1);
    assert!(outcome.metrics["success"] >= 0.9995, "{}", outcome.metrics["success"]);
    assert!(outcome.metrics["detect_s"] <= 1.0, "{}", outcome.metrics["detect_s"]);
}

#[test]
fn a_dead_backend_costs_nobody_a_request() {
    for case in [5.0, 6.0] {
        let short = Short::of("finagle", &[("case", case)], 0.5);
        let success = short.metric("mainstay", 1, "success");
        assert!(success >= 0.999, "case {case}: {success}");
    }
}

#[test]
fn servers_that_fail_at_once_swallow_next_to_nothing() {
    let short = Short::of("sinkhole", &[], 1.0);
    let (once, retried) = (short.metric("mainstay_once", 1, "failed"), short.metric("mainstay", 1, "failed"));
    assert!(once <= 0.013 && retried <= 0.001, "{once}, {retried}");
}

#[test]
fn a_server_that_fails_half_of_its_requests_gets_twenty_of_them() {
    let short = Short::of("gray", &[("rps", 5.0), ("errors", 0.0)], 0.2);
    let until: Vec<f64> = (1..=10).map(|seed| short.metric("mainstay", seed, "requests_until")).collect();
    assert!(until.iter().filter(|until| **until <= 20.0).count() >= 9, "{until:?}");
}

#[test]
fn nobody_is_set_aside_for_errors_that_all_make() {
    let short = Short::of("gray", &[("rps", 50.0), ("errors", 0.01)], 0.2);
    assert_eq!((1..=3).map(|seed| short.metric("mainstay", seed, "false_per_hour")).sum::<f64>(), 0.0);
}

#[test]
fn hedges_of_one_request_in_a_hundred_shorten_the_tail_that_pauses_make() {
    let short = Short::of("gc_pauses", &[("exponential", 0.0)], 0.5);
    let ratio = short.ratio("mainstay_hedged", "mainstay_once", "p999_ms");
    let load = short.median("mainstay_hedged", "amplification");
    assert!(ratio <= 0.8 && load <= 1.02, "{ratio} at {load}");
}

#[test]
fn with_capacity_to_spare_hedges_halve_the_99th_percentile_and_without_there_are_none() {
    let at = |load| Short::of("hedging_frontier", &[("load", load)], 0.5);
    let halved = at(0.3).ratio("hedge_spare", "mainstay_once", "p99_ms");
    assert!(halved <= 0.5, "{halved}");
    let busy = at(0.9).median("hedge_spare", "amplification");
    assert!(busy <= 1.001, "{busy}");
}

#[test]
fn hedges_by_default_do_no_harm_up_to_three_quarters_of_the_load() {
    for load in [0.1, 0.6] {
        let short = Short::of("hedging_frontier", &[("load", load)], 0.5);
        let mean = short.ratio("mainstay_hedged", "mainstay_once", "mean_ms");
        assert!(mean <= 1.02, "load {load}: {mean}");
    }
}

#[test]
fn retries_do_not_keep_an_outage_alive() {
    let short = Short::of("metastable", &[], 0.7);
    let outcome = short.run("mainstay", 1);
    assert!(outcome.metrics["recover_s"] <= 5.0, "{}", outcome.metrics["recover_s"]);
    assert!(outcome.metrics["amplification"] <= 1.1, "{}", outcome.metrics["amplification"]);
    assert_eq!(short.metric("naive", 1, "recover_s"), f64::INFINITY);
}

#[test]
fn retries_of_sparse_clients_add_little_load_and_still_help() {
    let load = |fails| Short::of("retry_frontier", &[("clients", 1_000.0), ("fails", fails)], 0.3);
    assert!(load(0.25).metric("mainstay", 1, "amplification") <= 1.3);
    assert!(load(0.75).metric("mainstay", 1, "amplification") <= 1.3);
    let few = Short::of("retry_frontier", &[("clients", 10.0), ("fails", 0.05)], 0.3);
    assert!(few.metric("mainstay", 1, "success") >= 0.997);
}

#[test]
fn a_spike_is_over_when_it_is_over() {
    let short = Short::of("collapse", &[("spike", 120.0)], 0.75);
    assert!(short.median("mainstay", "recover_s") <= 10.0);
    assert_eq!(short.median("naive", "recover_s"), f64::INFINITY);
}

#[test]
fn a_fleet_that_restarts_is_connected_again_fast_and_not_stormed() {
    let short = Short::of("reconnect_storm", &[("down_s", 10.0)], 1.0);
    let outcome = short.run("mainstay", 1);
    let (connected, peak) = (outcome.metrics["connected95_s"], outcome.metrics["offered_peak"]);
    assert!(connected <= 60.0 && peak <= 2.0, "{connected} s, {peak}");
}

#[test]
fn a_fleet_that_blinks_is_soon_used_whole_again() {
    for down in [0.2, 1.0] {
        let short = Short::of("blink", &[("servers", 20.0), ("down_s", down)], 1.0);
        let recovered = short.metric("mainstay", 1, "recover_s");
        assert!(recovered <= down + 2.0, "{down}: {recovered}");
    }
}

#[test]
fn a_rolling_deploy_costs_no_request_told_in_time_or_not() {
    for told in [0.5, 7.0] {
        let short = Short::of("rolling_deploy", &[("told_s", told)], 0.2);
        for seed in 1..=3 {
            assert_eq!(short.metric("mainstay", seed, "failed"), 0.0, "told after {told} s, seed {seed}");
        }
    }
}

#[test]
fn a_lost_zone_costs_next_to_nothing_and_its_traffic_is_borne_by_all() {
    for partial in [0.0, 1.0] {
        let short = Short::of("zone_loss", &[("partial", partial)], 1.0);
        let outcome = short.run("mainstay", 1);
        let (failed, survivors) = (outcome.metrics["failed"], outcome.metrics["survivors"]);
        assert!(failed <= 0.001 && survivors <= 1.25, "partial {partial}: {failed}, {survivors}");
    }
}

#[test]
fn subsets_are_even_and_change_little_with_a_server() {
    let short = Short::of("scale", &[], 0.05);
    assert_eq!(short.metric("rendezvous", 1, "entries_of_one"), 1.0);
    let (even, by_chance) =
        (short.metric("deterministic", 1, "load_max"), short.metric("rendezvous", 1, "load_max"));
    assert!(even <= 1.1 && by_chance > 1.5, "{even}, {by_chance}");
}

#[test]
fn in_worlds_drawn_at_random_the_tail_is_no_longer_than_tower_s() {
    let scenario = scenario("sweep");
    let p99 = |contender, seed| {
        let run = Run { point: scenario.points().remove(0), contender, seed, scale: 0.25 };
        scenario.run(&run).metrics["p99_ms"]
    };
    let ratio = |seed| p99("mainstay_once", seed) / p99("tower_ewma", seed).min(p99("tower_pending", seed));
    let median = Spread::of((1..=9).map(ratio)).expect("nine worlds").median;
    assert!(median <= 1.0, "{median}");
}
