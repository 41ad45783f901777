//! Times the cases of one shape against each other, and counts their allocations.

use std::time::Duration;

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

/// Calls of all callers together between the two counts that give the allocations of one.
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
            case.start(shape).run(10);
        }
    }
}

fn timed(case: &Case, shape: Shape, calls: u64) -> Duration {
    let mut running = case.start(shape);
    running.run(calls.div_ceil(4));
    running.run(calls)
}

/// The calls per caller that take about `round`.
fn calibrate(case: &Case, shape: Shape, round: Duration) -> u64 {
    let mut running = case.start(shape);
    let mut calls = 16;
    loop {
        let time = running.run(calls);
        if time * 4 >= round {
            return ((calls as f64 * round.as_secs_f64() / time.as_secs_f64()) as u64).max(1);
        }
        calls *= 2;
    }
}

/// Allocations of one call, by the difference of a long run and a short one: what a run allocates by itself cancels.
fn allocated(running: &mut dyn Running, shape: Shape) -> f64 {
    let step = COUNTED / shape.callers as u64;
    running.run(step);
    let short = allocations::during(|| _ = running.run(step));
    let long = allocations::during(|| _ = running.run(2 * step));
    (long as f64 - short as f64) / (step * shape.callers as u64) as f64
}
