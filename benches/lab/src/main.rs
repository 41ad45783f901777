//! The command line of the lab.

use std::{
    env,
    error::Error,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::available_parallelism,
};

use clap::{Args, Parser, Subcommand};
use lab::{
    plan::{PROGRAM, Plan, Request, Setting},
    progress::Progress,
    report,
    runner::{Ran, run},
    scenario::Scenario,
    scenarios::{ALL, WAITING},
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p lab -- list
  cargo run --release -p lab -- run slow_replica
  cargo run --release -p lab -- run noisy_fleet --set load=0.8 --seeds 3 --contender mainstay
  cargo run --release -p lab -- all --long --out report";

/// Experiments on virtual fleets: mainstay and its rivals in the same storms.
///
/// Each experiment asks one question of several contenders, at each point of a grid and with several
/// seeds. Fleets live on a paused clock: the same seed gives the same numbers bit for bit, on any machine.
///
/// Exits with 1 if a run failed, with 2 if it was asked for what cannot be run. Something owed that is not
/// met is a result and no failure.
#[derive(Debug, Parser)]
#[command(name = "lab", verbatim_doc_comment, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every experiment and write a report: index.md, results.json and a picture of each.
    All(All),
    /// Run some experiments and print a table for each point of their grids.
    Run(Picked),
    /// List the experiments: what they ask, who contends, what can be set; and those that wait for a layer.
    List,
}

#[derive(Debug, Args)]
struct All {
    /// Ten times the seeds, as for the documented tables.
    #[arg(long)]
    long: bool,
    #[command(flatten)]
    how: How,
    /// The folder to write the report to.
    #[arg(long, value_name = "DIR", default_value = "lab-report")]
    out: PathBuf,
    /// Also write a summary to this file: one table for each experiment, and what is owed and met.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Picked {
    /// Names of experiments, from `lab list`.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
    /// How many seeds; usually as many as `lab list` says.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Set a parameter to one value at every point of the grid, as in `--set load=0.8`; can be repeated. Nothing is judged then.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Setting>,
    /// Run this point of the grid only, counted from 1 as in the tables. Nothing is judged then.
    #[arg(long, value_name = "NUMBER")]
    point: Option<usize>,
    /// Run this contender only; can be repeated. Nothing is judged then.
    #[arg(long, value_name = "NAME")]
    contender: Vec<String>,
    /// Also write a report to this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also write a summary to this file, as of `all`.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct How {
    /// The first seed; the others follow it one by one.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// How many runs at a time; as many as there are processors by default. Changes no number.
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
}

impl How {
    fn threads(&self) -> usize {
        self.jobs.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::All(all) => run_all(&all),
        Command::Run(some) => run_some(&some),
        Command::List => {
            print!("{}", terminal::list(ALL, WAITING));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn run_all(all: &All) -> Result<ExitCode, Box<dyn Error>> {
    let times = if all.long { 10 } else { 1 };
    let request = Request { first_seed: all.how.seed, times, ..Request::default() };
    let plans = ALL.iter().map(|scenario| Plan::new(*scenario, &request)).collect::<Result<Vec<_>, _>>()?;
    // Where the report is written and on how many threads changes nothing in it.
    let long = if all.long { " --long" } else { "" };
    let command = format!("{PROGRAM} all{long} --seed {}", all.how.seed);

    let ran = run(&plans, all.how.threads(), &Progress::shown());
    write_report(&all.out, &command, &ran)?;
    if let Some(file) = &all.summary {
        report::write_summary(file, &command, &ran, WAITING).map_err(|error| at(file, &error))?;
    }
    print!("{}", terminal::overview(&ran));
    Ok(ended(&ran))
}

fn run_some(some: &Picked) -> Result<ExitCode, Box<dyn Error>> {
    let request = Request {
        settings: some.set.clone(),
        point: some.point,
        contenders: some.contender.clone(),
        first_seed: some.how.seed,
        seeds: some.seeds,
        ..Request::default()
    };
    let mut scenarios: Vec<&dyn Scenario> = Vec::new();
    for name in &some.names {
        let scenario = named(name)?;
        if scenarios.iter().all(|other| other.name() != scenario.name()) {
            scenarios.push(scenario);
        }
    }
    let plans = scenarios.iter().map(|own| Plan::new(*own, &request)).collect::<Result<Vec<_>, _>>()?;

    let ran = run(&plans, some.how.threads(), &Progress::shown());
    let columns = env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
    for ran in &ran {
        println!("{}", terminal::results(ran, columns));
    }
    if let Some(out) = &some.out {
        write_report(out, &command_of(some), &ran)?;
    }
    if let Some(file) = &some.summary {
        report::write_summary(file, &command_of(some), &ran, WAITING).map_err(|error| at(file, &error))?;
    }
    Ok(ended(&ran))
}

/// The command that gives the same numbers again.
fn command_of(some: &Picked) -> String {
    let mut command = format!("{PROGRAM} run {} --seed {}", some.names.join(" "), some.how.seed);
    let settings = some.set.iter().map(|set| format!(" --set {}={}", set.name, set.value));
    let seeds = some.seeds.iter().map(|seeds| format!(" --seeds {seeds}"));
    let point = some.point.iter().map(|point| format!(" --point {point}"));
    let contenders = some.contender.iter().map(|name| format!(" --contender {name}"));
    command.extend(seeds.chain(settings).chain(point).chain(contenders));
    command
}

fn named(name: &str) -> Result<&'static dyn Scenario, String> {
    ALL.iter().copied().find(|scenario| scenario.name() == name).ok_or_else(|| {
        if let Some(row) = WAITING.iter().find(|row| row.name == name) {
            return format!("{name} waits for {}: it cannot be run yet", row.waits_for);
        }
        let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name()).collect();
        format!("there is no experiment `{name}`, but {}", known.join(", "))
    })
}

fn write_report(out: &Path, command: &str, ran: &[Ran<'_>]) -> Result<(), String> {
    report::write(out, command, ran, WAITING).map_err(|error| at(out, &error))?;
    eprintln!("The report is in {}.", out.join("index.md").display());
    Ok(())
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write to {}: {error}", path.display())
}

fn ended(ran: &[Ran<'_>]) -> ExitCode {
    eprint!("{}", terminal::failures(ran.iter().flat_map(|ran| &ran.failures)));
    if ran.iter().all(|ran| ran.failures.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_scenario_that_waits_says_for_what() {
        for row in WAITING {
            let told = named(row.name).err().unwrap();
            assert!(told.starts_with(&format!("{} waits for {}", row.name, row.waits_for)), "{told}");
        }
    }
}
