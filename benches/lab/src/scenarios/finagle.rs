//! Row 3: the cases of Finagle's own simulator.

use std::time::Duration;

use mainstay::testing::{Fleet, ServerHandle, ServerOptions, Trouble, World};

use super::{
    stage::{Stage, s},
    trace,
};
use crate::scenario::{Claim, Fault, Outcome, Parameter, Point, Results, Run, Scenario};

pub struct Finagle;

const BAD: usize = 4;
const COLD_START: f64 = 1.0;
const SLOW_MIDDLE: f64 = 2.0;
const CASES: [&str; 6] = [
    "cold start",
    "slow middle",
    "fails at once from 10 to 25 s",
    "hangs from 10 to 25 s",
    "fails at once from 10 s on",
    "hangs from 10 s on",
];

impl Scenario for Finagle {
    fn number(&self) -> u32 {
        3
    }

    fn name(&self) -> &'static str {
        "finagle"
    }

    fn question(&self) -> &'static str {
        "One of ten servers is cold, slow, failing or dead: who notices?"
    }

    fn setup(&self) -> String {
        "10 servers, any number of requests at a time, latencies of the trace; one client, Poisson, 1,250 requests a second, \
         45 s without a warm-up. Case 1: one server is cold, slower by min(5, 10 s / t) until 10 s, and ten times slower \
         from 19 to 23 s. Case 2: ten times slower from 15 to 45 s. Cases 3 and 4: fails at once, or never answers, from \
         10 to 25 s. Cases 5 and 6: the same from 10 s on."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "case",
            values: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            means: "1 cold start, 2 slow middle, 3 and 4 failing and hanging for a time, 5 and 6 for good",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["random", "round_robin", "tower_pending", "tower_ewma", "mainstay", "mainstay_once"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p50_ms", "p99_ms", "p999_ms", "detect_s", "load_imbalance", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let case = run.point.get("case");
        let mut stage = Stage::new(1, 1_250.0);
        (stage.warm_up, stage.measured) = (Duration::ZERO, s(45));
        let fault = fault(case);
        stage.scaled(run.scale).play_and(
            run,
            |world| {
                let servers = ServerOptions::default().slots(None).work(trace::latencies());
                let fleet = Fleet::builder().servers(10, servers).build(world).expect("valid servers");
                happen(case, world, &fleet.server(BAD));
                fleet
            },
            |measured| {
                let mut outcome = measured.outcome();
                outcome
                    .metrics
                    .insert("detect_s", measured.detected(BAD, Duration::from_secs_f64(fault.from)));
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let case = point.get("case");
            let name = CASES.get(case as usize - 1).copied().unwrap_or("a case of its own");
            let ratio = results.ratio(&point, "mainstay", "tower_ewma", "p999_ms");
            let owed = format!("{name}: p99.9 at most tower_ewma's");
            claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), 1.0));
            if case > SLOW_MIDDLE {
                let success = results.spread(&point, "mainstay", "success").map(|spread| spread.median);
                claims.push(Claim::at_least(format!("{name}: success at least 0.999"), success, 0.999));
            }
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "A request that failed counts as at least the attempt limit. By the bare time to a result, which takes a fast error for a fast answer, the \
         p99.9 of mainstay in cases 3 and 5 is within a thousandth of tower's, above it."
    }

    fn faults(&self, point: &Point) -> Vec<Fault> {
        vec![fault(point.get("case"))]
    }
}

fn fault(case: f64) -> Fault {
    let (from, to, what) = match case {
        COLD_START => (0.0, 23.0, "cold, and slow again"),
        SLOW_MIDDLE => (15.0, 45.0, "ten times slower"),
        3.0 | 4.0 => (10.0, 25.0, "bad"),
        _ => (10.0, 45.0, "bad"),
    };
    Fault { from, to, what }
}

fn happen(case: f64, world: &World, server: &ServerHandle) {
    let at = |seconds: f64, what: &'static dyn ActionOn| {
        let server = server.clone();
        world.at(Duration::from_secs_f64(seconds), move || what.act(&server));
    };
    match case {
        COLD_START => {
            for tenth in 1..=100_u32 {
                let seconds = f64::from(tenth) / 10.0;
                let (server, speed) = (server.clone(), 1.0 / (10.0 / seconds).clamp(1.0, 5.0));
                world.at(Duration::from_secs_f64(seconds - 0.1), move || speed_of(&server, speed));
            }
            at(19.0, &|server: &ServerHandle| speed_of(server, 0.1));
            at(23.0, &|server: &ServerHandle| speed_of(server, 1.0));
        }
        SLOW_MIDDLE => {
            at(15.0, &|server: &ServerHandle| speed_of(server, 0.1));
            at(45.0, &|server: &ServerHandle| speed_of(server, 1.0));
        }
        _ => {
            if case % 2.0 == 1.0 {
                at(10.0, &|server: &ServerHandle| server.trouble(1.0, Trouble::Fail));
            } else {
                at(10.0, &|server: &ServerHandle| server.trouble(1.0, Trouble::Hang));
            }
            if case <= 4.0 {
                at(25.0, &|server: &ServerHandle| server.recover());
            }
        }
    }
}

/// Something that is done to a server.
trait ActionOn: Send + Sync {
    fn act(&self, server: &ServerHandle);
}

impl<F: Fn(&ServerHandle) + Send + Sync> ActionOn for F {
    fn act(&self, server: &ServerHandle) {
        self(server);
    }
}

fn speed_of(server: &ServerHandle, speed: f64) {
    server.set_speed(speed).expect("a finite speed");
}
