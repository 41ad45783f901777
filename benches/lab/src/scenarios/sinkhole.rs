//! Row 6: servers that fail fast, and so look fast.

use mainstay::testing::{Fleet, ServerOptions, Trouble};

use super::stage::{Stage, s};
use crate::scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario};

pub struct Sinkhole;

const SERVERS: usize = 20;
/// 20 x 4 slots / 40 ms.
const CAPACITY: f64 = 2_000.0;
const BAD: [usize; 2] = [5, 13];

impl Scenario for Sinkhole {
    fn number(&self) -> u32 {
        6
    }

    fn name(&self) -> &'static str {
        "sinkhole"
    }

    fn question(&self) -> &'static str {
        "Two of twenty servers answer everything with an error, at once: how much do they swallow?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots, work Exp(40 ms); 20 clients, Poisson, load 0.8 (1,600 requests a second), 20 s. From 5 s \
         on two servers fail at once and without work, so that they look fast and idle."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "load", values: &[0.8], means: "requests a second by 2,000" },
            Parameter { name: "clients", values: &[20.0], means: "clients that share the load" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["random", "round_robin", "tower_pending", "tower_ewma", "tower_retry", "mainstay_once", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "failed", "p50_ms", "p99_ms", "p999_ms", "detect_s", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let mut stage = Stage::new(run.point.get("clients") as u32, CAPACITY * run.point.get("load"));
        stage.measured = s(20);
        let fault = stage.at(s(5));
        stage.scaled(run.scale).play_and(
            run,
            |world| {
                let fleet = Fleet::builder()
                    .servers(SERVERS, ServerOptions::default())
                    .build(world)
                    .expect("valid servers");
                for server in BAD.map(|server| fleet.server(server)) {
                    world.at(fault, move || server.trouble(1.0, Trouble::Fail));
                }
                fleet
            },
            |measured| {
                let mut outcome = measured.outcome();
                let detected = BAD.map(|server| measured.detected(server, fault));
                outcome.metrics.insert("detect_s", detected[0].max(detected[1]));
                outcome.metrics.insert("failed", 1.0 - outcome.metrics["success"]);
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            for (contender, bound) in [("mainstay_once", 0.013), ("mainstay", 0.001)] {
                let failed = results.spread(&point, contender, "failed").map(|spread| spread.median);
                claims.push(Claim::at_most(format!("{contender}: failed at most {bound}"), failed, bound));
            }
        }
        claims
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: 5.0, to: 20.0, what: "two servers fail at once" }]
    }
}
