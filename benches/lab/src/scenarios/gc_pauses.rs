//! Row 8: every server stands still now and then.

use std::time::Duration;

use mainstay::{
    random::{Random as _, Seeded},
    testing::{Distribution, Fleet, ServerHandle, ServerOptions, World},
};

use super::stage::{MEASURED, Stage, scaled};
use crate::scenario::{Claim, Outcome, Parameter, Results, Run, Scenario};

pub struct GcPauses;

const SERVERS: usize = 20;
/// 20 x 4 slots / 40 ms.
const CAPACITY: f64 = 2_000.0;

impl Scenario for GcPauses {
    fn number(&self) -> u32 {
        8
    }

    fn name(&self) -> &'static str {
        "gc_pauses"
    }

    fn question(&self) -> &'static str {
        "Every server freezes now and then: do a few more requests hide it?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots. Each freezes for U(50, 500) ms, Exp(10 s) after the last time. Work Exp(40 ms) as everywhere, \
         and in a second variant always 40 ms, where nothing but the pauses is slow. 20 clients, Poisson, load 0.7 (1,400 \
         requests a second)."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "load", values: &[0.7], means: "requests a second by 2,000" },
            Parameter { name: "exponential", values: &[1.0, 0.0], means: "work Exp(40 ms), or always 40 ms" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["tower_ewma", "mainstay_once", "mainstay_hedged", "hedge_p98", "hedge_p95"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p50_ms", "p99_ms", "p999_ms", "amplification", "load_imbalance"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let mut stage = Stage::new(20, CAPACITY * run.point.get("load"));
        stage.measured = scaled(MEASURED, run.scale);
        let exponential = run.point.get("exponential") == 1.0;
        let work = if exponential { Distribution::exponential_ms(40) } else { Distribution::constant_ms(40) };
        let end = stage.end();
        stage.play(run, |world| {
            let options = ServerOptions::default().work(work);
            let fleet = Fleet::builder().servers(SERVERS, options).build(world).expect("valid servers");
            for number in 0..SERVERS {
                let random = world.random(format!("pauses {number}"));
                pause_now_and_then(world.clone(), fleet.server(number), random, end);
            }
            fleet
        })
    }

    fn remarks(&self) -> &'static str {
        "A third is owed in the row's own terms, with Exp(40 ms). There the tail is not only pauses: an attempt in a thousand \
         takes 276 ms by its work alone, and a hedge that goes out after the 99th percentile cannot end before it. What \
         hedging does to the pauses themselves is in the second variant: the servers stand still for 2.7 % of the time, so the \
         99th percentile lies in the middle of a pause, and what goes out after it comes too late. A third takes 5 % of hedges."
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let ratio = results.ratio(&point, "mainstay_hedged", "mainstay_once", "p999_ms");
            let owed = format!("{point}: p99.9 with hedging at most a third of that without");
            claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), 1.0 / 3.0));
            let load = results.spread(&point, "mainstay_hedged", "amplification").map(|spread| spread.median);
            claims.push(Claim::at_most(format!("{point}: at 2 % extra load"), load, 1.02));
        }
        claims
    }
}

fn pause_now_and_then(world: World, server: ServerHandle, random: Seeded, until: Duration) {
    let draw = |distribution: Distribution| distribution.draw(&random);
    let next = draw(Distribution::Exponential(Duration::from_secs(10)));
    let lasts = draw(Distribution::Uniform(Duration::from_millis(50), Duration::from_millis(500)));
    let _ = random.next();
    if world.now() < until {
        world.clone().after(next, move || {
            server.freeze(lasts);
            pause_now_and_then(world, server, random, until);
        });
    }
}
