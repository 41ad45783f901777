//! Row 20: a limit that has to follow the network.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{
    limit::ConcurrencyLimitOptions,
    testing::{Distribution, Fleet, OpenLoop, Recorder, ServerOptions, simulate},
};
use tower::{ServiceExt as _, util::BoxService};

use super::{
    overload::{limit, limited},
    stage::{s, spawn_load},
};
use crate::{
    chart::{Chart, Line, Panel},
    measure::{Measured, ms, within},
    scenario::{Claim, Fault, Metrics, Moment, Outcome, Parameter, Point, Results, Run, Scenario},
};

pub struct Limiter;

const WORK_MS: f64 = 40.0;
/// When the network slows down, by 40 ms a round trip, and recovers.
const SLOW: Duration = s(30);
const FAST: Duration = s(90);
const END: Duration = s(120);
/// One way.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(21);
/// Of the capacity; in the under-used half it asks for little, ten seconds in twenty.
const BUSY: f64 = 1.3;
const IDLE: f64 = 0.3;

impl Scenario for Limiter {
    fn number(&self) -> u32 {
        20
    }

    fn name(&self) -> &'static str {
        "limiter"
    }

    fn question(&self) -> &'static str {
        "The network slows down by 40 ms for a minute and recovers: does the limit follow, and stay where it is while nobody \
         needs it?"
    }

    fn setup(&self) -> String {
        "One client with a limit and one server with 4 or 20 slots, work Exp(40 ms), 1 ms each way; 21 ms from 30 to 90 s. The \
         client asks for 1.3 times the capacity; with `half` 1 for 0.3 times every other ten seconds. `ideal` is a fixed limit \
         of slots x (1 + network / work), changed with the network. Measured from 10 s after each change on, while busy."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "slots", values: &[4.0, 20.0], means: "what the server works on at a time" },
            Parameter { name: "half", values: &[0.0, 1.0], means: "1: under-used half of the time" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["ideal", "aimd", "vegas", "gradient2", "mainstay"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["throughput", "throughput_far", "p99_ms", "p99_far_ms", "limit_grew_idle", "limit_last"]
    }

    fn run(&self, run: &Run) -> Outcome {
        let (slots, half) = (run.point.get("slots"), run.point.get("half") == 1.0);
        let capacity = slots * 1e3 / WORK_MS;
        simulate(run.seed, async |world| {
            let server = ServerOptions::default()
                .slots(slots as u32)
                .work(Distribution::exponential_ms(WORK_MS as u64));
            let fleet =
                Fleet::builder().servers(1, server).delay(NEAR).build(&world).expect("a valid server");
            let ideal = |way: Duration| (slots * (1.0 + 2.0 * ms(way) / WORK_MS)).round() as u32;
            let fixed = |limit: u32| {
                ConcurrencyLimitOptions::default().limit(limit).max_waiting(8).max_wait(s(1) / 2)
            };
            let is_ideal = run.contender == "ideal";
            let options = if is_ideal { Some(fixed(ideal(NEAR))) } else { limit(run.contender) };
            let client = limited(&world, &fleet, 0, options);
            for (at, way) in [(SLOW, FAR), (FAST, NEAR)] {
                let (fleet, client, options) = (fleet.clone(), client.clone(), fixed(ideal(way)));
                world.at(at, move || {
                    fleet.set_delay(way);
                    if is_ideal {
                        let mut next = client.options();
                        next.limit = Some(options);
                        client.update(next).expect("valid options");
                    }
                });
            }
            // What the limit is, each second.
            let limits = Arc::new(Mutex::new(Vec::new()));
            for second in 1..END.as_secs() {
                let (client, own) = (client.clone(), limits.clone());
                world.at(s(second), move || {
                    let limit = client.status().limit.map_or(0, |limit| limit.limit);
                    own.lock().expect("nobody panics").push(f64::from(limit));
                });
            }
            let recorder = Recorder::new();
            let mut load = OpenLoop::poisson(capacity * BUSY, END);
            for ten in 1..12 {
                let busy = !half || ten % 2 == 0;
                load = load.then(s(ten * 10), capacity * if busy { BUSY } else { IDLE });
            }
            spawn_load(load, BoxService::new(client.clone().map_err(Into::into)), &world, &recorder);
            world.until(END).await;
            recorder.idle().await;
            let measured = Measured::new(&recorder, &fleet, Duration::ZERO, END, s(1));
            let mut outcome = measured.outcome();
            let found = |stretches: &[(u64, u64)]| busy(&measured, stretches, half, capacity);
            let (near, far) = (found(&[(10, 30), (100, 120)]), found(&[(40, 90)]));
            let limits = limits.lock().expect("nobody panics").clone();
            outcome.metrics = Metrics::from([
                ("throughput", near.0),
                ("p99_ms", near.1),
                ("throughput_far", far.0),
                ("p99_far_ms", far.1),
                ("limit_last", limits.last().copied().unwrap_or_default()),
            ]);
            if half {
                outcome.metrics.insert("limit_grew_idle", grew(&limits));
            }
            for moment in &mut outcome.timeline {
                moment.attempts = limits.get(moment.at as usize).copied().unwrap_or(f64::NAN);
            }
            outcome
        })
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            for place in [["throughput", "p99_ms"], ["throughput_far", "p99_far_ms"]] {
                let ratio = |metric| Some(results.ratio(&point, "mainstay", "ideal", metric)?.median);
                let owed = format!("{point}: {} at least 0.95 of the ideal limit's", place[0]);
                claims.push(Claim::at_least(owed, ratio(place[0]), 0.95));
                let owed = format!("{point}: {} at most 1.5 of the ideal limit's", place[1]);
                claims.push(Claim::at_most(owed, ratio(place[1]), 1.5));
            }
            if point.get("half") == 1.0 {
                let grew = results.spread(&point, "mainstay", "limit_grew_idle").map(|spread| spread.median);
                let owed = format!("{point}: in no under-used stretch the limit grows by more than a tenth");
                claims.push(Claim::at_most(owed, grew, 1.1));
            }
        }
        claims
    }

    fn faults(&self, _: &Point) -> Vec<Fault> {
        vec![Fault { from: SLOW.as_secs_f64(), to: FAST.as_secs_f64(), what: "network + 40 ms" }]
    }

    fn chart(&self, results: &Results) -> Chart {
        let panels = results.points().into_iter().map(|point| Panel {
            title: format!("Limit: {point}"),
            x: "seconds".to_owned(),
            y: "requests at a time".to_owned(),
            log_y: true,
            lines: Line::over_time(results, &point, |moment: &Moment| moment.attempts),
            bands: self.faults(&point).into_iter().map(Fault::into_band).collect(),
        });
        Chart { title: "limiter".to_owned(), panels: panels.collect() }
    }
}

