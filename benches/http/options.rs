//! The command line.

use std::{net::SocketAddr, time::Duration};

use crate::{
    case::{Case, Servers},
    rounds::Plan,
};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Measure,
    /// `cargo test --benches` and `cargo bench -- --test`: show that every row runs.
    Smoke,
    /// A test runner that asks which tests there are: none.
    Nothing,
    /// The three that the benchmark starts itself as: the server, a client, and a client under callgrind.
    Serve,
    Client,
    Counted,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) concurrency: Vec<usize>,
    pub(crate) cores: Vec<usize>,
    cases: Vec<String>,
    servers: Vec<SocketAddr>,
    pub(crate) server_process: Option<u32>,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>, known: &[Case]) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        // Cargo says `--bench` when it benches and nothing when it tests; a test runner's other flags mean nothing here.
        let mode = match () {
            () if has("--serve") => Mode::Serve,
            () if has("--client") => Mode::Client,
            () if has("--counted") => Mode::Counted,
            () if has("--list") => Mode::Nothing,
            () if has("--test") || !has("--bench") => Mode::Smoke,
            () => Mode::Measure,
        };
        let mut options = Self {
            mode,
            json: false,
            quick: false,
            concurrency: Vec::new(),
            cores: Vec::new(),
            cases: Vec::new(),
            servers: Vec::new(),
            server_process: None,
        };
        if matches!(mode, Mode::Smoke | Mode::Nothing) {
            return Ok(options);
        }
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--bench" | "--serve" | "--client" | "--counted" => {}
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--case" => options.cases.push(case(value()?, known)?),
                "--concurrency" => options.concurrency.push(number(&flag, &value()?, 1, 1_024)?),
                "--cores" => options.cores.push(number(&flag, &value()?, 1, 2)?),
                "--server" => options.servers.push(address(&value()?)?),
                "--server-process" => options.server_process = value()?.parse().ok(),
                _ => return Err(format!("{flag} is not an option; {USAGE}")),
            }
        }
        if options.concurrency.is_empty() {
            options.concurrency = vec![1, 64];
        }
        if options.cores.is_empty() {
            options.cores = vec![2, 1];
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, case: &Case) -> bool {
        if self.cases.is_empty() { !case.hidden } else { self.cases.iter().any(|name| name == case.name) }
    }

    pub(crate) fn servers(&self) -> Result<Servers, String> {
        Servers::try_from(self.servers.as_slice()).map_err(|_| "a client needs two servers".into())
    }

    pub(crate) fn plan(&self) -> Plan {
        // Many short rounds: a neighbour that comes and goes spoils few of them.
        let (rounds, millis) = if self.quick { (5, 200) } else { (41, 200) };
        Plan { rounds, round: Duration::from_millis(millis) }
    }
}

const USAGE: &str =
    "there are --json, --quick, and, as often as wanted, --case NAME, --concurrency N, --cores N";

fn case(name: String, known: &[Case]) -> Result<String, String> {
    if known.iter().any(|case| case.name == name) {
        return Ok(name);
    }
    let names: Vec<_> = known.iter().map(|case| case.name).collect();
    Err(format!("there is no case {name}; there are {}", names.join(", ")))
}

fn number(flag: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{flag} needs a whole number from {least} to {most}, not {value}")),
    }
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("{value} is no address"))
}
