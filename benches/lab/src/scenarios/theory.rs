//! Row 1: what queueing theory says, to check the instrument by.

use std::time::Duration;

use mainstay::{
    random::Random as _,
    testing::{Distribution, Fleet, Request, ServerOptions, World},
};
use tower::{Service as _, ServiceExt as _};

use super::stage::{Stage, s};
use crate::{
    chart::{Chart, Line, Panel},
    measure::ms,
    scenario::{Claim, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Theory;

const SERVERS: usize = 500;
/// What a run may cost.
const REQUESTS: f64 = 90_000.0;
/// How far means and percentiles may be from theory.
const MEAN: f64 = 0.03;
const P99: f64 = 0.05;

impl Scenario for Theory {
    fn number(&self) -> u32 {
        1
    }

    fn name(&self) -> &'static str {
        "theory"
    }

    fn question(&self) -> &'static str {
        "Does the simulator agree with the theory of queues?"
    }

    fn setup(&self) -> String {
        "500 servers with one slot, first come first served, work Exp(1 s), no network; one client with a Poisson stream of \
         load x 500 requests a second. `random` is d = 1; it starts with the queues that theory says, since at load 0.95 it \
         would take half an hour to build them up. The others start empty: `oracle_p2c` and `oracle_p3c` look \
         into the queues, d = 2 and 3; `tower_pending` and `mainstay_in_flight` are the real layers, whose own counts are exact with a single \
         client. Theory: the mean field of Mitzenmacher, in which a queue is at least k long with probability \
         load^((d^k - 1) / (d - 1)), and Erlang's distribution for who finds k before him."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "load",
            values: &[0.7, 0.9, 0.95],
            means: "requests a second by the 500 that are served",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["random", "oracle_p2c", "oracle_p3c", "tower_pending", "mainstay_in_flight", "mainstay_in_flight_3"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["mean_ms", "mean_by_theory", "p99_ms", "p99_by_theory"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let load = run.point.get("load");
        let rate = load * SERVERS as f64;
        let draws = draws(run.contender);
        let lasts = Duration::from_secs((REQUESTS * run.scale / rate) as u64);
        let mut stage = Stage::new(1, rate);
        stage.warm_up = if draws == 1 { s(5) } else { lasts / 2 };
        stage.measured = lasts - stage.warm_up;
        // Nothing is cut off, ever.
        (stage.terms.attempt_limit, stage.terms.deadline) = (s(1_000_000), s(2_000_000));
        stage.play_and(
            run,
            |world| {
                let work = Distribution::Exponential(s(1));
                let servers = ServerOptions::default().slots(1).work(work);
                let fleet = Fleet::builder()
                    .servers(SERVERS, servers)
                    .delay(Duration::ZERO)
                    .build(world)
                    .expect("valid");
                if draws == 1 {
                    fill(world, &fleet, load);
                }
                fleet
            },
            |measured| {
                let mut outcome = measured.outcome();
                let summary = measured.summary();
                let (mean, p99) = (ms(summary.mean()), ms(summary.quantile(0.99)));
                let law = Law { load, draws };
                outcome.metrics.insert("mean_ms", mean);
                outcome.metrics.insert("mean_by_theory", mean / 1e3 / law.mean());
                outcome.metrics.insert("p99_by_theory", p99 / 1e3 / law.quantile(0.99));
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            for contender in results.contenders() {
                let off = |metric| {
                    results.spread(&point, contender, metric).map(|spread| (spread.median - 1.0).abs())
                };
                let at = format!("{point}, {contender} (d = {})", draws(contender));
                claims.push(Claim::at_most(format!("{at}: mean within 3 %"), off("mean_by_theory"), MEAN));
                claims.push(Claim::at_most(format!("{at}: p99 within 5 %"), off("p99_by_theory"), P99));
            }
        }
        claims
    }

    fn chart(&self, results: &Results) -> Chart {
        let loads = || results.points().into_iter();
        let line = |name: &str, value: &dyn Fn(&Point) -> Option<f64>, reference| Line {
            name: name.to_owned(),
            points: loads().filter_map(|point| Some((point.get("load"), value(&point)?))).collect(),
            reference,
        };
        let panel = |title: &str, metric: &'static str, theory: &dyn Fn(Law) -> f64| {
            let mut lines: Vec<Line> = [1, 2, 3]
                .into_iter()
                .map(|draws| {
                    let law = |point: &Point| Some(theory(Law { load: point.get("load"), draws }) * 1e3);
                    line(&format!("theory, d = {draws}"), &law, true)
                })
                .collect();
            lines.extend(results.contenders().into_iter().map(|contender| {
                let median = |point: &Point| Some(results.spread(point, contender, metric)?.median);
                line(contender, &median, false)
            }));
            Panel {
                title: title.to_owned(),
                x: "load".to_owned(),
                y: "ms".to_owned(),
                log_y: true,
                lines,
                ..Panel::default()
            }
        };
        Chart {
            title: "theory".to_owned(),
            panels: vec![
                panel("mean", "mean_ms", &|law| law.mean()),
                panel("99th percentile", "p99_ms", &|law| law.quantile(0.99)),
            ],
        }
    }
}

fn draws(contender: &str) -> i32 {
    match contender {
        "random" => 1,
        "oracle_p3c" | "mainstay_in_flight_3" => 3,
        _ => 2,
    }
}

/// The best of `draws` queues, with exponential work of mean 1 s.
#[derive(Clone, Copy)]
struct Law {
    load: f64,
    draws: i32,
}

impl Law {
    /// The share of the queues that are at least `length` long, the request in the slot included.
    fn at_least(self, length: i32) -> f64 {
        let exponent = match self.draws {
            1 => f64::from(length),
            d => (f64::from(d).powi(length) - 1.0) / f64::from(d - 1),
        };
        self.load.powf(exponent)
    }

    /// The chance to find exactly `length` before oneself.
    fn finds(self, length: i32) -> f64 {
        self.at_least(length).powi(self.draws) - self.at_least(length + 1).powi(self.draws)
    }

    fn lengths(self) -> impl Iterator<Item = (i32, f64)> {
        (0..100_000).map(move |length| (length, self.finds(length))).take_while(move |(length, _)| {
            // What is left out is not worth a digit.
            self.at_least(*length).powi(self.draws) > 1e-12
        })
    }

    /// In seconds.
    fn mean(self) -> f64 {
        self.lengths().map(|(length, chance)| chance * f64::from(length + 1)).sum()
    }

    /// The chance to take longer than `time`: who finds k before him waits for k + 1 exponential times.
    fn longer(self, time: f64) -> f64 {
        let (mut term, mut erlang, mut sum) = ((-time).exp(), (-time).exp(), 0.0);
        for (length, chance) in self.lengths() {
            sum += chance * erlang;
            term *= time / f64::from(length + 1);
            erlang += term;
        }
        sum
    }

    /// In seconds, by bisection.
    fn quantile(self, quantile: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1_000.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.longer(middle) > 1.0 - quantile { low = middle } else { high = middle }
        }
        low
    }
}

/// Fills the queues as theory says: the k-th of the servers, in random order, gets the k-th quantile of the distribution.
fn fill(world: &World, fleet: &Fleet, load: f64) {
    let (law, random) = (Law { load, draws: 1 }, world.random("queues"));
    let mut servers: Vec<usize> = (0..SERVERS).collect();
    for last in (1..SERVERS).rev() {
        servers.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
    for (rank, server) in servers.into_iter().enumerate() {
        let below = (rank as f64 + 0.5) / SERVERS as f64;
        let length = (0..).take_while(|length| law.at_least(length + 1) > 1.0 - below).count();
        for number in 0..length {
            let id = u64::MAX - (server * 10_000 + number) as u64;
            let mut service = fleet.reach(0, server);
            tokio::spawn(async move { service.ready().await?.call(Request::new(id)).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_gives_the_published_numbers() {
        let table = [
            (0.7, 1, 3.33, 15.4),
            (0.9, 1, 10.0, 46.1),
            (0.95, 1, 20.0, 92.1),
            (0.7, 2, 1.61, 6.56),
            (0.9, 2, 2.61, 8.79),
            (0.95, 2, 3.38, 10.2),
            (0.9, 3, 2.03, 7.31),
        ];
        for (load, draws, mean, p99) in table {
            let law = Law { load, draws };
            assert!((law.mean() / mean - 1.0).abs() < 0.005, "{load} {draws}: {}", law.mean());
            assert!((law.quantile(0.99) / p99 - 1.0).abs() < 0.005, "{load} {draws}: {}", law.quantile(0.99));
        }
    }
}
