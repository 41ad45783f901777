//! The contract: what breakers before this one promise in their tests, what they get wrong, and a naive model beside it.

mod half_open;
mod hands;
mod model;
mod opening;
mod shell;
mod windows;

use std::time::{Duration, Instant};

use super::*;
use crate::{
    Ratio,
    outcome::{Sent, Verdict},
    random::Seeded,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn percent(percent: u32) -> Ratio {
    Ratio::new(f64::from(percent) / 100.0).unwrap()
}

/// The last 5, at least 5, 50 %, open 5 s.
fn small() -> BreakerOptions {
    BreakerOptions::default().window(Window::Calls(5)).min_calls(5)
}

/// A breaker with a clock of its own, and the changes it told.
struct Bench {
    breaker: CircuitBreaker,
    now: Instant,
    random: Seeded,
    changes: Vec<Change>,
}

impl Bench {
    fn new(options: BreakerOptions) -> Self {
        let now = crate::clock::now();
        let breaker = CircuitBreaker::new(options, now).unwrap();
        Self { breaker, now, random: Seeded::new(7), changes: Vec::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self) -> Result<Admission, Refusal> {
        let (admission, change) = self.breaker.admit(self.now);
        self.changes.extend(change);
        admission
    }

    fn finish(&mut self, admission: Admission, verdict: Verdict) {
        let change = self.breaker.finish(admission, verdict, self.now, &self.random);
        self.changes.extend(change);
    }

    fn update(&mut self, options: BreakerOptions) -> Result<(), crate::Invalid> {
        let change = self.breaker.update(options, self.now, &self.random)?;
        self.changes.extend(change);
        Ok(())
    }

    /// One call that ends at once, if it is let through.
    fn call(&mut self, verdict: Verdict) -> bool {
        self.lasting(Duration::ZERO, verdict)
    }

    fn lasting(&mut self, time: Duration, verdict: Verdict) -> bool {
        let Ok(admission) = self.admit() else { return false };
        self.pass(time);
        self.finish(admission, verdict);
        true
    }

    fn ok(&mut self, times: u32) {
        for _ in 0..times {
            assert!(self.call(Verdict::success()));
        }
    }

    fn fail(&mut self, times: u32) {
        for _ in 0..times {
            assert!(self.call(Verdict::failure()));
        }
    }

    fn force(&mut self, state: State) {
        let change = self.breaker.force(state, self.now, &self.random);
        self.changes.push(change);
    }

    fn state(&self) -> State {
        self.breaker.state()
    }

    fn status(&self) -> BreakerStatus {
        self.breaker.status(self.now)
    }

    /// Open because of failures, at the end of its time.
    fn about_to_half_open(options: BreakerOptions) -> Self {
        let mut bench = Self::new(options.min_calls(1).consecutive(1));
        bench.fail(1);
        assert_eq!(bench.state(), State::Open);
        bench.pass(bench.status().remaining.unwrap());
        bench
    }

    fn openings(&self) -> Vec<Duration> {
        let lasts = |change: &Change| match change.what {
            Moved::Opened { lasts, .. } => Some(lasts),
            _ => None,
        };
        self.changes.iter().filter_map(lasts).collect()
    }
}

#[test]
fn the_defaults_are_what_their_documentation_says() {
    let default = BreakerOptions::default();
    assert_eq!((default.window, default.min_calls), (Window::Calls(100), 20));
    assert_eq!((default.failure_rate, default.slow_rate), (Some(percent(50)), None));
    assert_eq!((default.slow_after, default.consecutive), (SECOND, None));
    assert_eq!((default.open.clone(), default.asked_cap), (OpenTime::fixed(SECOND * 5), SECOND * 300));
    assert_eq!((default.probes, default.probe_successes), (1, 1));
    assert_eq!(
        (default.half_open, default.lapse, default.warm_up),
        (SECOND * 30, Lapse::Opens, Duration::ZERO)
    );
    assert!(!default.open_when_asked && default.validate().is_ok());
}

#[test]
fn every_mistake_in_the_options_is_told_at_once() {
    let options = BreakerOptions::default()
        .window(Window::Calls(10))
        .failure_rate(Some(Ratio::ZERO))
        .consecutive(0)
        .open(Duration::ZERO)
        .probes(2, 3)
        .half_open(Duration::ZERO, Lapse::Opens);
    let invalid = options.validate().unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(
        fields,
        ["min_calls", "failure_rate", "consecutive", "open.cap", "probe_successes", "half_open"]
    );
    let fine = BreakerOptions::default().window(Window::Time(MS));
    assert!(fine.validate().is_err(), "ten steps of 100 us are no window of time");
}
