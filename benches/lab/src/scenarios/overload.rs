//! Row 12: more than the fleet can do.

use std::time::Duration;

use mainstay::{
    Client,
    limit::{
        Algorithm, ConcurrencyLimitOptions,
        control::{AimdOptions, EbbOptions, Gradient2Options, VegasOptions},
    },
    testing::{Connection, Fleet, OpenLoop, Recorder, Request, ServerOptions, World, simulate},
};
use tower::{ServiceExt as _, util::BoxService};

use super::stage::{s, scaled, spawn_load};
use crate::{
    contender::{Terms, client},
    measure::{Measured, ms, within},
    scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Overload;

const CLIENTS: u32 = 20;
/// Requests a second that 20 x 4 slots do, at 40 ms.
pub const CAPACITY: f64 = 2_000.0;
/// The 99th percentile of exponential work of 40 ms, and the network.
pub const UNLOADED_P99_MS: f64 = 186.2;
/// Measured from here on: within so long a limit has to have found its number.
pub const SETTLED: Duration = s(3);
const REQUESTS: f64 = 90_000.0;
const SPIKE: Duration = s(10);
const SPIKE_ENDS: Duration = s(25);
const SPIKE_RUN: Duration = s(32);

impl Scenario for Overload {
    fn number(&self) -> u32 {
        12
    }

    fn name(&self) -> &'static str {
        "overload"
    }

    fn question(&self) -> &'static str {
        "Twenty clients ask for twice what the fleet can do, or a spike of 1.4 times: does it still do all it can?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots, work Exp(40 ms): 2,000 requests a second. 20 clients, open loop, one attempt of 1 s, a limit of \
         its own on each client; measured from 3 s on. `load` 2: twice the capacity for 22 s. `load` 1.4: the capacity, and 1.4 \
         times that from 10 to 25 s. Goodput is what is answered within 1 s. `mainstay_bounded` is told which latency is \
         too long: 126 ms, three times an idle answer."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "load",
            values: &[2.0, 1.4],
            means: "requests a second by 2,000; 1.4 is the spike",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["nothing", "aimd", "vegas", "gradient2", "mainstay", "mainstay_bounded"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["goodput_by_capacity", "admitted_p99_ms", "success", "amplification", "load_imbalance"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let load = run.point.get("load");
        let lasts =
            if load == 1.4 { SPIKE_RUN } else { Duration::from_secs_f64(REQUESTS / (CAPACITY * load)) };
        let end = SETTLED + scaled(lasts - SETTLED, run.scale);
        let share = |load: f64| CAPACITY * load / f64::from(CLIENTS);
        simulate(run.seed, async |world| {
            let fleet =
                Fleet::builder().servers(20, ServerOptions::default()).build(&world).expect("valid servers");
            let recorder = Recorder::new();
            for number in 0..CLIENTS {
                let client = limited(&world, &fleet, number, limit(run.contender));
                let load = if load == 1.4 {
                    OpenLoop::poisson(share(1.0), end).then(SPIKE, share(load)).then(SPIKE_ENDS, share(1.0))
                } else {
                    OpenLoop::poisson(share(load), end)
                };
                spawn_load(
                    load.client(number),
                    BoxService::new(client.map_err(Into::into)),
                    &world,
                    &recorder,
                );
            }
            world.until(end).await;
            recorder.idle().await;
            let measured = Measured::new(&recorder, &fleet, SETTLED, end, s(1));
            let mut outcome = measured.outcome();
            // In the spike alone, where there is one.
            let (from, to) =
                if load == 1.4 { (SPIKE + SETTLED, SPIKE_ENDS.min(end)) } else { (SETTLED, end) };
            let done = within(&measured.records, from, to).filter(|record| record.is_success());
            let mut took: Vec<Duration> = done.map(|record| record.took).collect();
            took.sort_unstable();
            let goodput =
                took.iter().filter(|took| **took <= s(1)).count() as f64 / (to - from).as_secs_f64();
            let p99 = took.get((took.len() as f64 * 0.99) as usize).copied().unwrap_or_default();
            outcome.metrics.insert("goodput_by_capacity", goodput / CAPACITY);
            outcome.metrics.insert("admitted_p99_ms", ms(p99));
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            for contender in ["mainstay", "mainstay_bounded"] {
                let median = |metric| results.spread(&point, contender, metric).map(|spread| spread.median);
                let owed = format!("{point}, {contender}: goodput at least 0.95 of the capacity from 3 s on");
                claims.push(Claim::at_least(owed, median("goodput_by_capacity"), 0.95));
                let owed = format!("{point}, {contender}: p99 of what is admitted at most 3 x 186 ms");
                claims.push(Claim::at_most(owed, median("admitted_p99_ms"), 3.0 * UNLOADED_P99_MS));
            }
        }
        claims
    }

    fn faults(&self, point: &Point) -> Vec<Fault> {
        if point.get("load") != 1.4 {
            return Vec::new();
        }
        let since = |at: Duration| (at - SETTLED).as_secs_f64();
        vec![Fault { from: since(SPIKE), to: since(SPIKE_ENDS), what: "spike" }]
    }

    fn remarks(&self) -> &'static str {
        "A client that shares servers sees the queue of all, and its own share of that is too small to be seen. `mainstay` goes by \
         its quickest answers: before a fleet they do not wait as the others do, and behind a slower network they would."
    }
}

/// A client with one attempt of a second, and a limit.
pub fn limited(
    world: &World,
    fleet: &Fleet,
    number: u32,
    limit: Option<ConcurrencyLimitOptions>,
) -> Client<Connection, Request> {
    let terms = Terms { deadline: s(1), attempts: 1, ..Terms::default() };
    let client = client(fleet, terms, world.random(format!("client {number}")), Default::default());
    client.limit(limit).build().expect("valid options")
}

/// The limit of a contender: few wait, and not for long.
pub fn limit(contender: &str) -> Option<ConcurrencyLimitOptions> {
    let algorithm = match contender {
        "nothing" => return None,
        "aimd" => Algorithm::Aimd(AimdOptions::default()),
        "vegas" => Algorithm::Vegas(VegasOptions::default()),
        "gradient2" => Algorithm::Gradient2(Gradient2Options::default()),
        "mainstay_bounded" => {
            Algorithm::Ebb(EbbOptions::default().range(8, 3, 200).longest(Duration::from_millis(126)))
        }
        _ => Algorithm::adaptive(),
    };
    let options = ConcurrencyLimitOptions::default().algorithm(algorithm);
    Some(options.max_waiting(8).max_wait(Duration::from_millis(500)))
}
