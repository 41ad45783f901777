//! Times the cases of one shape against each other.

use std::{fs, time::Duration};

use mainstay::clock;
use rustix::time::{ClockId, clock_gettime};

use crate::case::{Case, Length, Running, Servers};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

/// What one case showed in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) req_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of this process, of user and system.
    pub(crate) cpu_us_per_req: f64,
    /// Of this process and the server's. On one core the kernel books what a switch costs on either, as it happens.
    pub(crate) both_us_per_req: f64,
}

/// Measures `cases` side by side: the rounds of each, in the order of the cases.
pub(crate) fn measure(
    cases: &[&Case],
    servers: Servers,
    server: u32,
    concurrency: usize,
    plan: Plan,
) -> Result<Vec<Vec<Round>>, String> {
    let mut rounds = vec![Vec::new(); cases.len()];
    for round in 0..plan.rounds {
        for turn in 0..cases.len() {
            let index = (turn + round) % cases.len();
            let mut running = cases[index].start(servers, concurrency);
            rounds[index].push(timed(&mut *running, server, plan.round)?);
        }
    }
    Ok(rounds)
}

fn timed(running: &mut dyn Running, server: u32, time: Duration) -> Result<Round, String> {
    running.run(Length::Time(time / 4));
    let (began, cpu, theirs) = (clock::now(), cpu_us(), cpu_us_of(server)?);
    let mut latencies = running.run(Length::Time(time));
    let (cpu, wall) = (cpu_us() - cpu, clock::now().saturating_duration_since(began));
    let theirs = cpu_us_of(server)? - theirs;
    latencies.sort_unstable();
    let requests = latencies.len() as f64;
    let percentile = |share: f64| latencies[(requests * share) as usize].as_nanos() as f64 / 1_000.0;
    Ok(Round {
        req_per_s: requests / wall.as_secs_f64(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        cpu_us_per_req: cpu / requests,
        both_us_per_req: (cpu + theirs) / requests,
    })
}

/// The processor time that this process has used, in microseconds.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The same of a process with one thread that works: the first number of its `schedstat`, in nanoseconds.
fn cpu_us_of(process: u32) -> Result<f64, String> {
    let said = fs::read_to_string(format!("/proc/{process}/schedstat"));
    let nanos = said.ok().and_then(|said| said.split(' ').next()?.parse::<f64>().ok());
    nanos
        .map(|nanos| nanos / 1e3)
        .ok_or_else(|| format!("/proc does not say what process {process} has used"))
}
