//! Row 2: one of eleven becomes slower than anybody waits.

use mainstay::testing::{Distribution, Fleet, ServerOptions};

use super::{
    stage::{Stage, s},
    trace,
};
use crate::scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario};

pub struct SlowReplica;

const SLOW: usize = 3;

impl Scenario for SlowReplica {
    fn number(&self) -> u32 {
        2
    }

    fn name(&self) -> &'static str {
        "slow_replica"
    }

    fn question(&self) -> &'static str {
        "One of eleven servers takes 2 s for half a minute, and nobody waits longer than 1 s: how many requests are lost?"
    }

    fn setup(&self) -> String {
        "11 servers, any number of requests at a time, latencies of the trace that Finagle's simulator replays (p50 167 ms, \
         p99 192 ms); one client, Poisson, 1,000 requests a second, 60 s. From 15 to 45 s one server takes 2 s for each. \
         Deadline and attempt limit 1 s: no retry can help."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "slow_ms", values: &[2_000.0], means: "what the slow server takes" },
            Parameter { name: "rps", values: &[1_000.0], means: "requests a second" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[
            "random",
            "round_robin",
            "tower_pending",
            "tower_ewma",
            "mainstay_in_flight",
            "mainstay",
            "mainstay_hedged",
        ]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "lost", "p50_ms", "p99_ms", "p999_ms", "detect_s", "load_imbalance"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let mut stage = Stage::new(1, run.point.get("rps"));
        (stage.terms.attempt_limit, stage.terms.deadline) = (s(1), s(1));
        let (fault, end) = (stage.at(s(15)), stage.at(s(45)));
        let slow = Distribution::constant_ms(run.point.get("slow_ms") as u64);
        stage.scaled(run.scale).play_and(
            run,
            |world| {
                let servers = ServerOptions::default().slots(None).work(trace::latencies());
                let fleet = Fleet::builder().servers(11, servers).build(world).expect("valid servers");
                let server = fleet.server(SLOW);
                world.at(fault, move || server.set_work(slow).expect("valid work"));
                let server = fleet.server(SLOW);
                world.at(end, move || server.set_work(trace::latencies()).expect("valid work"));
                fleet
            },
            |measured| {
                let mut outcome = measured.outcome();
                let summary = measured.summary();
                outcome.metrics.insert("detect_s", measured.detected(SLOW, fault));
                outcome.metrics.insert("lost", (summary.requests() - summary.successes()) as f64);
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().flat_map(|point| {
            let success =
                |contender| results.spread(&point, contender, "success").map(|spread| spread.median);
            [
                Claim::at_least("success at least 0.9995 without hedging", success("mainstay"), 0.9995),
                Claim::at_least("success at least 0.9999 with hedging", success("mainstay_hedged"), 0.9999),
            ]
        });
        claims.collect()
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: 15.0, to: 45.0, what: "one server slow" }]
    }

    fn remarks(&self) -> &'static str {
        "Published for this set-up (Linkerd, 2016): round robin 95 %, least loaded 99 %, peak EWMA 99.9 %."
    }
}
