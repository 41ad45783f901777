//! Beyond the rows: fleets, loads and faults drawn at random.

use std::time::Duration;

use mainstay::{
    Ratio,
    random::{Random as _, Seeded},
    testing::{Distribution, Fleet, ServerOptions, Trouble, World},
};

use super::stage::{Stage, s, scaled};
use crate::{
    chart::{Chart, Line, Panel},
    scenario::{Claim, Outcome, Parameter, Point, Results, Run, Scenario},
};

/// The kinds of faults, by their numbers in the table.
const FAULTS: [&str; 6] =
    ["none", "slow", "failing at once", "failing half", "hanging", "speeds that change"];
const NONE: u32 = 0;
const SLOW: u32 = 1;
const FAILING: u32 = 2;
const FAILING_HALF: u32 = 3;
const HANGING: u32 = 4;
const CHANGING: u32 = 5;

pub struct Sweep;

/// A world of its own for each seed.
#[derive(Debug)]
struct Scene {
    servers: usize,
    slots: u32,
    clients: u32,
    load: f64,
    /// In ms.
    mean: u64,
    work: Distribution,
    delay: Duration,
    /// The speed of each server: one fleet in two is of one kind.
    speeds: Vec<f64>,
    fault: u32,
    /// How many servers have it.
    faulty: usize,
}

const REQUESTS: f64 = 40_000.0;
const WARM_UP: Duration = s(5);
const SHORTEST: Duration = s(5);
const LONGEST: Duration = s(1_200);

/// How many of the servers, from the first on and at most a fifth or one, can be missed: the others have a twentieth to
/// spare.
fn bearable(speeds: &[f64], load: f64) -> usize {
    let all: f64 = speeds.iter().sum();
    let most = (speeds.len() / 5).max(1);
    let rest = |count: usize| speeds[count..].iter().sum::<f64>();
    (0..=most).rev().find(|count| rest(*count) * 0.95 >= load * all).unwrap_or(0)
}

impl Scene {
    fn drawn(random: &Seeded) -> Self {
        let unit = || (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let one_of = |values: &[u32]| values[(random.next() % values.len() as u64) as usize];
        let servers = one_of(&[3, 5, 10, 20, 50, 100]) as usize;
        let slots = one_of(&[1, 2, 4, 16]);
        let clients = one_of(&[1, 3, 10, 30, 100]);
        let load = 0.3 + 0.65 * unit();
        let mean = u64::from(one_of(&[25, 40, 80, 160]));
        let ms = Duration::from_millis(mean);
        let work = match one_of(&[0, 1, 2, 3, 4]) {
            0 => Distribution::Constant(ms),
            1 | 2 => Distribution::Exponential(ms),
            // The same mean, with a heavy tail.
            3 => Distribution::LogNormal { median: ms.mul_f64((-0.5_f64).exp()), sigma: 1.0 },
            _ => {
                let (short, long) = (ms.mul_f64(0.5), ms.mul_f64(5.5));
                Distribution::Mixture(
                    [(0.9, Distribution::Exponential(short)), (0.1, Distribution::Exponential(long))].into(),
                )
            }
        };
        let delay = Duration::from_millis(u64::from(one_of(&[1, 5, 20])));
        let differ = random.next().is_multiple_of(2);
        let speeds: Vec<f64> = (0..servers).map(|_| if differ { 0.4 + 0.6 * unit() } else { 1.0 }).collect();
        let fault = one_of(&[NONE, SLOW, FAILING, FAILING_HALF, HANGING, CHANGING]);
        let faulty = if matches!(fault, NONE | CHANGING) { 0 } else { bearable(&speeds, load) };
        let fault = if faulty == 0 && fault != CHANGING { NONE } else { fault };
        Self { servers, slots, clients, load, mean, work, delay, speeds, fault, faulty }
    }

    /// Requests a second that the fleet is worth, at most so many that a run stays short.
    fn rate(&self) -> f64 {
        let speed: f64 = self.speeds.iter().sum();
        self.load * speed * f64::from(self.slots) * 1e3 / self.mean as f64
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs_f64(REQUESTS / self.rate()).clamp(SHORTEST, LONGEST)
    }

    fn build(&self, world: &World, fault: Duration, until: Duration) -> Fleet {
        let server =
            |speed: &f64| ServerOptions::default().slots(self.slots).work(self.work.clone()).speed(*speed);
        let builder = Fleet::builder().delay(self.delay);
        let fleet = self.speeds.iter().fold(builder, |builder, speed| builder.servers(1, server(speed)));
        let fleet = fleet.build(world).expect("valid servers");
        for number in 0..self.faulty {
            let (server, kind, speed) = (fleet.server(number), self.fault, self.speeds[number]);
            world.at(fault, move || match kind {
                SLOW => server.set_speed(speed / 10.0).expect("a finite speed"),
                FAILING => server.trouble(Ratio::ONE, Trouble::Fail),
                FAILING_HALF => server.trouble(Ratio::percent::<50>(), Trouble::FailLate),
                _ => server.trouble(Ratio::ONE, Trouble::Hang),
            });
        }
        if self.fault == CHANGING {
            for (number, speed) in self.speeds.iter().enumerate() {
                change(
                    world.clone(),
                    fleet.server(number),
                    *speed,
                    world.random(format!("speed {number}")),
                    until,
                );
            }
        }
        fleet
    }
}

/// Draws a speed around the usual one about every two seconds.
fn change(
    world: World,
    server: mainstay::testing::ServerHandle,
    usual: f64,
    random: Seeded,
    until: Duration,
) {
    let unit = |random: &Seeded| (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    server.set_speed(usual * (0.6 + 0.8 * unit(&random))).expect("a finite speed");
    let next = Duration::from_secs_f64(1.0 + 2.0 * unit(&random));
    if world.now() < until {
        world.clone().after(next, move || change(world, server, usual, random, until));
    }
}

impl Scenario for Sweep {
    fn number(&self) -> u32 {
        22
    }

    fn name(&self) -> &'static str {
        "sweep"
    }

    fn question(&self) -> &'static str {
        "Fleets, loads, distributions and faults drawn at random: how much better is it usually, and how bad is the worst?"
    }

