//! Times the cases of one shape against each other, and counts their allocations.

use std::time::Duration;

use mainstay::clock;

use crate::{
    allocations,
    case::{Case, Running, Shape},
    report::Row,
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

/// Calls of all callers together whose allocations are counted.
const COUNTED: u64 = 4_096;

/// Measures `cases` side by side: each round times each case once, in an order that is rotated from round to round, so
/// that what the machine does meanwhile falls on all alike.
pub(crate) fn measure(cases: &[&Case], shape: Shape, plan: Plan, progress: &dyn Fn(&str)) -> Vec<Row> {
    progress("calibration");
    let calls: Vec<u64> = cases.iter().map(|case| calibrate(case, shape, plan.round)).collect();
    let mut rows: Vec<Row> = cases.iter().map(|case| Row::new(case.name, shape)).collect();
    for round in 0..plan.rounds {
        progress(&format!("round {} of {}", round + 1, plan.rounds));
        for turn in 0..cases.len() {
            let index = (turn + round) % cases.len();
            let time = timed(cases[index], shape, calls[index]);
            rows[index].rounds.push(time.as_nanos() as f64 / (calls[index] * shape.callers as u64) as f64);
        }
    }
    progress("allocations");
    for (row, case) in rows.iter_mut().zip(cases) {
        row.allocations = allocated(&mut *case.start(shape), shape);
    }
    rows
}

/// A few calls of every case in every shape, to show that they run.
pub(crate) fn smoke(cases: &[Case]) {
    for (threads, callers) in [(1, 1), (1, 64), (2, 1), (2, 64)] {
        let shape = Shape { endpoints: 10, threads, callers };
        for case in cases.iter().filter(|case| case.fits(shape)) {
            case.start(shape).run(10, &mut |calls| calls());
        }
    }
}

fn timed(case: &Case, shape: Shape, calls: u64) -> Duration {
    let mut running = case.start(shape);
    time(&mut *running, calls.div_ceil(4));
    time(&mut *running, calls)
}

/// The calls per caller that take about `round`.
fn calibrate(case: &Case, shape: Shape, round: Duration) -> u64 {
    let mut running = case.start(shape);
    // The first calls take up the endpoints, which is not what a call costs.
    time(&mut *running, 64);
    let mut calls = 16;
    loop {
        let time = time(&mut *running, calls);
        if time * 4 >= round {
            return ((calls as f64 * round.as_secs_f64() / time.as_secs_f64()) as u64).max(1);
        }
        calls *= 2;
    }
}

/// The wall time from the first call to the end of the last.
fn time(running: &mut dyn Running, calls: u64) -> Duration {
    let mut time = Duration::ZERO;
    running.run(calls, &mut |calls| {
        let began = clock::now();
        calls();
        time = clock::now().saturating_duration_since(began);
    });
    time
}

/// Allocations of one call, once everything is warm.
fn allocated(running: &mut dyn Running, shape: Shape) -> f64 {
    let calls = COUNTED / shape.callers as u64;
    let mut allocations = 0;
    running.run(calls, &mut |calls| calls());
    running.run(calls, &mut |calls| allocations = allocations::during(calls));
    allocations as f64 / (calls * shape.callers as u64) as f64
}
