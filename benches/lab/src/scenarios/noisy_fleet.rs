//! Row 4: servers that differ, and change every second.

use std::time::Duration;

use mainstay::{
    random::{Random as _, Seeded},
    testing::{Distribution, Fleet, ServerHandle, ServerOptions, World},
};

use super::stage::{MEASURED, Stage, scaled};
use crate::scenario::{Claim, Outcome, Parameter, Results, Run, Scenario};

pub struct NoisyFleet;

/// Half of the servers are built half as fast.
const SLOW: f64 = 0.5;
/// Requests a second that the fleet is worth at speed 1 for the fast half: 15 x 4 slots / 40 ms.
const CAPACITY: f64 = 1_500.0;
const SERVERS: usize = 20;

impl Scenario for NoisyFleet {
    fn number(&self) -> u32 {
        4
    }

    fn name(&self) -> &'static str {
        "noisy_fleet"
    }

    fn question(&self) -> &'static str {
        "Twenty clients see little of twenty servers whose speeds change every second: how long is the tail?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots, first come first served; ten of them have base speed 0.5, the others 1. Six, by the seed, \
         are noisy. Every U(700, 1300) ms each draws a factor: a noisy one U(0.3, 0.7) or U(0.9, 1.3) by a coin, a quiet one \
         U(1.2, 2.0). Work Exp(40 ms), speed base x factor. 20 clients with Poisson streams, load x 1,500 requests a \
         second in all. Attempts end after 1 s."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "load", values: &[0.7, 0.9, 1.05], means: "requests a second by 1,500" },
            Parameter { name: "clients", values: &[20.0], means: "clients that share the load" },
            Parameter { name: "noisy", values: &[6.0], means: "how many of the 20 servers are noisy" },
            Parameter { name: "network_ms", values: &[1.0], means: "one way" },
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
            "mainstay_two",
            "mainstay_six",
            "mainstay_peak",
            "mainstay_in_flight",
            "oracle_p2c",
            "oracle_all",
        ]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "load_imbalance", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let clients = run.point.get("clients") as u32;
        let mut stage = Stage::new(clients, CAPACITY * run.point.get("load"));
        stage.measured = scaled(MEASURED, run.scale);
        let count = run.point.get("noisy") as usize;
        let delay = Duration::from_secs_f64(run.point.get("network_ms") / 1e3);
        let end = stage.end();
        stage.play(run, |world| {
            let options = ServerOptions::default().work(Distribution::exponential_ms(40));
            let fleet =
                Fleet::builder().servers(SERVERS, options).delay(delay).build(world).expect("valid servers");
            let noisy = noisy(count, &world.random("noisy"));
            for number in 0..SERVERS {
                let random = world.random(format!("speed {number}"));
                let base = if number < SERVERS / 2 { SLOW } else { 1.0 };
                let noisy = noisy.contains(&number);
                change_speed(world.clone(), fleet.server(number), base, noisy, random, end);
            }
            fleet
        })
    }

    fn remarks(&self) -> &'static str {
        "`mainstay_reports` hears from the servers on each answer how much they have in flight. \
         `oracle_p2c` sees the true queues and speeds of two: what is left to it, and to `oracle_all`, is what 3.75 requests a \
         second from each client to each server do not show. It matters which servers are noisy, so the seed decides."
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let bounds = [(0.7, 0.86, 0.73), (0.9, 0.85, 0.67), (1.05, 0.80, 0.67)];
        let claims = results.points().into_iter().flat_map(|point| {
            let load = point.get("load");
            let bounds = bounds.iter().find(|(own, ..)| *own == load);
            let claim = |help: &str, contender: &str, bound: f64| {
                let ratio = results.ratio(&point, contender, "tower_ewma", "p99_ms");
                let owed = format!("load {load}: p99 {help} at most {bound} of tower_ewma's");
                Claim::at_most(owed, ratio.map(|ratio| ratio.median), bound)
            };
            bounds
                .into_iter()
                .flat_map(move |(_, without, with)| {
                    [
                        claim("without help", "mainstay_once", *without),
                        claim("with reports", "mainstay_reports", *with),
                    ]
                })
                .collect::<Vec<_>>()
        });
        claims.collect()
    }
}

/// So many of the twenty, by the seed.
fn noisy(count: usize, random: &Seeded) -> Vec<usize> {
    let mut servers: Vec<usize> = (0..SERVERS).collect();
    (0..count.min(SERVERS))
        .map(|_| servers.swap_remove((random.next() % servers.len() as u64) as usize))
        .collect()
}

/// Draws a factor now and about every second.
fn change_speed(world: World, server: ServerHandle, base: f64, noisy: bool, random: Seeded, until: Duration) {
    let uniform =
        |from: f64, to: f64| from + (to - from) * (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    // Always the same number of draws.
    let (coin, unit) = (uniform(0.0, 1.0), uniform(0.0, 1.0));
    let (from, to) = match noisy {
        true if coin < 0.5 => (0.3, 0.7),
        true => (0.9, 1.3),
        false => (1.2, 2.0),
    };
    server.set_speed(base * (from + (to - from) * unit)).expect("a finite speed");
    let next = Duration::from_secs_f64(uniform(0.7, 1.3));
    if world.now() < until {
        world.clone().after(next, move || change_speed(world, server, base, noisy, random, until));
    }
}
