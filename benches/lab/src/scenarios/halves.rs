//! Row 5: half of the fleet is half as fast.

use std::time::Duration;

use mainstay::testing::{Fleet, ServerOptions};

use super::stage::{Stage, s};
use crate::scenario::{Claim, Outcome, Parameter, Results, Run, Scenario};

pub struct Halves;

const HALF: usize = 50;
/// Requests a second that the fleet is worth: 50 x 4 / 40 ms, and half of that.
const CAPACITY: f64 = 7_500.0;
const REQUESTS: f64 = 90_000.0;
const WARM_UP: Duration = s(4);

impl Scenario for Halves {
    fn number(&self) -> u32 {
        5
    }

    fn name(&self) -> &'static str {
        "halves"
    }

    fn question(&self) -> &'static str {
        "Half of a hundred servers take twice as long, always: who finds out, alone and among twenty clients?"
    }

    fn setup(&self) -> String {
        "50 servers at speed 1 and 50 at 0.5, 4 slots each, work Exp(40 ms); Poisson, load x 7,500 requests a second from \
         one client or from twenty. 4 s warm-up, 90,000 requests in all."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "clients", values: &[1.0, 20.0], means: "clients that share the load" },
            Parameter { name: "load", values: &[0.75, 0.9], means: "requests a second by 7,500" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[
            "random",
            "round_robin",
            "tower_pending",
            "tower_ewma",
            "mainstay",
            "mainstay_once",
            "mainstay_reports",
            "mainstay_probes",
            "mainstay_quantile",
            "mainstay_hot_cold",
            "mainstay_hot_cold_reports",
            "mainstay_hot_cold_answered",
            "mainstay_answered",
            "mainstay_answered_reports",
            "mainstay_in_flight",
            "oracle_p2c",
            "oracle_all",
        ]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "load_imbalance"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let rate = CAPACITY * run.point.get("load");
        let mut stage = Stage::new(run.point.get("clients") as u32, rate);
        stage.warm_up = WARM_UP;
        stage.measured =
            Duration::from_secs_f64(REQUESTS * run.scale / rate).saturating_sub(WARM_UP).max(s(1));
        stage.play(run, |world| {
            let fast = ServerOptions::default();
            let slow = fast.clone().speed(0.5);
            Fleet::builder().servers(HALF, fast).servers(HALF, slow).build(world).expect("valid servers")
        })
    }

    fn remarks(&self) -> &'static str {
        "`mainstay_reports` hears from the servers on each answer how much they have in flight."
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let p99 = |contender| Some(results.spread(&point, contender, "p99_ms")?.median);
            if point.get("clients") == 1.0 {
                let ratio = results.ratio(&point, "mainstay_once", "oracle_p2c", "p99_ms");
                let owed = format!("{point}: p99 at most 1.05 of oracle_p2c's");
                claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), 1.05));
            } else {
                let gap = p99("tower_ewma").zip(p99("oracle_p2c")).zip(p99("mainstay_once"));
                let left = gap.map(|((tower, oracle), own)| (own - oracle) / (tower - oracle));
                let owed = format!(
                    "{point}: at most 0.5 of the gap between tower_ewma's p99 and oracle_p2c's is left"
                );
                claims.push(Claim::at_most(owed, left, 0.5));
                let ratio = results.ratio(&point, "mainstay_reports", "oracle_p2c", "p99_ms");
                let owed = format!("{point}: with reports p99 at most 1.15 of oracle_p2c's");
                claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), 1.15));
            }
        }
        claims
    }
}
