//! What a call costs on top of the service it calls, beside what the rivals cost, in one run.
//!
//! ```text
//! cargo bench --bench overhead                      every row: time, allocations, ratios
//! cargo bench --bench overhead -- --instructions    the same, with instructions and clock reads (needs valgrind)
//! cargo bench --bench overhead -- --json            only a JSON list
//! cargo bench --bench overhead -- --quick --case limit --case tower_stack --endpoints 10
//! ```
//!
//! One caller calls through `&mut`: `ready`, then `call`. Sixty-four callers share the client the way servers do: each
//! call clones the caller's handle and readies the clone. Time on two threads is wall time by all calls, so perfect
//! scaling halves it. Times differ from machine to machine; ratios, allocations and instructions are what to hold on to.

mod allocations;
mod case;
mod endpoint;
mod flow;
mod instructions;
mod limit;
mod options;
mod ours;
mod report;
mod rivals;
mod rounds;

use std::process::ExitCode;

use case::Case;
use options::{Mode, Options};
use report::{Progress, Row};

/// The rows, in the order of the table.
fn cases() -> Vec<Case> {
    let mut cases = vec![endpoint::bare(), limit::limit()];
    cases.extend(ours::cases());
    cases.extend(flow::cases());
    cases.extend(rivals::cases());
    cases
}

fn main() -> ExitCode {
    let cases = cases();
    let outcome = Options::parse(std::env::args().skip(1), &cases).and_then(|options| match options.mode {
        Mode::Smoke => {
            rounds::smoke(&cases);
            Ok(())
        }
        Mode::Nothing => Ok(()),
        Mode::Child => {
            instructions::child(&cases, &options);
            Ok(())
        }
        Mode::Measure => measure(&cases, &options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("overhead: {message}");
            ExitCode::from(2)
        }
    }
}

fn measure(cases: &[Case], options: &Options) -> Result<(), String> {
    if options.instructions {
        instructions::require_valgrind()?;
    }
    let shapes = options.shapes();
    let progress = Progress::new(shapes.len());
    let mut rows: Vec<Row> = Vec::new();
    for (index, &shape) in shapes.iter().enumerate() {
        let chosen: Vec<&Case> =
            cases.iter().filter(|case| options.wants(case) && case.fits(shape)).collect();
        let mut of_shape =
            rounds::measure(&chosen, shape, options.plan(), &|what| progress.show(index, shape, what));
        if options.instructions && instructions::can_count(shape) {
            for row in &mut of_shape {
                progress.show(index, shape, &format!("instructions of {}", row.case));
                row.counted = Some(instructions::count(row.case, shape)?);
            }
        }
        rows.extend(of_shape);
    }
    progress.done();
    if options.json {
        report::json(&rows)
    } else {
        report::table(&rows, cases)
    }
    Ok(())
}
