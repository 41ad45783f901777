//! Row 7: a server that fails half of its requests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{
    balance::BalanceOptions,
    telemetry::Event,
    testing::{Fleet, OpenLoop, Recorder, ServerOptions, Trouble, simulate},
};
use tower::ServiceExt as _;

use super::stage::{s, scaled, spawn_load};
use crate::{
    chart::{Chart, Line, Panel},
    contender::{Terms, client},
    scenario::{Claim, Metrics, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Gray;

/// Three are the fewest among which one can be told from the others; more would cost more requests than a run may.
const SERVERS: usize = 3;
const BAD: usize = 1;
/// The share of its requests that the gray server fails.
const FAILS: f64 = 0.5;
/// The errors that every server makes where none is gray.
const EVERYWHERE: f64 = 0.01;
/// Healthy for so long; a little less at 50 a second each, where 90,000 requests are all that a run may have.
const HEALTHY: Duration = s(600);
const MOST_REQUESTS: f64 = 81_000.0;
/// Gray for as long as a fair share would be so many requests, but no longer than may be: who is avoided gets less.
const GRAY_REQUESTS: f64 = 400.0;
const GRAY: (Duration, Duration) = (s(60), s(1_200));
/// A detection within so many of its requests is owed.
const WITHIN: f64 = 20.0;

impl Scenario for Gray {
    fn number(&self) -> u32 {
        7
    }

    fn name(&self) -> &'static str {
        "gray"
    }

    fn question(&self) -> &'static str {
        "After ten good minutes a server fails half of its requests: how many does it get before it is set aside? And is a \
         server ever set aside for the errors that all make?"
    }

    fn setup(&self) -> String {
        "3 servers, one client, Poisson, 0.2, 5 or 50 requests a second for each server; retries as by default. After 600 s (540 at 50 a second) \
         one server answers half of its requests, at random, with an error when it has done the work, for one minute to \
         twenty. Or, with `errors` 0.01, all three fail 1 % all the time, and every ejection is a false one."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "rps", values: &[0.2, 5.0, 50.0], means: "requests a second for each server" },
            Parameter {
                name: "errors",
                values: &[0.0, 0.01],
                means: "errors that all servers make; then none is gray",
            },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["mainstay", "five_in_a_row"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["requests_until", "detect_s", "false_per_hour", "success", "amplification"]
    }

    fn seeds(&self) -> u64 {
        20
    }

    fn run(&self, run: &Run) -> Outcome {
        let (rps, errors) = (run.point.get("rps"), run.point.get("errors"));
        let longest = Duration::from_secs_f64(MOST_REQUESTS / (rps * SERVERS as f64));
        let healthy = scaled(HEALTHY.min(longest), run.scale);
        let gray = Duration::from_secs_f64(GRAY_REQUESTS / rps).clamp(GRAY.0, GRAY.1);
        let end = if errors > 0.0 { healthy } else { healthy + gray };
        simulate(run.seed, async |world| {
            let fleet = Fleet::builder()
                .servers(SERVERS, ServerOptions::default())
                .build(&world)
                .expect("valid servers");
            let mut options = BalanceOptions::default();
            if run.contender == "five_in_a_row" {
                // What Envoy, Linkerd and Finagle have in common.
                (options.health.failures, options.health.of_last) = (64, 64);
                options.health.window_failures = 1_024;
            }
            let ejected = Arc::new(Mutex::new(Vec::new()));
            let (own, clock, watched) = (ejected.clone(), world.clone(), fleet.clone());
            let users = client(&fleet, Terms::default(), world.random("client 0"), options)
                .observe(move |_: &str, event: &Event| {
                    if let Event::Ejected { endpoint, .. } = event {
                        let bad = **endpoint == *format!("server-{BAD}");
                        own.lock().expect("nobody panics").push((
                            clock.now(),
                            bad,
                            watched.server(BAD).tally().received,
                        ));
                    }
                })
                .build()
                .expect("valid options");
            for server in 0..SERVERS {
                let server = fleet.server(server);
                if errors > 0.0 {
                    server.trouble(errors, Trouble::FailLate);
                }
            }
            let before = Arc::new(Mutex::new(0));
            if errors == 0.0 {
                let (server, own) = (fleet.server(BAD), before.clone());
                world.at(healthy, move || {
                    *own.lock().expect("nobody panics") = server.tally().received;
                    server.trouble(FAILS, Trouble::FailLate);
                });
            }
            let recorder = Recorder::new();
            let service = tower::util::BoxService::new(users.map_err(Into::into));
            spawn_load(OpenLoop::poisson(rps * SERVERS as f64, end), service, &world, &recorder);
            world.until(end).await;
            recorder.idle().await;
            let summary = recorder.summary(Duration::ZERO, end);
            let received: u64 = fleet.tallies().iter().map(|tally| tally.received).sum();
            let (ejected, before) =
                (ejected.lock().expect("nobody panics"), *before.lock().expect("nobody panics"));
            let (found, rest): (Vec<_>, Vec<_>) =
                ejected.iter().partition(|(at, bad, _)| *bad && *at >= healthy && errors == 0.0);
            let mut metrics = Metrics::from([
                ("success", summary.success()),
                ("amplification", received as f64 / summary.requests().max(1) as f64),
                ("false_per_hour", rest.len() as f64 * 3_600.0 / end.as_secs_f64()),
            ]);
            if errors == 0.0 {
                let first = found.first();
                metrics.insert(
                    "requests_until",
                    first.map_or(f64::INFINITY, |(_, _, received)| (received - before) as f64),
                );
                metrics.insert(
                    "detect_s",
                    first.map_or(f64::INFINITY, |(at, _, _)| (*at - healthy).as_secs_f64()),
                );
            }
            Outcome { metrics, timeline: Vec::new() }
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            if point.get("errors") == EVERYWHERE {
                let hours = mean(results, &point, "false_per_hour");
                let owed = format!("{point}: less than one false ejection an hour, mean of the seeds");
                claims.push(Claim::at_most(owed, hours, 0.999));
            } else {
                let owed = format!("{point}: within 20 of its requests in 95 % of the runs");
                claims.push(Claim::at_least(owed, share_within(results, &point, WITHIN), 0.95));
            }
        }
        claims
    }

    fn chart(&self, results: &Results) -> Chart {
        let panels = results.points().into_iter().filter(|point| point.get("errors") == 0.0).map(|point| {
            let line = |contender: &'static str| {
                let mut until: Vec<f64> = values(results, &point, contender, "requests_until");
                until.sort_by(f64::total_cmp);
                let count = until.len() as f64;
                let points = until.into_iter().zip(1..).map(|(until, rank)| (until, f64::from(rank) / count));
                Line { name: contender.to_owned(), points: points.collect(), reference: false }
            };
            Panel {
                title: format!("{point}: share of the runs in which it was set aside"),
                x: "requests that it got first".to_owned(),
                y: "share of the runs".to_owned(),
                lines: results.contenders().into_iter().map(line).collect(),
                ..Panel::default()
            }
        });
        Chart { title: "gray".to_owned(), panels: panels.collect() }
    }

    fn remarks(&self) -> &'static str {
        "`five_in_a_row` is mainstay with the one rule that Envoy, Linkerd and Finagle share: five failures in a row."
    }
}

fn values(results: &Results, point: &Point, contender: &str, metric: &str) -> Vec<f64> {
    results.of(point, contender).filter_map(|run| run.outcome.metrics.get(metric).copied()).collect()
}

fn mean(results: &Results, point: &Point, metric: &str) -> Option<f64> {
    let values = values(results, point, "mainstay", metric);
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn share_within(results: &Results, point: &Point, bound: f64) -> Option<f64> {
    let values = values(results, point, "mainstay", "requests_until");
    let within = values.iter().filter(|until| **until <= bound).count();
    (!values.is_empty()).then(|| within as f64 / values.len() as f64)
}
