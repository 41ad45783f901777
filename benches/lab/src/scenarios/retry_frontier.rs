//! Row 10: what retries cost, and what they buy.

use mainstay::testing::{Fleet, ServerOptions, Trouble};

use super::stage::Stage;
use crate::{
    chart::{Chart, Line, Panel},
    scenario::{Claim, Outcome, Parameter, Results, Run, Scenario},
};

pub struct RetryFrontier;

impl Scenario for RetryFrontier {
    fn number(&self) -> u32 {
        10
    }

    fn name(&self) -> &'static str {
        "retry_frontier"
    }

    fn question(&self) -> &'static str {
        "A share of all requests fails: how much load do retries add, and how much do they save, with few busy clients and \
         with many sparse ones?"
    }

    fn setup(&self) -> String {
        "One server, any number of requests at a time, work Exp(40 ms), which answers a share of them with an error at once. \
         1,000 requests a second in all from 10, 100 or 1,000 clients, Poisson, 60 s; up to three attempts."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter {
                name: "clients",
                values: &[10.0, 100.0, 1_000.0],
                means: "clients that share the load",
            },
            Parameter {
                name: "fails",
                values: &[0.0, 0.05, 0.1, 0.25, 0.5, 0.75],
                means: "the share that fails",
            },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["nothing", "naive", "token_bucket", "tower_retry", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "amplification", "success_by_load", "p99_ms"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let stage = Stage::new(run.point.get("clients") as u32, 1_000.0).scaled(run.scale);
        let fails = run.point.get("fails");
        let mut outcome = stage.play(run, |world| {
            let servers = ServerOptions::default().slots(None);
            let fleet = Fleet::builder().servers(1, servers).build(world).expect("a valid server");
            if fails > 0.0 {
                fleet.server(0).trouble(fails, Trouble::Fail);
            }
            fleet
        });
        let by_load = outcome.metrics["success"] / outcome.metrics["amplification"];
        outcome.metrics.insert("success_by_load", by_load);
        outcome
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let median =
                |contender, metric| results.spread(&point, contender, metric).map(|spread| spread.median);
            if point.get("fails") >= 0.25 {
                let load = median("mainstay", "amplification");
                claims.push(Claim::at_most(format!("{point}: load at most 1.3"), load, 1.3));
            }
            if point.get("fails") == 0.05 {
                let success = median("mainstay", "success");
                claims.push(Claim::at_least(format!("{point}: success at least 0.997"), success, 0.997));
            }
            // What a unit of load saves: at the same load, who saves less has the lower success.
            let per_load = results.ratio(&point, "mainstay", "token_bucket", "success_by_load");
            let owed = format!("{point}: success by load at least 0.995 of the token bucket's");
            claims.push(Claim::at_least(owed, per_load.map(|ratio| ratio.median), 0.995));
        }
        claims
    }

    fn chart(&self, results: &Results) -> Chart {
        let panel = |clients: f64, metric: &'static str, title: &str| {
            let line = |contender: &'static str| {
                let points = results.points().into_iter().filter(|point| point.get("clients") == clients);
                let value = |point| Some(results.spread(&point, contender, metric)?.median);
                let points = points.filter_map(|point| Some((point.get("fails"), value(point)?)));
                Line { name: contender.to_owned(), points: points.collect(), reference: false }
            };
            Panel {
                title: format!("{clients} clients: {title}"),
                x: "share that fails".to_owned(),
                y: metric.to_owned(),
                lines: results.contenders().into_iter().map(line).collect(),
                ..Panel::default()
            }
        };
        let mut clients: Vec<f64> = results.points().iter().map(|point| point.get("clients")).collect();
        clients.dedup();
        let panels = clients.into_iter().flat_map(|clients| {
            [
                panel(clients, "amplification", "attempts by requests"),
                panel(clients, "success", "share that succeeds"),
            ]
        });
        Chart { title: "retry_frontier".to_owned(), panels: panels.collect() }
    }

    fn remarks(&self) -> &'static str {
        "Attempts fail independently here, so a policy's success is its load times the share that does not fail, whatever \
         the policy: all lie on one frontier, and what differs is where on it they stop."
    }
}
