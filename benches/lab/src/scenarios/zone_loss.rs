//! Row 17: a zone goes, or a part of the clients loses sight of it.

use std::time::Duration;

use mainstay::{
    Endpoint,
    balance::{BalanceOptions, Localities},
    endpoint::Locality,
    resolve,
    testing::{Fleet, OpenLoop, Recorder, Request, ServerOptions, World, simulate},
};
use tower::{ServiceExt as _, util::BoxService};

use super::stage::{Stage, s, spawn_load};
use crate::{
    contender::{Sender, Terms, unconnected},
    measure::Measured,
    scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct ZoneLoss;

const ZONES: usize = 3;
const SERVERS: usize = 10;
const CLIENTS: u32 = 30;
/// Requests a second, of all clients together: a fifth of what 30 x 4 slots / 40 ms can do.
const RATE: f64 = 600.0;
/// When the zone goes, in the measurement.
const GOES: u64 = 15;
/// When it is back.
const BACK: u64 = 45;
/// What tells the requests of the clients apart.
const NAMES: [&str; CLIENTS as usize] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18",
    "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29",
];
/// After the fault, until it is known to everybody.
const SETTLED: Duration = s(5);

impl Scenario for ZoneLoss {
    fn number(&self) -> u32 {
        17
    }

    fn name(&self) -> &'static str {
        "zone_loss"
    }

    fn question(&self) -> &'static str {
        "A zone goes, or a third of the clients cannot reach it: what is lost, and who bears the rest?"
    }

    fn setup(&self) -> String {
        "3 zones of 10 servers with 4 slots, work Exp(40 ms); 30 clients, 10 in each zone, that prefer their own zone; Poisson, 600 \
         requests a second in all. From 15 s to 45 s every server of zone 0 has crashed (`partial` 0), or every message between them \
         and the clients of zone 0 is lost, so that requests hang (`partial` 1). `mainstay_anywhere` does not look at zones. \
         `lost_per_link` is the most failed requests of one client by the ten servers that it lost; `survivors` is the busiest \
         server's load by the mean, over those that serve, from 5 s after the fault on to its end; `local` the share of the answers \
         from the own zone before the fault."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "partial",
            values: &[0.0, 1.0],
            means: "0: the zone crashes, 1: a third of the clients cannot reach it",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["mainstay_anywhere", "mainstay_once", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["failed", "lost_per_link", "survivors", "local", "amplification", "p50_ms", "p99_ms", "p999_ms"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let partial = run.point.get("partial") != 0.0;
        let stage = Stage::new(CLIENTS, RATE);
        let (goes, back) = (stage.at(s(GOES)), stage.at(s(BACK)));
        let end = stage.end();
        simulate(run.seed, async |world| {
            let fleet = Fleet::builder()
                .servers(ZONES * SERVERS, ServerOptions::default())
                .build(&world)
                .expect("valid servers");
            trouble(&world, &fleet, partial, goes, back);
            let recorder = Recorder::new();
            for (client, name) in (0..CLIENTS).zip(NAMES) {
                let service = client_of_a_zone(run.contender, &world, &fleet, client);
                let load = OpenLoop::poisson(RATE / f64::from(CLIENTS), end).client(client);
                spawn_load(load.requests(Request::new(0).operation(name)), service, &world, &recorder);
            }
            world.until(end).await;
            recorder.idle().await;
            let measured = Measured::new(&recorder, &fleet, stage.warm_up, end, stage.terms.attempt_limit);
            let mut outcome = measured.outcome();
            let (mut worst, mut local, mut answered) = (0_usize, 0_usize, 0_usize);
            for (client, name) in (0..CLIENTS).zip(NAMES) {
                let own = || measured.records.iter().filter(|record| record.operation == name);
                worst = worst.max(own().filter(|record| !record.is_success()).count());
                let before = own().filter(|record| record.due < goes).filter_map(|record| record.server);
                for server in before {
                    answered += 1;
                    local += usize::from(server / SERVERS == zone_of(client));
                }
            }
            let load: Vec<u64> = (0..fleet.len())
                .map(|server| fleet.server(server).received().between(goes + SETTLED, back))
                // A zone that nobody is left for is no survivor.
                .skip(SERVERS)
                .collect();
            let mean = load.iter().sum::<u64>() as f64 / load.len() as f64;
            let most = load.iter().max().copied().unwrap_or(0) as f64;
            outcome.metrics.insert("failed", 1.0 - outcome.metrics["success"]);
            outcome.metrics.insert("lost_per_link", worst as f64 / SERVERS as f64);
            outcome.metrics.insert("survivors", most / mean);
            outcome.metrics.insert("local", local as f64 / answered.max(1) as f64);
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let median = |contender: &str, metric: &str| {
                results.spread(&point, contender, metric).map(|spread| spread.median)
            };
            claims.push(Claim::at_most(
                format!("{point}: mainstay: failed at most 0.001"),
                median("mainstay", "failed"),
                0.001,
            ));
            claims.push(Claim::at_most(
                format!("{point}: mainstay_once: at most 5 lost for each client and lost endpoint"),
                median("mainstay_once", "lost_per_link"),
                5.0,
            ));
            claims.push(Claim::at_most(
                format!("{point}: mainstay: the busiest survivor at most 1.1 of the mean"),
                median("mainstay", "survivors"),
                1.1,
            ));
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "A client that loses sight of a zone has a second's requests under way there before the first of them times out, besides the \
         five in a row after which an endpoint is set aside. With retries they are answered elsewhere, by other zones. The busiest of \
         twenty survivors is as busy by chance as it is without any zones (`mainstay_anywhere`); between the zones the load is even."
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: GOES as f64, to: BACK as f64, what: "zone 0 away" }]
    }
}

/// The zone that a client stands in.
fn zone_of(client: u32) -> usize {
    client as usize % ZONES
}

fn trouble(world: &World, fleet: &Fleet, partial: bool, goes: Duration, back: Duration) {
    for server in 0..SERVERS {
        if partial {
            for client in (0..CLIENTS).filter(|client| zone_of(*client) == 0) {
                for (at, cut) in [(goes, true), (back, false)] {
                    let fleet = fleet.clone();
                    world.at(at, move || fleet.cut(client, server, cut));
                }
            }
        } else {
            let (crashes, starts) = (fleet.server(server), fleet.server(server));
            world.at(goes, move || crashes.crash());
            world.at(back, move || starts.start());
        }
    }
}

fn client_of_a_zone(contender: &str, world: &World, fleet: &Fleet, client: u32) -> Sender {
    let zone = |zone: usize| Locality::new("region", &format!("zone {zone}"), "");
    let endpoints = (0..fleet.len()).map(|server| -> Endpoint {
        fleet.endpoint(server).with_locality("region", &format!("zone {}", server / SERVERS), "")
    });
    let mut options = BalanceOptions::default();
    if contender != "mainstay_anywhere" {
        options.localities = Localities::at(zone(zone_of(client)));
    }
    let attempts = if contender == "mainstay_once" { 1 } else { 3 };
    // Each client stands at a place of its own, so that links can be cut.
    let terms = Terms { attempts, place: client, ..Terms::default() };
    let random = world.random(format!("client {client}"));
    let client = unconnected(fleet, terms, random, options)
        .resolve(resolve::fixed(endpoints.collect::<Vec<_>>()))
        .connect_with(fleet.dial_from(terms.place))
        .build()
        .expect("valid options");
    BoxService::new(client.map_err(Into::into))
}
