//! Ten real HTTP servers, one load, two clients side by side: hyper alone, and mainstay.
//!
//! ```text
//! cargo run --release --example demo --features hyper
//! ```
//!
//! The servers fall ill one after the other, recover, and get company. A table shows what each client makes of it.
//! [`script`] holds the plot, [`server`] the illnesses, [`load`] the requests, [`plain`] and [`resilient`] the two
//! clients, [`summary`] what is owed.

mod client;
mod load;
mod plain;
mod resilient;
mod screen;
mod script;
mod server;
mod stage;
mod summary;
mod tally;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use mainstay::clock;
use tokio::time::sleep_until;

use crate::{
    client::Who,
    server::{Mode, Server},
    stage::Stage,
    summary::Summary,
};

const HELP: &str = "\
Ten HTTP servers on loopback get the same load, 400 requests a second, from
two clients: plain hyper, going round robin with a timeout, and mainstay with
its defaults. Servers turn slow, fail, die and hang, recover, and two new ones
join. It takes 29 seconds at most.

usage: cargo run --release --example demo --features hyper [-- OPTION]

  --json   print nothing but the summary, as one JSON object
  --help   print this text

With NO_COLOR set the table has no colours. Where the output is no terminal, a
line a second takes its place.";

enum Output {
    Screen,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut output = Output::Screen;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--json") => output = Output::Json,
            Some("--help" | "-h") => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("unknown argument {argument:?}; --help tells those there are");
                return ExitCode::from(2);
            }
        }
    }
    match run(&output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo could not run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(output: &Output) -> io::Result<()> {
    let servers = (0..script::IN_ALL)
        .map(|index| Server::start(if index < script::AT_FIRST { Mode::Normal } else { Mode::Down }))
        .collect::<io::Result<Arc<[_]>>>()?;
    let start = clock::now();
    let stage = Arc::new(Stage::new(start, servers).map_err(io::Error::other)?);

    let director = tokio::spawn(script::play(
        start,
        Arc::clone(&stage.servers),
        Arc::clone(&stage.plain),
        Arc::clone(&stage.mainstay),
    ));
    let load = tokio::spawn(load::send(
        start,
        (Arc::clone(&stage.plain), Arc::clone(stage.tally(Who::Plain))),
        (Arc::clone(&stage.mainstay), Arc::clone(stage.tally(Who::Mainstay))),
    ));
    let witness = Arc::clone(&stage);
    let healthy_attempts = tokio::spawn(async move {
        sleep_until((start + script::TROUBLE).into()).await;
        Who::BOTH.map(|who| witness.attempts(who))
    });
    if matches!(output, Output::Screen) {
        screen::show(&stage).await;
    }
    director.await?;
    load.await?;

    let took = clock::now().saturating_duration_since(start);
    let summary = Summary::of(&stage, healthy_attempts.await?, took)
        .ok_or_else(|| io::Error::other("no requests were sent"))?;
    match output {
        Output::Screen => write!(io::stdout(), "\n{summary}"),
        Output::Json => writeln!(io::stdout(), "{:#}", summary.json()),
    }
}