    fn setup(&self) -> String {
        format!(
            "Each seed draws a world: 3 to 100 servers with 1 to 16 slots, all alike or with speeds from 0.4 to 1; 1 to 100 \
             clients; load 0.3 to 0.95; work of 25 to 160 ms that is constant, exponential, log-normal (sigma 1) or of two \
             kinds; 1, 5 or 20 ms each way; and a fault from a third of the time on: {}. Up to a fifth of the servers have it, \
             as long as the others can do the work. About 40,000 requests, 5 s to 20 min. Attempts end after 1 s, or 20 times the \
             mean of the work if that is longer. No row of the table has these worlds: nothing was chosen by them.",
            FAULTS.join(", "),
        )
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &[
            "tower_pending",
            "tower_ewma",
            "mainstay_two",
            "mainstay_once",
            "mainstay_six",
            "mainstay_answered",
            "mainstay",
        ]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "p50_ms", "p99_ms", "p999_ms", "load_imbalance", "amplification"]
    }

    fn seeds(&self) -> u64 {
        40
    }

    fn run(&self, run: &Run) -> Outcome {
        let scene = Scene::drawn(&Seeded::new(run.seed.wrapping_mul(0x5851_F42D_4C95_7F2D)));
        let mut stage = Stage::new(scene.clients, scene.rate());
        stage.warm_up = WARM_UP;
        stage.measured = scaled(scene.lasts(), run.scale).max(s(2));
        stage.terms.attempt_limit = stage.terms.attempt_limit.max(Duration::from_millis(scene.mean * 20));
        stage.terms.deadline = stage.terms.attempt_limit * 3;
        let (fault, end) = (stage.at(stage.measured / 3), stage.end());
        let mut outcome = stage.play(run, |world| scene.build(world, fault, end));
        let world = [
            ("servers", scene.servers as f64),
            ("slots", f64::from(scene.slots)),
            ("clients", f64::from(scene.clients)),
            ("load", scene.load),
            ("work_mean", scene.mean as f64),
            ("fault", f64::from(scene.fault)),
        ];
        outcome.metrics.extend(world);
        // Worlds of their own have no common course.
        outcome.timeline.clear();
        outcome
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let ratios = ratios(results, &point, "mainstay_once");
            let median = crate::scenario::Spread::of(ratios.iter().map(|(ratio, _)| *ratio))
                .map(|spread| spread.median);
            let owed = "p99 by the better of tower_ewma's and tower_pending's: at most 1 in the median of the worlds";
            claims.push(Claim::at_most(owed, median, 1.0));
            let worst = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0));
            let mut claim = Claim::at_most(
                "the same: at most 1.1 in the worst of the worlds",
                worst.map(|(ratio, _)| *ratio),
                1.1,
            );
            if let Some((_, seed)) = worst {
                claim.found = format!("{} (seed {seed}: {})", claim.found, world_of(results, &point, *seed));
            }
            claims.push(claim);
            let lost = lost(results, &point, "mainstay_once");
            let worst = lost.iter().max_by(|a, b| a.0.total_cmp(&b.0));
            let owed = "failures above those of the better of tower's two: at most 0.002 of the requests in the worst";
            let mut claim = Claim::at_most(owed, worst.map(|(more, _)| *more), 0.002);
            if let Some((_, seed)) = worst {
                claim.found = format!("{} (seed {seed}: {})", claim.found, world_of(results, &point, *seed));
            }
            claims.push(claim);
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "Where errors or timeouts are more than 1 % of the requests of both, the p99 of both is the attempt limit, and their \
         ratio 1: the success tells them apart there. What the worst worlds have in common is a small fleet of one-slot servers \
         that is overloaded for a while: timeouts come in rows, five in a row set a server aside, and the others have more to do. \
         And at a load of 0.94 retries within the budget of 20 % are more than there is room for: where `mainstay` has a lower \
         success than `mainstay_once`, that is why. Both are known, and not mended yet."
    }

    fn chart(&self, results: &Results) -> Chart {
        let line = |contender: &str, point: &Point| {
            let mut found: Vec<f64> =
                ratios(results, point, contender).into_iter().map(|(ratio, _)| ratio).collect();
            found.sort_by(f64::total_cmp);
            let count = found.len() as f64;
            let points =
                found.into_iter().zip(1..).map(|(ratio, rank)| (f64::from(rank) / count, ratio)).collect();
            Line { name: contender.to_owned(), points, reference: false }
        };
        let panels = results.points().into_iter().map(|point| {
            let mut lines: Vec<Line> = ["mainstay_two", "mainstay_once", "mainstay_six"]
                .map(|contender| line(contender, &point))
                .into();
            lines.push(Line {
                name: "as good".to_owned(),
                points: vec![(0.0, 1.0), (1.0, 1.0)],
                reference: true,
            });
            Panel {
                title: "p99 by the better of tower's two, worlds in order".to_owned(),
                x: "share of the worlds".to_owned(),
                y: "ratio".to_owned(),
                lines,
                ..Panel::default()
            }
        });
        Chart { title: "sweep".to_owned(), panels: panels.collect() }
    }
}

