//! Row 15: a tenth of the fleet is new and cold.

use std::time::Duration;

use mainstay::{
    balance::{BalanceOptions, Distribution, SlowStart},
    testing::{Fleet, OpenLoop, Recorder, Reporting, ServerOptions, World, simulate},
};
use tower::{ServiceExt as _, util::BoxService};

use super::{
    registry::{Registry, warms_up},
    stage::{s, spawn_load},
};
use crate::{
    contender::{Sender, Terms, unconnected},
    measure::Measured,
    scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct ColdStart;

const SERVERS: usize = 20;
/// So many are replaced.
const NEW: usize = 2;
const CLIENTS: u32 = 20;
/// Requests a second that the fleet is worth: 20 x 4 slots / 40 ms.
const CAPACITY: f64 = 2_000.0;
const WARM_UP: Duration = s(5);
/// What is compared: a stretch before, and the minute after. Within as many requests as a run may have.
const STEADY: Duration = s(20);
const FIRST: Duration = s(60);

impl Scenario for ColdStart {
    fn number(&self) -> u32 {
        15
    }

    fn name(&self) -> &'static str {
        "cold_start"
    }

    fn question(&self) -> &'static str {
        "A tenth of the fleet is new and cold: who notices?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots, work Exp(40 ms); 20 clients, connected ahead of requests, with Poisson streams. 20 s into the measurement \
         two servers leave the registry, end what they have and are gone, and two others come in their place, which are slower by \
         1 + 4 e^(-t / 10 s). `cold_p99` is the 99th percentile of the minute after by that of the 20 s before."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter { name: "load", values: &[0.3, 0.5], means: "requests a second by 2,000" }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["mainstay", "mainstay_once", "mainstay_reports", "mainstay_no_ramp", "mainstay_in_turn"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["cold_p99", "success", "p50_ms", "p99_ms", "p999_ms", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let (steady, first) = (STEADY.mul_f64(run.scale), FIRST.mul_f64(run.scale));
        let comes = WARM_UP + steady;
        let end = comes + first;
        let rate = CAPACITY * run.point.get("load");
        simulate(run.seed, async |world| {
            let fleet = Fleet::builder()
                .servers(SERVERS + NEW, ServerOptions::default())
                .build(&world)
                .expect("valid servers");
            let registry = Registry::of(&fleet, 0..SERVERS);
            for number in 0..NEW {
                let registry = registry.clone();
                world.at(comes, move || {
                    registry.change(number, false);
                    registry.change(SERVERS + number, true);
                });
                warms_up(&world, fleet.server(SERVERS + number), comes);
            }
            let (recorder, terms) = (Recorder::new(), terms(run.contender));
            for client in 0..CLIENTS {
                let service = client_of(run.contender, &registry, &world, &fleet, client, terms);
                let load = OpenLoop::poisson(rate / f64::from(CLIENTS), end).client(client);
                spawn_load(load, service, &world, &recorder);
            }
            world.until(end).await;
            recorder.idle().await;
            let p99 = |from, to| {
                let part = Measured::new(&recorder, &fleet, from, to, terms.attempt_limit);
                part.summary().quantile(0.99).as_secs_f64()
            };
            let mut outcome = Measured::new(&recorder, &fleet, WARM_UP, end, terms.attempt_limit).outcome();
            outcome.metrics.insert("cold_p99", p99(comes, end) / p99(WARM_UP, comes));
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().map(|point| {
            let found = results.spread(&point, "mainstay", "cold_p99").map(|spread| spread.median);
            Claim::at_most(
                format!("{point}: mainstay: p99 of the first minute by the steady one"),
                found,
                1.3,
            )
        });
        claims.collect()
    }

    fn remarks(&self) -> &'static str {
        "`mainstay_no_ramp` has no slow start, and no retries: the estimate of latency alone keeps it from the cold ones. \
         `mainstay_in_turn` goes round without a look at load, and without slow start. tower's balancers \
         are not shown: their list of servers is fixed in this lab."
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault {
            from: STEADY.as_secs_f64(),
            to: (STEADY + FIRST).as_secs_f64(),
            what: "two of twenty are new",
        }]
    }
}

fn terms(contender: &str) -> Terms {
    Terms { attempts: if contender == "mainstay" { 3 } else { 1 }, ..Terms::default() }
}

fn client_of(
    contender: &str,
    registry: &Registry,
    world: &World,
    fleet: &Fleet,
    client: u32,
    terms: Terms,
) -> Sender {
    let mut options = BalanceOptions::default();
    match contender {
        "mainstay_reports" => options.reports = true,
        "mainstay_no_ramp" => options.slow_start = SlowStart::new(Duration::ZERO, options.slow_start.from),
        "mainstay_in_turn" => {
            options.distribution = Distribution::RoundRobin;
            options.slow_start = SlowStart::new(Duration::ZERO, options.slow_start.from);
        }
        _ => {}
    }
    let client = unconnected(fleet, terms, world.random(format!("client {client}")), options)
        .resolve(registry.watched())
        .connect_with(fleet.dial());
    let client = if contender == "mainstay_reports" { client.classify(Reporting) } else { client };
    BoxService::new(client.build().expect("valid options").map_err(Into::into))
}
