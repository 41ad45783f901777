//! Row 13: who gets through when not all can.

use std::time::Duration;

use mainstay::{
    describe::Criticality,
    testing::{Fleet, OpenLoop, Recorder, Request, ServerOptions, simulate},
};
use tower::{ServiceExt as _, retry::Retry, util::BoxService};

use super::{
    overload::{CAPACITY, SETTLED, limit, limited},
    stage::{s, scaled, spawn_load},
};
use crate::{
    contender::Naive,
    measure::Measured,
    scenario::{Claim, Metrics, Outcome, Parameter, Results, Run, Scenario},
};

pub struct Priority;

const CLIENTS: u32 = 20;
/// The classes, by how much of all requests are theirs.
const CLASSES: [(&str, Criticality, f64); 3] = [
    ("success_highest", Criticality::CriticalPlus, 0.1),
    ("success_middle", Criticality::Critical, 0.3),
    ("success_lowest", Criticality::Sheddable, 0.6),
];
const REQUESTS: f64 = 90_000.0;

impl Scenario for Priority {
    fn number(&self) -> u32 {
        13
    }

    fn name(&self) -> &'static str {
        "priority"
    }

    fn question(&self) -> &'static str {
        "Twice what the fleet can do, and the least important retry hardest: do the most important notice?"
    }

    fn setup(&self) -> String {
        "The fleet and the clients of `overload` at load 2. A tenth of the requests are of the highest class, three tenths of the \
         middle one, six tenths of the lowest, whose callers send each request up to three times, at once. Measured from 3 s on."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter { name: "load", values: &[2.0], means: "requests a second by 2,000" }]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["nothing", "gradient2", "mainstay", "mainstay_bounded"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["success_highest", "success_middle", "success_lowest", "goodput_by_capacity"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let rate = CAPACITY * run.point.get("load");
        let end = SETTLED + scaled(Duration::from_secs_f64(REQUESTS / rate) - SETTLED, run.scale);
        simulate(run.seed, async |world| {
            let fleet =
                Fleet::builder().servers(20, ServerOptions::default()).build(&world).expect("valid servers");
            let recorders = CLASSES.map(|_| Recorder::new());
            for number in 0..CLIENTS {
                let client = limited(&world, &fleet, number, limit(run.contender));
                for (at, (recorder, (_, class, share))) in (0..).zip(recorders.iter().zip(CLASSES)) {
                    let load = OpenLoop::poisson(rate * share / f64::from(CLIENTS), end)
                        .client(number * 4 + at)
                        .requests(Request::new(0).criticality(class));
                    let service = match class {
                        Criticality::Sheddable => {
                            BoxService::new(Retry::new(Naive::new(3), client.clone()).map_err(Into::into))
                        }
                        _ => BoxService::new(client.clone().map_err(Into::into)),
                    };
                    spawn_load(load, service, &world, recorder);
                }
            }
            world.until(end).await;
            let (mut metrics, mut done) = (Metrics::new(), 0);
            for (recorder, (name, _, _)) in recorders.iter().zip(CLASSES) {
                recorder.idle().await;
                let summary = Measured::new(recorder, &fleet, SETTLED, end, s(1)).summary();
                metrics.insert(name, summary.success());
                done += summary.successes();
            }
            let goodput = done as f64 / (end - SETTLED).as_secs_f64() / CAPACITY;
            metrics.insert("goodput_by_capacity", goodput);
            Outcome { metrics, timeline: Vec::new() }
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let claims = results.points().into_iter().flat_map(|point| {
            ["mainstay", "mainstay_bounded"].map(|contender| {
                let highest =
                    results.spread(&point, contender, "success_highest").map(|spread| spread.median);
                Claim::at_least(format!("{contender}: the highest class at least 0.999"), highest, 0.999)
            })
        });
        claims.collect()
    }

    fn chart(&self, results: &Results) -> crate::chart::Chart {
        crate::chart::Chart { title: self.name().to_owned(), panels: bars(results) }
    }
}

/// One line for each contender over the classes.
fn bars(results: &Results) -> Vec<crate::chart::Panel> {
    let panel = |point| {
        let line = |contender: &'static str| {
            let value = |(name, _, _): (&str, _, _)| Some(results.spread(&point, contender, name)?.median);
            let values = (1..).zip(CLASSES).filter_map(|(at, class)| Some((f64::from(at), value(class)?)));
            crate::chart::Line { name: contender.to_owned(), points: values.collect(), reference: false }
        };
        crate::chart::Panel {
            title: "Success by class".to_owned(),
            x: "1 highest, 2 middle, 3 lowest".to_owned(),
            y: "share".to_owned(),
            lines: results.contenders().into_iter().map(line).collect(),
            ..crate::chart::Panel::default()
        }
    };
    results.points().into_iter().map(panel).collect()
}