fn value(results: &Results, point: &Point, contender: &str, seed: u64, metric: &str) -> Option<f64> {
    let run = results.of(point, contender).find(|run| run.run.seed == seed)?;
    run.outcome.metrics.get(metric).copied()
}

fn seeds(results: &Results, point: &Point, contender: &str) -> Vec<u64> {
    results.of(point, contender).map(|run| run.run.seed).collect()
}

/// p99 by the better of tower's two, and the seed, for each world.
fn ratios(results: &Results, point: &Point, contender: &str) -> Vec<(f64, u64)> {
    let ratio = |seed| {
        let p99 = |contender| value(results, point, contender, seed, "p99_ms");
        Some((p99(contender)? / p99("tower_ewma")?.min(p99("tower_pending")?), seed))
    };
    seeds(results, point, contender).into_iter().filter_map(ratio).collect()
}

/// By how much more of the requests fail than with the better of tower's two.
fn lost(results: &Results, point: &Point, contender: &str) -> Vec<(f64, u64)> {
    let more = |seed| {
        let success = |contender| value(results, point, contender, seed, "success");
        Some((success("tower_ewma")?.max(success("tower_pending")?) - success(contender)?, seed))
    };
    seeds(results, point, contender).into_iter().filter_map(more).collect()
}

fn world_of(results: &Results, point: &Point, seed: u64) -> String {
    let of = |metric| value(results, point, "mainstay_once", seed, metric).unwrap_or(f64::NAN);
    let fault = FAULTS.get(of("fault") as usize).copied().unwrap_or("unknown");
    format!(
        "{} servers x {} slots, {} clients, load {:.2}, work {} ms, fault: {fault}",
        of("servers"),
        of("slots"),
        of("clients"),
        of("load"),
        of("work_mean"),
    )
}
