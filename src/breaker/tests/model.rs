//! The breaker beside a naive one that keeps every call in a list.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin,
    /// Ends the call in this place of those that are out, after so many ms.
    End(usize, bool),
    Drop(usize),
    Force(State),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..900).prop_map(Step::Wait),
        1 => (0_u64..40_000).prop_map(Step::Wait),
        16 => Just(Step::Begin),
        16 => (any::<usize>(), prop::bool::weighted(0.6)).prop_map(|(place, good)| Step::End(place, good)),
        2 => any::<usize>().prop_map(Step::Drop),
        1 => prop_oneof![
            Just(State::Closed), Just(State::Open), Just(State::ForcedOpen), Just(State::Disabled), Just(State::MetricsOnly),
        ]
        .prop_map(Step::Force),
    ]
}

fn options() -> impl Strategy<Value = BreakerOptions> {
    let window =
        prop_oneof![(1_u32..70).prop_map(Window::Calls), (1_u32..20).prop_map(|s| Window::Time(SECOND * s))];
    let slow = prop::option::of((1_u32..=100, 1_u32..500));
    let probes = (1_u32..5).prop_flat_map(|probes| (Just(probes), 1..=probes));
    (window, 1_u32..30, 1_u32..=100, slow, prop::option::of(1_u32..6), probes, any::<bool>()).prop_map(
        |(window, min_calls, rate, slow, consecutive, (probes, successes), closes)| {
            let most = if let Window::Calls(calls) = window { calls } else { u32::MAX };
            let mut options = BreakerOptions::default()
                .window(window)
                .min_calls(min_calls.min(most))
                .failure_rate(Some(percent(rate)))
                .probes(probes, successes)
                .half_open(SECOND * 3, if closes { Lapse::Closes } else { Lapse::Opens });
            if let Some((rate, ms)) = slow {
                options = options.slow(percent(rate), MS * ms);
            }
            if let Some(failures) = consecutive {
                options = options.consecutive(failures);
            }
            options
        },
    )
}

/// The obvious breaker.
struct Naive {
    options: BreakerOptions,
    state: State,
    generation: u32,
    until: Option<u64>,
    /// When, failed, slow.
    calls: VecDeque<(u64, bool, bool)>,
    in_a_row: u32,
    admitted: u32,
    successes: u32,
    failures: u32,
}

impl Naive {
    fn enter(&mut self, state: State, until: Option<u64>) {
        (self.state, self.until) = (state, until);
        self.generation += 1;
        (self.admitted, self.successes, self.failures) = (0, 0, 0);
        if matches!(state, State::Closed | State::MetricsOnly) {
            self.calls.clear();
            self.in_a_row = 0;
        }
    }

    fn open(&mut self, now: u64) {
        self.enter(State::Open, Some(now + 5_000));
    }

    fn move_on(&mut self, now: u64) {
        if self.until.is_some_and(|until| now >= until) {
            match self.state {
                State::Open => self.enter(State::HalfOpen, None),
                _ if self.options.lapse == Lapse::Closes => self.enter(State::Closed, None),
                _ => self.open(now),
            }
        }
    }

    fn admit(&mut self, now: u64) -> Option<u32> {
        self.move_on(now);
        match self.state {
            State::Open | State::ForcedOpen => return None,
            State::HalfOpen if self.admitted == self.options.probes => return None,
            State::HalfOpen => {
                self.admitted += 1;
                self.until.get_or_insert(now + 3_000);
            }
            _ => {}
        }
        Some(self.generation)
    }

    fn end(&mut self, generation: u32, now: u64, probe: bool, failed: bool, slow: bool) {
        if probe {
            self.move_on(now);
        }
        if generation != self.generation {
            return;
        }
        match self.state {
            State::HalfOpen => {
                if failed || slow {
                    self.failures += 1;
                } else {
                    self.successes += 1;
                }
                if self.successes >= self.options.probe_successes {
                    self.enter(State::Closed, None);
                } else if self.failures > self.options.probes - self.options.probe_successes {
                    self.open(now);
                }
            }
            State::Closed | State::MetricsOnly => {
                self.calls.push_back((now, failed, slow));
                self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
                if self.is_broken(now, failed) && self.state == State::Closed {
                    self.open(now);
                }
            }
            _ => {}
        }
    }

