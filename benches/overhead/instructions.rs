//! Instructions and clock reads of one call, counted by callgrind.
//!
//! The benchmark starts itself under valgrind, once for each cell. The child makes a run to warm up, a short one and a
//! long one. Callgrind collects only within [`counted_run`] and writes a profile after each. The long run less the short
//! one, divided by the difference in calls, is exact for one call: what a run costs by itself cancels.

use std::{
    collections::HashSet,
    fs,
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    case::{Case, Shape},
    options::Options,
};

/// Calls of all callers together in each run: to warm up, the short one, the long one.
const RUNS: [u64; 3] = [1_024, 1_024, 4_096];

const COUNTED_RUN: &str = concat!(module_path!(), "::counted_run");

/// What callgrind counted, per call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    /// Calls of `clock_gettime`; a clock that reads the processor's counter would not show.
    pub(crate) clock_reads: f64,
}

/// Under valgrind threads take turns, and callgrind's switch is per thread: one thread is what can be counted.
pub(crate) fn can_count(shape: Shape) -> bool {
    shape.threads == 1
}

pub(crate) fn require_valgrind() -> Result<(), String> {
    let found =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => {
            Err("--instructions needs valgrind, which was not found; leave it out to measure the rest".into())
        }
    }
}

/// Counts one case in one shape.
pub(crate) fn count(case: &str, shape: Shape) -> Result<Counted, String> {
    let binary = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let profile = folder.join("profile");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .args([format!("--toggle-collect={COUNTED_RUN}"), format!("--dump-after={COUNTED_RUN}")])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(binary)
        .args(["--child", "--case", case])
        .args(["--endpoints", &shape.endpoints.to_string()])
        .args(["--callers", &shape.callers.to_string()])
        .args(["--threads", &shape.threads.to_string()])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind failed on {case}:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let read = |part: &str| {
        fs::read_to_string(profile.with_extension(part))
            .map_err(|error| format!("callgrind left no profile of {case}: {error}"))
            .and_then(|text| {
                parse(&text).ok_or_else(|| format!("callgrind's profile of {case} has no totals"))
            })
    };
    let (short, long) = (read("2")?, read("3")?);
    // Left behind in the build folder on a failure, for a look at it.
    let _ = fs::remove_dir_all(&folder);
    let calls = ((per_caller(RUNS[2], shape) - per_caller(RUNS[1], shape)) * shape.callers as u64) as f64;
    Ok(Counted {
        instructions: (long.0 as f64 - short.0 as f64) / calls,
        clock_reads: (long.1 as f64 - short.1 as f64) / calls,
    })
}

/// What runs under callgrind.
pub(crate) fn child(cases: &[Case], options: &Options) {
    for shape in options.shapes() {
        for case in cases.iter().filter(|case| options.wants(case)) {
            let mut running = case.start(shape);
            for calls in RUNS {
                running.run(per_caller(calls, shape), &mut |calls| counted_run(calls));
            }
        }
    }
}

fn per_caller(calls: u64, shape: Shape) -> u64 {
    calls / shape.callers as u64
}

/// Callgrind finds this by its name, [`COUNTED_RUN`]. What follows the calls keeps them from becoming a jump.
#[inline(never)]
fn counted_run(calls: &mut dyn FnMut()) {
    calls();
    black_box(());
}

/// Instructions and clock reads of a profile.
///
/// A function is named once, `cfn=(7) clock_gettime`, and after that by its number; the line after it says how often
/// it was called from there, `calls=3 0`. Those numbers are since the profile before, collected or not: one more reason
/// for a run to warm up.
fn parse(profile: &str) -> Option<(u64, u64)> {
    let mut total = None;
    let mut clocks: HashSet<&str> = HashSet::new();
    let (mut reads, mut called) = (0, "");
    for line in profile.lines() {
        if let Some(rest) = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")) {
            total = rest.trim().parse().ok().or(total);
        } else if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if name.starts_with("clock_gettime") {
                clocks.insert(number);
            }
            called = number;
        } else if let Some(rest) = line.strip_prefix("calls=")
            && clocks.contains(called)
        {
            reads += rest.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    total.map(|total| (total, reads))
}