/// By how much the limit has grown in any stretch in which nobody needed it: from two seconds after its beginning, when what
/// was asked for before is answered, to its end.
fn grew(limits: &[f64]) -> f64 {
    let stretch = |ten: usize| Some(limits.get(ten * 10 + 8)? / limits.get(ten * 10 + 1)?);
    (1..12).step_by(2).filter_map(stretch).fold(0.0, f64::max)
}

/// What is answered a second by the capacity, and the 99th percentile of that, over stretches of seconds in which the client
/// is busy.
fn busy(measured: &Measured<'_>, stretches: &[(u64, u64)], half: bool, capacity: f64) -> (f64, f64) {
    let (mut took, mut seconds) = (Vec::new(), 0);
    for second in stretches.iter().flat_map(|(from, to)| *from..*to) {
        // The first seconds after it was idle are not counted: its requests are still few.
        if half && (second / 10 % 2 == 1 || second % 10 < 2) {
            continue;
        }
        seconds += 1;
        let done = within(&measured.records, s(second), s(second + 1)).filter(|record| record.is_success());
        took.extend(done.map(|record| record.took));
    }
    took.sort_unstable();
    let p99 = took.get((took.len() as f64 * 0.99) as usize).copied().unwrap_or_default();
    (took.len() as f64 / f64::from(seconds.max(1)) / capacity, ms(p99))
}
