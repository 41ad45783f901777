//! Row 16: a fleet is replaced in batches.

use std::time::Duration;

use mainstay::{
    balance::BalanceOptions,
    testing::{Fleet, OpenLoop, Recorder, ServerOptions, World, simulate},
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

pub struct RollingDeploy;

const SERVERS: usize = 100;
const BATCH: usize = 5;
const CLIENTS: u32 = 20;
/// Requests a second, of all clients together.
const RATE: f64 = 300.0;
const WARM_UP: Duration = s(5);
/// From the beginning of one batch to that of the next: twenty of them, within as many requests as a run may have.
const EVERY: Duration = s(14);
/// A server that is to go serves for so long, refuses what is new for a second while it ends what it has, and is gone.
const SERVES: Duration = s(5);
const REFUSES: Duration = s(1);
/// It is there again so long after it began to refuse.
const DOWN: Duration = s(10);
/// Clients see that it is back, and by default that it goes, so much later.
const SEEN: Duration = Duration::from_millis(500);

impl Scenario for RollingDeploy {
    fn number(&self) -> u32 {
        16
    }

    fn name(&self) -> &'static str {
        "rolling_deploy"
    }

    fn question(&self) -> &'static str {
        "A hundred servers are replaced in batches: does a request fail?"
    }

    fn setup(&self) -> String {
        "100 servers with 4 slots, work Exp(40 ms); 20 clients, connected ahead of requests; Poisson, 300 requests a second in all. From 5 s \
         on five servers are replaced every 14 s, until all are. One that is to go leaves the registry, and clients see that \
         `told_s` later; it serves for 5 s more, refuses what is new from then on and ends what it has, loses its connections a second \
         later, and is there again 10 s after it began to refuse, seen 0.5 s later, slower by 1 + 4 e^(-t / 10 s). With `told_s` 7 clients learn \
         of it when it has refused for 2 s, and been gone for one. `failed` is the number of requests."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "told_s",
            values: &[0.5, 7.0],
            means: "when clients see that a server goes, from when it leaves the registry",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["mainstay_once", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["failed", "amplification", "p50_ms", "p99_ms", "p999_ms"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let batches = ((SERVERS / BATCH) as f64 * run.scale).ceil() as u32;
        let end = WARM_UP + EVERY * batches + s(10);
        let told = Duration::from_secs_f64(run.point.get("told_s"));
        simulate(run.seed, async |world| {
            let fleet = Fleet::builder()
                .servers(SERVERS, ServerOptions::default())
                .build(&world)
                .expect("valid servers");
            let registry = Registry::of(&fleet, 0..SERVERS);
            for batch in 0..batches as usize {
                let begins = WARM_UP + EVERY * batch as u32;
                for server in batch * BATCH..(batch + 1) * BATCH {
                    replace(&world, &fleet, &registry, server, begins, told);
                }
            }
            let (recorder, terms) = (Recorder::new(), terms(run.contender));
            for client in 0..CLIENTS {
                let service = client_of(&registry, &world, &fleet, client, terms);
                let load = OpenLoop::poisson(RATE / f64::from(CLIENTS), end).client(client);
                spawn_load(load, service, &world, &recorder);
            }
            world.until(end).await;
            recorder.idle().await;
            let measured = Measured::new(&recorder, &fleet, WARM_UP, end, terms.attempt_limit);
            let mut outcome = measured.outcome();
            let failed = measured.records.iter().filter(|record| !record.is_success()).count() as f64;
            outcome.metrics.insert("failed", failed);
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().map(|point| {
            let failed = results.spread(&point, "mainstay", "failed").map(|spread| spread.greatest);
            Claim::at_most(format!("{point}: mainstay: no failed request with any seed"), failed, 0.0)
        });
        claims.collect()
    }

    fn remarks(&self) -> &'static str {
        "What fails without retries although clients were told in time has met a cold server, five times as slow as usual, and lasted \
         longer than the attempt limit."
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault {
            from: 0.0,
            to: (EVERY * (SERVERS / BATCH) as u32).as_secs_f64(),
            what: "being replaced",
        }]
    }
}

/// One server goes, and comes back cold.
fn replace(
    world: &World,
    fleet: &Fleet,
    registry: &Registry,
    server: usize,
    begins: Duration,
    told: Duration,
) {
    let refuses = begins + SERVES;
    let back = refuses + DOWN;
    for (at, present) in [(begins + told, false), (back + SEEN, true)] {
        let registry = registry.clone();
        world.at(at, move || registry.change(server, present));
    }
    let (drains, restarts) = (fleet.server(server), fleet.server(server));
    world.at(refuses, move || drains.drain());
    world.at(refuses + REFUSES, move || restarts.restart(DOWN - REFUSES));
    warms_up(world, fleet.server(server), back);
}

fn terms(contender: &str) -> Terms {
    Terms { attempts: if contender == "mainstay_once" { 1 } else { 3 }, ..Terms::default() }
}

fn client_of(registry: &Registry, world: &World, fleet: &Fleet, client: u32, terms: Terms) -> Sender {
    let random = world.random(format!("client {client}"));
    let client = unconnected(fleet, terms, random, BalanceOptions::default())
        .resolve(registry.watched())
        .connect_with(fleet.dial())
        .build()
        .expect("valid options");
    BoxService::new(client.map_err(Into::into))
}