    fn held(&mut self, now: u64) -> (u64, u64, u64) {
        match self.options.window {
            Window::Calls(size) => {
                while self.calls.len() > size as usize {
                    self.calls.pop_front();
                }
            }
            Window::Time(time) => {
                let slice = time.as_millis() as u64 / 10;
                self.calls.retain(|(at, ..)| at / slice + 10 > now / slice);
            }
        }
        let count = |which: fn(&(u64, bool, bool)) -> bool| {
            self.calls.iter().filter(|call| which(call)).count() as u64
        };
        (self.calls.len() as u64, count(|call| call.1), count(|call| call.2))
    }

    fn is_broken(&mut self, now: u64, failed: bool) -> bool {
        let (calls, failures, slow) = self.held(now);
        let reaches = |rate: Option<Ratio>, count: u64| {
            rate.is_some_and(|rate| count * 100 >= (rate.get() * 100.0).round() as u64 * calls)
        };
        let enough = calls >= u64::from(self.options.min_calls);
        let rates = reaches(self.options.failure_rate, failures) || reaches(self.options.slow_rate, slow);
        let run = failed && self.options.consecutive.is_some_and(|most| self.in_a_row >= most);
        (enough && rates) || run
    }
}

proptest! {
    #[test]
    fn it_does_what_the_obvious_breaker_does(options in options(), steps in prop::collection::vec(step(), 1..400)) {
        let mut bench = Bench::new(options.clone());
        let mut naive = Naive {
            options, state: State::Closed, generation: 0, until: None, calls: VecDeque::new(), in_a_row: 0,
            admitted: 0, successes: 0, failures: 0,
        };
        let start = bench.now;
        let mut out: Vec<(Admission, u32, u64)> = Vec::new();
        for step in steps {
            let now = bench.now.saturating_duration_since(start).as_millis() as u64;
            match step {
                Step::Wait(ms) => bench.pass(Duration::from_millis(ms)),
                Step::Begin => {
                    let (admission, expected) = (bench.admit(), naive.admit(now));
                    prop_assert_eq!(admission.is_ok(), expected.is_some());
                    out.extend(admission.ok().zip(expected).map(|(admission, generation)| (admission, generation, now)));
                }
                Step::End(place, good) if !out.is_empty() => {
                    let (admission, generation, began) = out.swap_remove(place % out.len());
                    let probe = admission.is_probe();
                    bench.finish(admission, if good { Verdict::success() } else { Verdict::failure() });
                    let slow = naive.options.slow_rate.is_some()
                        && Duration::from_millis(now - began) > naive.options.slow_after;
                    naive.end(generation, now, probe, !good, slow);
                }
                Step::Drop(place) if !out.is_empty() => {
                    let (admission, generation, _) = out.swap_remove(place % out.len());
                    bench.breaker.forgo(admission);
                    if generation == naive.generation && naive.state == State::HalfOpen {
                        naive.admitted -= 1;
                        if naive.admitted == naive.successes + naive.failures {
                            naive.until = None;
                        }
                    }
                }
                Step::Force(state) => {
                    bench.force(state);
                    if state == State::Open { naive.open(now) } else { naive.enter(state, None) }
                }
                Step::End(..) | Step::Drop(_) => {}
            }
            prop_assert_eq!(bench.state(), naive.state);
            if matches!(naive.state, State::Closed | State::MetricsOnly) {
                let now = bench.now.saturating_duration_since(start).as_millis() as u64;
                let status = bench.status();
                prop_assert_eq!((status.calls, status.failures, status.slow), naive.held(now));
                prop_assert_eq!(status.consecutive, naive.in_a_row);
            }
        }
        let numbers: Vec<_> = bench.changes.iter().map(|change| change.number).collect();
        prop_assert_eq!(numbers.clone(), (0..numbers.len() as u64).collect::<Vec<_>>());
    }
}
