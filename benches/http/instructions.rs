//! Instructions of the client for one request, counted by callgrind.
//!
//! The benchmark starts itself under valgrind, once for each row. The child makes a run to warm up, a short one and a
//! long one. Callgrind collects only within [`counted_run`] and writes a profile after each. The long run less the short
//! one, divided by the difference in requests, is what one request costs; what a run costs by itself cancels. How many
//! answers one look at the sockets finds is up to the server, so the last digits move from run to run. What the kernel
//! does is not counted.

use std::{
    fs,
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    case::{Case, Length, Running},
    options::Options,
    server,
};

/// Requests of all callers together in each run: to warm up, the short one, the long one.
const RUNS: [u64; 3] = [1_024, 1_024, 5_120];

const COUNTED_RUN: &str = concat!(module_path!(), "::counted_run");

/// Whether valgrind is there.
pub(crate) fn can_count() -> bool {
    let found =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Counts one case at one concurrency.
pub(crate) fn count(case: &str, concurrency: usize, server: &server::Running) -> Result<f64, String> {
    let binary = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let profile = folder.join("profile");
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .args([format!("--toggle-collect={COUNTED_RUN}"), format!("--dump-after={COUNTED_RUN}")])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(binary)
        .args(["--counted", "--case", case, "--concurrency", &concurrency.to_string()]);
    for address in server.addresses {
        command.args(["--server", &address.to_string()]);
    }
    let output = command.output().map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind failed on {case}:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let read = |part: &str| {
        fs::read_to_string(profile.with_extension(part))
            .ok()
            .and_then(|text| total(&text))
            .ok_or_else(|| format!("callgrind left no totals of {case}"))
    };
    let (short, long) = (read("2")?, read("3")?);
    // Left behind in the build folder on a failure, for a look at it.
    let _ = fs::remove_dir_all(&folder);
    Ok((long as f64 - short as f64) / (RUNS[2] - RUNS[1]) as f64)
}

/// What runs under callgrind.
pub(crate) fn child(cases: &[Case], options: &Options) -> Result<(), String> {
    let concurrency = options.concurrency[0];
    for case in cases.iter().filter(|case| options.wants(case)) {
        let mut running = case.start(options.servers()?, concurrency);
        for requests in RUNS {
            counted_run(&mut *running, requests / concurrency as u64);
        }
    }
    Ok(())
}

/// Callgrind finds this by its name, [`COUNTED_RUN`]. What follows the requests keeps them from becoming a jump.
#[inline(never)]
fn counted_run(running: &mut dyn Running, requests: u64) {
    black_box(running.run(Length::Requests(requests)));
}

/// The instructions of a profile.
fn total(profile: &str) -> Option<u64> {
    let mut totals = profile.lines().filter_map(|line| {
        line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?.trim().parse().ok()
    });
    totals.next_back()
}
