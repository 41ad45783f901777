//! An experiment without a fleet, for the tests of what runs and reports experiments.

use crate::scenario::{Claim, Fault, Metrics, Moment, Outcome, Parameter, Point, Results, Run, Scenario};

pub(crate) struct Fake;

impl Scenario for Fake {
    fn number(&self) -> u32 {
        4
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    fn question(&self) -> &'static str {
        "Who is hurt least by a slow server?"
    }

    fn setup(&self) -> String {
        "20 servers, one of them slow from 20 to 40 s.".to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "load", values: &[0.7, 0.9], means: "share of the capacity" },
            Parameter { name: "servers", values: &[20.0], means: "how many servers there are" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["tower", "mainstay", "oracle"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p99_ms", "detect_s"]
    }

    fn seeds(&self) -> u64 {
        3
    }

    fn takes_part(&self, point: &Point, contender: &str) -> bool {
        contender != "oracle" || point.get("load") > 0.8
    }

    fn refuses(&self, parameter: &str, value: f64) -> Option<&'static str> {
        (parameter == "servers" && value.fract() != 0.0).then_some("a whole number")
    }

    fn run(&self, run: &Run) -> Outcome {
        assert!(run.point.get("load") < 1.5 || run.seed != 2, "the queue is full");
        let skill = match run.contender {
            "tower" => 1.0,
            "mainstay" => 0.3,
            _ => 0.2,
        };
        let (load, seed) = (run.point.get("load"), run.seed as f64);
        let detect = if run.contender == "tower" { f64::INFINITY } else { 1.5 * seed };
        let mut metrics = Metrics::from([
            ("success", 1.0 - 0.001 * skill * load),
            ("p99_ms", 400.0 * skill * load + seed),
            ("attempts", 1000.0),
        ]);
        if run.contender != "oracle" {
            metrics.insert("detect_s", detect);
        }
        let moment = |second: u64| {
            let at = second as f64;
            let slow = if (20.0..40.0).contains(&at) { skill } else { 0.0 };
            let noise = ((second * 7 + run.seed * 3) % 5) as f64;
            Moment {
                at,
                requests: if second == 50 { 0 } else { 100 },
                success: 1.0 - 0.04 * slow * load,
                p50_ms: 40.0,
                p99_ms: (120.0 + 10.0 * noise) * (1.0 + 9.0 * slow) * load,
                attempts: 100.0,
            }
        };
        Outcome { metrics, timeline: (0..60).map(moment).collect() }
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let point = &results.points()[0];
        let ratio = results.ratio(point, "mainstay", "tower", "p99_ms").map(|ratio| ratio.median);
        let success = results.spread(point, "mainstay", "success").map(|success| success.median);
        vec![
            Claim::at_most("p99 at most .86 of tower's", ratio, 0.86),
            Claim::at_least("success | goodput at least .9999", success, 0.9999),
        ]
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: 20.0, to: 40.0, what: "one server slow" }]
    }

    fn remarks(&self) -> &'static str {
        "It is not real."
    }
}
