//! Row 9: an outage that outlives its cause.

use mainstay::testing::{Distribution, Fleet, ServerOptions, Trouble};

use super::stage::{Stage, s};
use crate::scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario};

pub struct Metastable;

const SILENT: u64 = 15;
const ANSWERS: u64 = 25;

impl Scenario for Metastable {
    fn number(&self) -> u32 {
        9
    }

    fn name(&self) -> &'static str {
        "metastable"
    }

    fn question(&self) -> &'static str {
        "A server near its capacity is silent for ten seconds: do the retries let it come back?"
    }

    fn setup(&self) -> String {
        "One server that works on 30 requests of 100 ms at a time (300 a second) and keeps 2 s of them waiting (600), first \
         come first served; more are answered with an error. 20 clients, Poisson, 280 requests a second in all, attempts \
         end after 1 s. From 15 to 25 s whatever arrives is lost."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "rate", values: &[280.0], means: "requests a second; 300 are served" },
            Parameter { name: "clients", values: &[20.0], means: "clients that share the load" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["nothing", "naive", "tower_retry", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "goodput", "recover_s", "amplification", "p50_ms", "p99_ms"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let stage = Stage::new(run.point.get("clients") as u32, run.point.get("rate"));
        let (fault, end) = (stage.at(s(SILENT)), stage.at(s(ANSWERS)));
        stage.scaled(run.scale).play_and(
            run,
            |world| {
                let server =
                    ServerOptions::default().slots(30).queue(600).work(Distribution::constant_ms(100));
                let fleet = Fleet::builder().servers(1, server).build(world).expect("a valid server");
                let server = fleet.server(0);
                world.at(fault, move || server.trouble(1.0, Trouble::Hang));
                let server = fleet.server(0);
                world.at(end, move || server.recover());
                fleet
            },
            |measured| {
                let mut outcome = measured.outcome();
                outcome.metrics.insert("recover_s", measured.recovered(fault, end));
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let median =
                |contender, metric| results.spread(&point, contender, metric).map(|spread| spread.median);
            let recovered = median("mainstay", "recover_s");
            claims.push(Claim::at_most("recovers within 5 s", recovered, 5.0));
            let load = median("mainstay", "amplification");
            claims.push(Claim::at_most("amplification at most 1.1 over the run", load, 1.1));
            let naive = median("naive", "recover_s");
            claims.push(Claim::at_least("naive retries never recover", naive, f64::INFINITY));
        }
        claims
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: SILENT as f64, to: ANSWERS as f64, what: "silence" }]
    }
}
