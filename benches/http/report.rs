//! What was measured, for people and for programs.

use serde_json::{Value, json};

use crate::rounds::Round;

/// What mainstay may add to the bare client on one core, in microseconds of processor time for a request.
const OWED_US: f64 = 0.6;
/// And as a share of what tower's layers add.
const OWED_SHARE: f64 = 0.5;

/// One case in one shape.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) cores: usize,
    pub(crate) rounds: Vec<Round>,
    pub(crate) instructions: Option<f64>,
}

impl Row {
    fn median(&self, of: fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// The median over the rounds of what `compare` makes of this row and another in the same round.
    fn against(&self, other: &Self, compare: fn(&Round, &Round) -> f64) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, theirs)| compare(own, theirs)).collect())
    }

    /// Processor time on top of `bare`, round by round.
    fn added_us(&self, bare: &Self) -> f64 {
        self.against(bare, |own, bare| own.cpu_us_per_req - bare.cpu_us_per_req)
    }

    /// The same of client and server together.
    fn added_by_both_us(&self, bare: &Self) -> f64 {
        self.against(bare, |own, bare| own.both_us_per_req - bare.both_us_per_req)
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
            let mut object = json!({
                "case": row.case,
                "concurrency": row.concurrency,
                "cores": row.cores,
                "req_per_s": round(row.median(|round| round.req_per_s)),
                "p50_us": round(row.median(|round| round.p50_us)),
                "p99_us": round(row.median(|round| round.p99_us)),
                "cpu_us_per_req": round(row.median(|round| round.cpu_us_per_req)),
                "both_cpu_us_per_req": round(row.median(|round| round.both_us_per_req)),
            });
            if let Some(instructions) = row.instructions {
                object["instructions_per_req"] = round(instructions).into();
            }
            object
        })
        .collect();
    println!("{:#}", Value::from(objects));
}

/// Prints a table for each shape, and what is owed.
pub(crate) fn table(rows: &[Row]) {
    for group in rows.chunk_by(|a, b| (a.concurrency, a.cores) == (b.concurrency, b.cores)) {
        let bare = group.iter().find(|row| row.case == "bare");
        println!("\n{} at a time, {}", group[0].concurrency, layout(group[0].cores));
        println!(
            "  {:<10}{:>9}{:>9}{:>9}{:>12}{:>11}{:>11}{:>9}{:>9}{:>14}",
            "case",
            "req/s",
            "p50 us",
            "p99 us",
            "cpu us/req",
            "over bare",
            "both, over",
            "x cpu",
            "x req/s",
            "instructions"
        );
        for row in group {
            println!(
                "  {:<10}{:>9.0}{:>9.1}{:>9.1}{:>12.2}{:>11}{:>11}{:>9}{:>9}{:>14}",
                row.case,
                row.median(|round| round.req_per_s),
                row.median(|round| round.p50_us),
                row.median(|round| round.p99_us),
                row.median(|round| round.cpu_us_per_req),
                or_dash(bare.map(|bare| row.added_us(bare)), 2),
                or_dash(bare.map(|bare| row.added_by_both_us(bare)), 2),
                or_dash(
                    bare.map(|bare| row.against(bare, |own, bare| own.cpu_us_per_req / bare.cpu_us_per_req)),
                    3
                ),
                or_dash(bare.map(|bare| row.against(bare, |own, bare| own.req_per_s / bare.req_per_s)), 3),
                or_dash(row.instructions, 0),
            );
        }
        owed(group);
    }
    println!(
        "\nMedians of the rounds; over bare, x cpu, x req/s: the median of what is by `bare` in the same round."
    );
    println!("both, over: the same of client and server together.");
}

/// Says whether what is owed on one core was met.
fn owed(group: &[Row]) {
    let find = |name: &str| group.iter().find(|row| row.case == name);
    let (Some(bare), Some(ours), Some(tower)) = (find("bare"), find("mainstay"), find("tower")) else {
        return;
    };
    if bare.cores != 1 {
        return;
    }
    let (ours, tower) = (ours.added_us(bare), tower.added_us(bare));
    let word = |met: bool| if met { "met" } else { "not met" };
    println!("  owed: at most {OWED_US} us over bare: {ours:.2}, {}", word(ours <= OWED_US));
    println!(
        "  owed: at most {OWED_SHARE} of what tower's layers add ({tower:.2} us): {:.2}, {}",
        ours / tower,
        word(ours <= OWED_SHARE * tower)
    );
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn layout(cores: usize) -> &'static str {
    if cores == 1 { "client and server on one core" } else { "client and server on a core each" }
}
