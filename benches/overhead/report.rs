//! What was measured, for people and for programs.

use std::io::{IsTerminal as _, Write as _, stderr};

use crate::{
    case::{Case, Shape},
    instructions::Counted,
};

/// One case in one shape.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) shape: Shape,
    /// Nanoseconds per call, round by round.
    pub(crate) rounds: Vec<f64>,
    pub(crate) allocations: f64,
    pub(crate) counted: Option<Counted>,
}

impl Row {
    pub(crate) fn new(case: &'static str, shape: Shape) -> Self {
        Self { case, shape, rounds: Vec::new(), allocations: 0.0, counted: None }
    }

    fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// How far the rounds lie apart, as a share of their median.
    fn spread(&self) -> f64 {
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rounds.iter().copied().fold(0.0, f64::max);
        (most - least) / self.median()
    }

    /// The median of the ratios of each round, which holds steadier than the ratio of the medians.
    fn ratio(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, theirs)| own / theirs).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a list of objects, and nothing else.
pub(crate) fn json(rows: &[Row]) {
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let objects: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut object = serde_json::json!({
                "case": row.case,
                "endpoints": row.shape.endpoints,
                "threads": row.shape.threads,
                "callers": row.shape.callers,
                "ns_per_call": round(row.median()),
                "allocs_per_call": round(row.allocations),
            });
            if let Some(counted) = row.counted {
                object["instructions_per_call"] = round(counted.instructions).into();
                object["clock_reads_per_call"] = round(counted.clock_reads).into();
            }
            object
        })
        .collect();
    println!("{:#}", serde_json::Value::from(objects));
}

/// Prints a table for each shape.
pub(crate) fn table(rows: &[Row], cases: &[Case]) {
    for group in rows.chunk_by(|a, b| a.shape == b.shape) {
        let find = |name: &str| group.iter().find(|row| row.case == name);
        println!("\n{}", describe(group[0].shape));
        println!(
            "  {:<26}{:>9}{:>8}{:>9}{:>9}{:>8}{:>14}{:>13}",
            "case", "ns/call", "spread", "x limit", "x rival", "allocs", "instructions", "clock reads"
        );
        for row in group {
            let rival =
                cases.iter().find(|case| case.name == row.case).and_then(|case| case.rival).and_then(find);
            println!(
                "  {:<26}{:>9.1}{:>7.0}%{:>9}{:>9}{:>8.2}{:>14}{:>13}",
                row.case,
                row.median(),
                row.spread() * 100.0,
                or_dash(find("limit").map(|limit| row.ratio(limit)), 2),
                or_dash(rival.map(|rival| row.ratio(rival)), 3),
                row.allocations,
                or_dash(row.counted.map(|counted| counted.instructions), 0),
                or_dash(row.counted.map(|counted| counted.clock_reads), 2),
            );
        }
    }
    println!();
    println!(
        "x limit, x rival: time by the time of `limit`, of the matching row of tower, round by round; median."
    );
    println!("instructions, clock reads: with --instructions, on one thread.");
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn describe(shape: Shape) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{}, {}, {}",
        plural(shape.endpoints, "endpoint"),
        plural(shape.callers, "caller"),
        plural(shape.threads, "thread")
    )
}

/// Where the benchmark is, on standard error: one line that is written over, or one for each shape where it is not
/// read by a person.
pub(crate) struct Progress {
    shapes: usize,
    live: bool,
}

impl Progress {
    pub(crate) fn new(shapes: usize) -> Self {
        Self { shapes, live: stderr().is_terminal() }
    }

    pub(crate) fn show(&self, index: usize, shape: Shape, what: &str) {
        let line = format!("[{}/{}] {}: {what}", index + 1, self.shapes, describe(shape));
        if self.live {
            eprint!("\r\x1b[K{line}");
            let _ = stderr().flush();
        } else if what == "calibration" {
            eprintln!("{line}");
        }
    }

    pub(crate) fn done(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}
