//! Row 14: how much hedging a fleet can stand.

use mainstay::testing::{Distribution, Fleet, ServerOptions};

use super::stage::Stage;
use crate::{
    chart::{Chart, Line, Panel},
    measure::ms,
    scenario::{Claim, Outcome, Parameter, Results, Run, Scenario},
};

pub struct HedgingFrontier;

const SERVERS: usize = 20;
const CLIENTS: u32 = 20;
const SLOTS: u32 = 4;
/// The mean work of an attempt: 99 of 100 take Exp(40 ms), one Exp(800 ms).
const WORK: f64 = 0.0476;

impl Scenario for HedgingFrontier {
    fn number(&self) -> u32 {
        14
    }

    fn name(&self) -> &'static str {
        "hedging_frontier"
    }

    fn question(&self) -> &'static str {
        "From which load on does hedging do harm?"
    }

    fn setup(&self) -> String {
        "20 servers with 4 slots; of 100 attempts 99 take Exp(40 ms), one Exp(800 ms), by chance and wherever it goes. 20 clients, \
         Poisson, load as a share of the 1,681 requests a second that the fleet can work on; what was cancelled keeps its slot \
         to the end. One attempt, with others beside it."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            name: "load",
            values: &[0.1, 0.3, 0.45, 0.6, 0.75, 0.9, 0.95],
            means: "requests a second by 1,681",
        }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["mainstay_once", "hedge_always", "hedge_p95", "mainstay_hedged", "hedge_spare"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success", "mean_ms", "p50_ms", "p99_ms", "p999_ms", "amplification"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let rate = f64::from(SERVERS as u32 * SLOTS) / WORK * run.point.get("load");
        let mut stage = Stage::new(CLIENTS, rate).scaled(run.scale);
        stage.terms.capacity = Some(SERVERS as u32 * SLOTS / CLIENTS);
        stage.play_and(
            run,
            |world| {
                let work = Distribution::Mixture(
                    [(0.99, Distribution::exponential_ms(40)), (0.01, Distribution::exponential_ms(800))]
                        .into(),
                );
                let options = ServerOptions::default().slots(SLOTS).work(work);
                Fleet::builder().servers(SERVERS, options).build(world).expect("valid servers")
            },
            |measured| {
                let mut outcome = measured.outcome();
                outcome.metrics.insert("mean_ms", ms(measured.summary().mean()));
                outcome
            },
        )
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            let load = point.get("load");
            let bound = if load > 0.9 { 1.05 } else { 1.02 };
            for contender in ["mainstay_hedged", "hedge_spare"] {
                for metric in ["mean_ms", "p99_ms"] {
                    let ratio = results.ratio(&point, contender, "mainstay_once", metric);
                    let owed = format!("{point}, {contender}: {metric} at most {bound} of that without");
                    claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), bound));
                }
            }
            if load < 0.5 {
                let ratio = results.ratio(&point, "hedge_spare", "mainstay_once", "p99_ms");
                let owed = format!("{point}, hedge_spare: p99 at most half of that without");
                claims.push(Claim::at_most(owed, ratio.map(|ratio| ratio.median), 0.5));
            }
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "A hedge after the 99th percentile cannot move the 99th percentile: what `mainstay_hedged` does for 2 % is seen in the mean and at \
         99.9 %. To halve the p99 about a third of the requests have to be hedged, which a fleet can stand as long as it is half idle: \
         `hedge_spare` does, and is told how many slots are its own. Who is not told cannot know how full the fleet is: at 90 % of the load \
         the one hedge in a hundred that `mainstay_hedged` still sends costs the others 2 % of their mean."
    }

    fn chart(&self, results: &Results) -> Chart {
        let panel = |metric: &'static str, title: &str| {
            let line = |contender: &'static str| {
                let value = |point| Some(results.ratio(&point, contender, "mainstay_once", metric)?.median);
                let points = results.points().into_iter();
                let points = points.filter_map(|point| Some((point.get("load"), value(point)?)));
                Line { name: contender.to_owned(), points: points.collect(), reference: false }
            };
            Panel {
                title: title.to_owned(),
                x: "load".to_owned(),
                y: metric.to_owned(),
                lines: results.contenders().into_iter().map(line).collect(),
                ..Panel::default()
            }
        };
        let panels = vec![panel("mean_ms", "mean, by that without"), panel("p99_ms", "p99, by that without")];
        Chart { title: "hedging_frontier".to_owned(), panels }
    }
}
