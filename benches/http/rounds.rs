//! Times the cases of one shape against each other.

use std::time::Duration;

use mainstay::clock;
use rustix::time::{ClockId, clock_gettime};

use crate::case::{Case, Length, Servers};

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
}

/// Measures `cases` side by side: the rounds of each, in the order of the cases.
pub(crate) fn measure(cases: &[&Case], servers: Servers, concurrency: usize, plan: Plan) -> Vec<Vec<Round>> {
    let mut rounds = vec![Vec::new(); cases.len()];
    for round in 0..plan.rounds {
        for turn in 0..cases.len() {
            let index = (turn + round) % cases.len();
            rounds[index].push(timed(cases[index], servers, concurrency, plan.round));
        }
    }
    rounds
}

fn timed(case: &Case, servers: Servers, concurrency: usize, time: Duration) -> Round {
    let mut running = case.start(servers, concurrency);
    running.run(Length::Time(time / 4));
    let (began, cpu) = (clock::now(), cpu_us());
    let mut latencies = running.run(Length::Time(time));
    let (cpu, wall) = (cpu_us() - cpu, clock::now().saturating_duration_since(began));
    latencies.sort_unstable();
    let requests = latencies.len() as f64;
    let percentile = |share: f64| latencies[(requests * share) as usize].as_nanos() as f64 / 1_000.0;
    Round {
        req_per_s: requests / wall.as_secs_f64(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        cpu_us_per_req: cpu / requests,
    }
}

/// The processor time that this process has used, in microseconds.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
