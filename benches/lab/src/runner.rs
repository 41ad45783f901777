//! Runs experiments, several at a time.
//!
//! Each run is single-threaded and deterministic, so threads share nothing but the list of what is to be run, and results
//! come in the order of the plans whatever thread was first.

use std::{
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    chart::Chart,
    panics::caught,
    plan::Plan,
    progress::Progress,
    scenario::{Claim, Finished, Outcome, Results, Run},
};

/// What panicked, with what, and how to see it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub what: String,
    pub message: String,
    pub repeat: String,
}

/// A plan with what came out of it.
#[derive(Debug)]
pub struct Ran<'a> {
    pub plan: &'a Plan<'a>,
    pub results: Results,
    /// `None` if only a part of the grid was run, which cannot be judged.
    pub claims: Option<Vec<Claim>>,
    pub chart: Chart,
    pub failures: Vec<Failure>,
    pub cpu: Duration,
}

struct Done {
    outcome: Result<Outcome, String>,
    cpu: Duration,
}

/// Runs all of `plans` on so many threads.
pub fn run<'a>(plans: &'a [Plan<'a>], threads: usize, progress: &Progress) -> Vec<Ran<'a>> {
    let runs: Vec<Vec<Run>> = plans.iter().map(Plan::runs).collect();
    let jobs: Vec<(&Plan<'_>, &Run)> =
        plans.iter().zip(&runs).flat_map(|(plan, runs)| runs.iter().map(move |run| (plan, run))).collect();
    let done: Vec<OnceLock<Done>> = jobs.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);

    progress.start(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                // Relaxed: a number is all that is handed out; the scope's end publishes what was done with it.
                while let Some((slot, (plan, run))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    done.get(index).zip(jobs.get(index))
                } {
                    progress.begins(plan.scenario.name());
                    let started = Usage::now();
                    let outcome = caught(|| plan.scenario.run(run));
                    let _ = slot.set(Done { outcome, cpu: started.since() });
                    progress.ends(plan.scenario.name());
                }
            });
        }
    });
    progress.finish();

    let mut done = done.into_iter().filter_map(OnceLock::into_inner);
    plans.iter().zip(runs).map(|(plan, runs)| gathered(plan, runs, &mut done)).collect()
}

fn gathered<'a>(plan: &'a Plan<'a>, runs: Vec<Run>, done: &mut impl Iterator<Item = Done>) -> Ran<'a> {
    let name = plan.scenario.name();
    let mut ran = Ran {
        plan,
        results: Results::default(),
        claims: None,
        chart: Chart::default(),
        failures: Vec::new(),
        cpu: Duration::ZERO,
    };
    for (run, done) in runs.into_iter().zip(done) {
        ran.cpu += done.cpu;
        match done.outcome {
            Ok(outcome) => ran.results.0.push(Finished { run, outcome }),
            Err(message) => {
                let what = format!("{name}, {}, {}, seed {}", run.point, run.contender, run.seed);
                ran.failures.push(Failure { what, message, repeat: plan.repeat(&run) });
            }
        }
    }
    // A judge may count on every run being there.
    let failed = |what: &str, message| Failure {
        what: format!("{name}, {what}"),
        message,
        repeat: format!("{} run {name}", crate::plan::PROGRAM),
    };
    if plan.is_whole() {
        ran.claims = Some(caught(|| plan.scenario.judge(&ran.results)).unwrap_or_else(|message| {
            let found = format!("none: the judge panicked: {message}");
            ran.failures.push(failed("judging", message));
            vec![Claim { owed: "a verdict".to_owned(), found, met: false }]
        }));
    }
    match caught(|| plan.scenario.chart(&ran.results)) {
        Ok(chart) => ran.chart = chart,
        Err(message) => ran.failures.push(failed("drawing", message)),
    }
    ran
}

/// What a thread had used when it was asked: its time on a CPU where the system tells, else the time that passed.
enum Usage {
    Cpu(Duration),
    Wall(Instant),
}

impl Usage {
    #[allow(clippy::disallowed_methods, reason = "what is measured is the real time that a run takes")]
    fn now() -> Self {
        Self::of_thread().map_or_else(|| Self::Wall(Instant::now()), Self::Cpu)
    }

    #[allow(clippy::disallowed_methods, reason = "what is measured is the real time that a run takes")]
    fn since(&self) -> Duration {
        match self {
            Self::Cpu(before) => Self::of_thread().unwrap_or(*before).saturating_sub(*before),
            Self::Wall(before) => Instant::now().saturating_duration_since(*before),
        }
    }

    fn of_thread() -> Option<Duration> {
        let nanos = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(nanos.split_whitespace().next()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fake::Fake, plan::Request};

    fn plan(settings: &[&str]) -> Plan<'static> {
        let settings = settings.iter().map(|setting| setting.parse().unwrap()).collect();
        Plan::new(&Fake, &Request { settings, ..Request::default() }).unwrap()
    }

    #[test]
    fn results_come_in_the_same_order_on_any_number_of_threads() {
        let plans = [plan(&[]), plan(&["load=0.5"])];
        let told = |threads| {
            let ran = run(&plans, threads, &Progress::hidden());
            ran.iter().map(|ran| format!("{:?}", ran.results)).collect::<Vec<_>>()
        };
        let alone = told(1);
        assert_eq!(alone, told(4));
        assert_eq!(alone, told(64));
    }

    #[test]
    fn a_run_that_panics_is_told_and_does_not_stop_the_rest() {
        let plans = [plan(&["load=2"]), plan(&[])];
        let ran = run(&plans, 2, &Progress::hidden());
        let failure = &ran[0].failures[0];
        assert_eq!(failure.what, "fake, load 2, servers 20, tower, seed 2");
        assert!(failure.message.starts_with("the queue is full"), "{}", failure.message);
        assert!(
            failure.repeat.ends_with("run fake --set load=2 --point 1 --contender tower --seed 2 --seeds 1")
        );
        assert_eq!(ran[0].failures.len(), 3);
        assert_eq!(ran[0].results.0.len(), 6);
        assert_eq!(ran[1].results.0.len(), 15);
        assert!(ran[1].failures.is_empty());
    }

    #[test]
    fn a_part_of_the_grid_is_not_judged() {
        let whole = [plan(&[])];
        assert!(run(&whole, 1, &Progress::hidden())[0].claims.is_some());
        let part = [Plan::new(&Fake, &Request { point: Some(1), ..Request::default() }).unwrap()];
        assert!(run(&part, 1, &Progress::hidden())[0].claims.is_none());
    }
}
