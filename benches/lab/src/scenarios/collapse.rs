//! Row 11: a server that gets slower the more it has.

use std::time::Duration;

use mainstay::testing::{Distribution, Fleet, OpenLoop, Recorder, ServerOptions, simulate};

use super::stage::{Stage, s, spawn_load};
use crate::{
    contender::{Terms, sender},
    measure::Measured,
    scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Collapse;

const SPIKE: u64 = 20;
const SPIKE_ENDS: u64 = 25;

impl Scenario for Collapse {
    fn number(&self) -> u32 {
        11
    }

    fn name(&self) -> &'static str {
        "collapse"
    }

    fn question(&self) -> &'static str {
        "Five seconds at twice the load, or thrice, drive a server into its timeouts: does it come out again?"
    }

    fn setup(&self) -> String {
        "One server whose requests take 1 s and 10 ms more for each that is there; those that are given up leave at once. \
         20 clients, Poisson, 40 requests a second in all, 80 (or 120) from 20 to 25 s, measured for 80 s. Attempts end after 3 s, \
         three at most, 10 s in all."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "rate", values: &[40.0], means: "requests a second" },
            Parameter { name: "spike", values: &[80.0, 120.0], means: "requests a second in the spike" },
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
        let (rate, spike) = (run.point.get("rate"), run.point.get("spike"));
        let clients = run.point.get("clients") as u32;
        let mut stage = Stage::new(clients, rate);
        stage.measured = s(80);
        let (fault, fault_ends) = (stage.at(s(SPIKE)), stage.at(s(SPIKE_ENDS)));
        let terms = Terms { attempt_limit: s(3), deadline: s(10), ..Terms::default() };
        let stage = stage.scaled(run.scale);
        simulate(run.seed, async |world| {
            let server = ServerOptions::default()
                .slots(None)
                .work(Distribution::Constant(s(1)))
                .per_in_flight(Duration::from_millis(10))
                .works_on(false);
            let fleet = Fleet::builder().servers(1, server).build(&world).expect("a valid server");
            let recorder = Recorder::new();
            for client in 0..clients {
                let service = sender(run.contender, &world, &fleet, client, terms);
                let share = |rate: f64| rate / f64::from(clients);
                let load = OpenLoop::poisson(share(rate), stage.end())
                    .then(fault, share(spike))
                    .then(fault_ends, share(rate))
                    .client(client);
                spawn_load(load, service, &world, &recorder);
            }
            world.until(stage.end()).await;
            recorder.idle().await;
            let (from, to) = (stage.warm_up, stage.end());
            let measured = Measured::new(&recorder, &fleet, from, to, terms.attempt_limit);
            let mut outcome = measured.outcome();
            outcome.metrics.insert("recover_s", measured.recovered(fault, fault_ends));
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().map(|point| {
            let recovered = results.spread(&point, "mainstay", "recover_s").map(|spread| spread.median);
            Claim::at_most(format!("spike {}: recovers within 10 s", point.get("spike")), recovered, 10.0)
        });
        claims.collect()
    }

    fn remarks(&self) -> &'static str {
        "At 80 requests a second the spike is just too short to bring the server to its 3 s with most seeds, so that nothing \
         happens; at 120 it does with every seed."
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: SPIKE as f64, to: SPIKE_ENDS as f64, what: "spike" }]
    }
}
