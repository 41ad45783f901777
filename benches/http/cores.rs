//! Which process runs on which core.

use std::{fs, process::Command};

/// The core of the client, and that of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// How many they are.
    pub(crate) cores: usize,
    pub(crate) client: usize,
    pub(crate) server: usize,
}

/// Client and server on `cores` of those this process may run on: one each, or both on the first.
pub(crate) fn layout(cores: usize) -> Result<Layout, String> {
    let allowed = allowed()?;
    match (cores, allowed.as_slice()) {
        (1, [only, ..]) => Ok(Layout { cores, client: *only, server: *only }),
        (2, [first, second, ..]) => Ok(Layout { cores, client: *first, server: *second }),
        _ => Err(format!("there are {} cores for a layout of {cores}; choose --cores 1", allowed.len())),
    }
}

/// This program again, kept on `core` if there is one.
pub(crate) fn this_program(core: Option<usize>) -> Result<Command, String> {
    let binary = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    Ok(match core {
        None => Command::new(binary),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string()]).arg(binary);
            command
        }
    })
}

/// The cores that this process may run on.
fn allowed() -> Result<Vec<usize>, String> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read which cores there are: {error}"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| parse(list.trim()))
        .ok_or_else(|| "the system does not say which cores there are".into())
}

/// `0-2,5` is 0, 1, 2 and 5.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}
