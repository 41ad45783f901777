//! What a request over HTTP/1.1 costs through mainstay, beside the bare client and tower's layers around it, in one run.
//!
//! ```text
//! cargo bench --bench http                every row: throughput, latency, processor time, and ratios
//! cargo bench --bench http -- --json      only a JSON list
//! cargo bench --bench http -- --quick --case bare --case mainstay --cores 1 --concurrency 64
//! ```
//!
//! The benchmark starts itself again: once as the server, which listens on two ports, and once for each row of the table as
//! the client, whose processor time is then that of the client alone. `taskset` keeps the two on a core each, or together
//! on one. Every round runs every case once, in an order that is rotated from round to round, so that what the machine
//! does meanwhile falls on all alike; what is compared is compared within a round.
//!
//! Where valgrind is there, the instructions of the client for a request are counted by callgrind.

mod bare;
mod case;
mod client;
mod cores;
mod instructions;
mod options;
mod ours;
mod report;
mod rival;
mod rounds;
mod server;

use std::process::ExitCode;

use case::Case;
use options::{Mode, Options};
use report::Row;

/// The rows, in the order of the table.
fn cases() -> Vec<Case> {
    vec![bare::case(), ours::case(), ours::transport(), rival::case()]
}

fn main() -> ExitCode {
    let cases = cases();
    let outcome = Options::parse(std::env::args().skip(1), &cases).and_then(|options| match options.mode {
        Mode::Measure => measure(&cases, &options),
        Mode::Smoke => smoke(&cases),
        Mode::Nothing => Ok(()),
        Mode::Serve => server::serve(),
        Mode::Client => client::measure(&cases, &options),
        Mode::Counted => instructions::child(&cases, &options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("http: {message}");
            ExitCode::from(2)
        }
    }
}

fn measure(cases: &[Case], options: &Options) -> Result<(), String> {
    let chosen: Vec<&Case> = cases.iter().filter(|case| options.wants(case)).collect();
    let mut rows: Vec<Row> = Vec::new();
    let count = instructions::can_count();
    for &cores in &options.cores {
        let layout = cores::layout(cores)?;
        let server = server::Running::start(Some(layout.server))?;
        for &concurrency in &options.concurrency {
            eprintln!("{concurrency} at a time, cores: {cores}");
            let mut of_shape = client::start(&chosen, concurrency, layout, &server, options.quick)?;
            for row in of_shape.iter_mut().filter(|_| count) {
                row.instructions = Some(instructions::count(row.case, concurrency, &server)?);
            }
            rows.extend(of_shape);
        }
    }
    if options.json {
        report::json(&rows);
    } else {
        report::table(&rows);
    }
    Ok(())
}

/// A few requests of every case, to show that they run.
fn smoke(cases: &[Case]) -> Result<(), String> {
    let server = server::Running::start(None)?;
    for concurrency in [1, 64] {
        for case in cases {
            case.start(server.addresses, concurrency).run(case::Length::Requests(10));
        }
    }
    Ok(())
}
