//! The command line.

use std::time::Duration;

use crate::{
    case::{Case, Shape},
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
    /// One case under callgrind, started by the benchmark itself.
    Child,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) json: bool,
    pub(crate) instructions: bool,
    pub(crate) callers: Vec<usize>,
    quick: bool,
    cases: Vec<String>,
    endpoints: Vec<usize>,
    threads: Vec<usize>,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>, known: &[Case]) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let mut options = Self {
            mode: Mode::Measure,
            json: false,
            instructions: false,
            quick: false,
            cases: Vec::new(),
            endpoints: Vec::new(),
            threads: Vec::new(),
            callers: Vec::new(),
        };
        // Cargo says `--bench` when it benches and nothing when it tests; a test runner's other flags mean nothing here.
        if has("--child") {
            options.mode = Mode::Child;
        } else if has("--list") {
            options.mode = Mode::Nothing;
        } else if has("--test") || !has("--bench") {
            options.mode = Mode::Smoke;
        }
        if matches!(options.mode, Mode::Smoke | Mode::Nothing) {
            return Ok(options);
        }
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--bench" | "--child" => {}
                "--json" => options.json = true,
                "--instructions" => options.instructions = true,
                "--quick" => options.quick = true,
                "--case" => options.cases.push(case(value()?, known)?),
                "--endpoints" => options.endpoints.push(number(&flag, &value()?, 2)?),
                "--threads" => options.threads.push(number(&flag, &value()?, 1)?),
                "--callers" => options.callers.push(number(&flag, &value()?, 1)?),
                _ => return Err(format!("{flag} is not an option; {USAGE}")),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, case: &Case) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| name == case.name)
    }

    pub(crate) fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for &endpoints in or(&self.endpoints, &[10, 1_000, 10_000]) {
            for &threads in or(&self.threads, &[1, 2]) {
                for &callers in or(&self.callers, &[1, 64]) {
                    shapes.push(Shape { endpoints, threads, callers });
                }
            }
        }
        shapes
    }

    pub(crate) fn plan(&self) -> Plan {
        let (rounds, millis) = if self.quick { (3, 5) } else { (11, 20) };
        Plan { rounds, round: Duration::from_millis(millis) }
    }
}

const USAGE: &str = "there are --json, --instructions, --quick, and, as often as wanted, --case NAME, --endpoints N, \
                     --threads N, --callers N";

fn or<'a>(given: &'a [usize], default: &'a [usize]) -> &'a [usize] {
    if given.is_empty() { default } else { given }
}

fn case(name: String, known: &[Case]) -> Result<String, String> {
    if known.iter().any(|case| case.name == name) {
        return Ok(name);
    }
    let names: Vec<_> = known.iter().map(|case| case.name).collect();
    Err(format!("there is no case {name}; there are {}", names.join(", ")))
}

fn number(flag: &str, value: &str, least: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("{flag} needs a whole number of at least {least}, not {value}")),
    }
}
