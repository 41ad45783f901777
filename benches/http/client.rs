//! The client: a process of its own for each shape, so that its processor time is nobody else's.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::{
    case::Case,
    cores::{Layout, this_program},
    options::Options,
    report::Row,
    rounds::{self, Round},
    server,
};

/// Has `cases` measured by a client on its core.
pub(crate) fn start(
    cases: &[&Case],
    concurrency: usize,
    layout: Layout,
    server: &server::Running,
    quick: bool,
) -> Result<Vec<Row>, String> {
    let mut command = this_program(Some(layout.client))?;
    command.arg("--client").args(["--concurrency", &concurrency.to_string()]);
    command.args(["--server-process", &server.process().to_string()]);
    for address in server.addresses {
        command.args(["--server", &address.to_string()]);
    }
    for case in cases {
        command.args(["--case", case.name]);
    }
    if quick {
        command.arg("--quick");
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start the client (taskset keeps it on its core): {error}"))?;
    if !output.status.success() {
        return Err("the client failed".into());
    }
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the client says what cannot be read: {error}"))?;
    let rows = cases.iter().map(|case| {
        let rounds = said[case.name].as_array()?.iter().map(read).collect::<Option<_>>()?;
        Some(Row { case: case.name, concurrency, cores: layout.cores, rounds, instructions: None })
    });
    rows.collect::<Option<_>>().ok_or_else(|| "the client left something out".into())
}

/// What runs as the client: prints the rounds of each case.
pub(crate) fn measure(cases: &[Case], options: &Options) -> Result<(), String> {
    let chosen: Vec<&Case> = cases.iter().filter(|case| options.wants(case)).collect();
    let server = options.server_process.ok_or("a client needs to know the server's process")?;
    let (concurrency, plan) = (options.concurrency[0], options.plan());
    let rounds = rounds::measure(&chosen, options.servers()?, server, concurrency, plan)?;
    let of_case = chosen.iter().zip(&rounds);
    let said: serde_json::Map<_, _> = of_case
        .map(|(case, rounds)| (case.name.to_owned(), rounds.iter().map(write).collect::<Value>()))
        .collect();
    println!("{}", Value::from(said));
    Ok(())
}

fn write(round: &Round) -> Value {
    json!([round.req_per_s, round.p50_us, round.p99_us, round.cpu_us_per_req, round.both_us_per_req])
}

fn read(round: &Value) -> Option<Round> {
    let number = |index: usize| round[index].as_f64();
    Some(Round {
        req_per_s: number(0)?,
        p50_us: number(1)?,
        p99_us: number(2)?,
        cpu_us_per_req: number(3)?,
        both_us_per_req: number(4)?,
    })
}
