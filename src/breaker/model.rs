//! Every interleaving of the few things that may happen to a breaker at once.

use std::{
    sync::{
        Arc,
        // Not loom's: the models keep their books in the order in which things happen, and add no order of their own.
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use loom::thread;

use super::{BreakerOptions, Change, CircuitBreaker, Moved, State, Window, teller::Teller};
use crate::{clock, outcome::Verdict, random::Seeded};

struct Race {
    breaker: CircuitBreaker,
    now: Instant,
    random: Seeded,
    opened: AtomicUsize,
}

impl Race {
    fn new(options: BreakerOptions) -> Self {
        let now = clock::now();
        let breaker = CircuitBreaker::new(options, now).unwrap();
        Self { breaker, now, random: Seeded::new(1), opened: AtomicUsize::new(0) }
    }

    fn end(&self, admission: super::Admission, verdict: Verdict) {
        let change = self.breaker.finish(admission, verdict, self.now, &self.random);
        if matches!(change, Some(Change { what: Moved::Opened { .. }, .. })) {
            self.opened.fetch_add(1, SeqCst);
        }
    }

    fn call(&self, verdict: Verdict) {
        if let (Ok(admission), _) = self.breaker.admit(self.now) {
            self.end(admission, verdict);
        }
    }

    /// At the end of the time of open.
    fn about_to_half_open(options: BreakerOptions) -> Self {
        let mut race = Self::new(options.consecutive(1));
        race.call(Verdict::failure());
        race.now += Duration::from_secs(5);
        race
    }
}

fn window(calls: u32) -> BreakerOptions {
    BreakerOptions::default().window(Window::Calls(calls)).min_calls(calls)
}

fn both(race: Race, one: impl Fn(&Race) + Send + 'static, other: impl Fn(&Race)) -> Arc<Race> {
    let race = Arc::new(race);
    let theirs = race.clone();
    let thread = thread::spawn(move || one(&theirs));
    other(&race);
    thread.join().unwrap();
    race
}

#[test]
fn of_two_calls_that_fill_the_window_the_last_opens_it_and_one_of_them_only() {
    loom::model(|| {
        let race = both(
            Race::new(window(2)),
            |race| race.call(Verdict::failure()),
            |race| race.call(Verdict::success()),
        );
        assert_eq!((race.breaker.state(), race.opened.load(SeqCst)), (State::Open, 1));
    });
}

#[test]
fn the_window_holds_what_was_counted_when_all_is_quiet() {
    loom::model(|| {
        let race = Race::new(window(2).failure_rate(None));
        race.call(Verdict::failure());
        let race = both(
            race,
            |race| race.call(Verdict::success()),
            |race| {
                race.call(Verdict::failure());
                race.call(Verdict::success());
            },
        );
        let status = race.breaker.status(race.now);
        assert_eq!(status.calls, 2);
        // Of the last two calls one is a success; the other is the failure or the other success.
        assert!(status.failures <= 1, "{status:?}");
    });
}

#[test]
fn a_call_that_began_before_a_reset_is_not_in_the_new_window() {
    loom::model(|| {
        let race = Race::new(window(2));
        let (admission, _) = race.breaker.admit(race.now);
        let race = Arc::new(race);
        let theirs = race.clone();
        let late = thread::spawn(move || theirs.end(admission.unwrap(), Verdict::failure()));
        race.breaker.force(State::Closed, race.now, &race.random);
        late.join().unwrap();
        let status = race.breaker.status(race.now);
        assert_eq!((status.calls, status.failures), (0, 0));
    });
}

#[test]
fn half_open_lets_one_probe_through_and_never_loses_it() {
    loom::model(|| {
        let race = Race::about_to_half_open(window(2));
        let probing = Arc::new(AtomicUsize::new(0));
        let probe = |probing: Arc<AtomicUsize>| {
            move |race: &Race| {
                if let (Ok(admission), _) = race.breaker.admit(race.now) {
                    assert_eq!(probing.fetch_add(1, SeqCst), 0, "two at a time");
                    probing.fetch_sub(1, SeqCst);
                    race.breaker.forgo(admission);
                }
            }
        };
        let race = both(race, probe(probing.clone()), probe(probing));
        assert_eq!(race.breaker.status(race.now).probing, 0);
        race.call(Verdict::success());
        assert_eq!(race.breaker.state(), State::Closed);
    });
}

#[test]
fn options_replaced_while_it_opens_lose_neither() {
    loom::model(|| {
        let race = both(
            Race::new(window(1)),
            |race| race.call(Verdict::failure()),
            |race| drop(race.breaker.update(window(1).probes(3, 3), race.now, &race.random).unwrap()),
        );
        assert_eq!((race.breaker.state(), race.breaker.options().probes), (State::Open, 3));
    });
}

#[test]
fn changes_are_told_once_each_and_in_their_order() {
    loom::model(|| {
        let (teller, told) = (Arc::new(Teller::default()), Arc::new(AtomicUsize::new(0)));
        let tell = |teller: Arc<Teller>, told: Arc<AtomicUsize>, number| {
            move || {
                let change = Change { number, what: Moved::HalfOpened };
                teller.hand_in(change, |change| {
                    assert_eq!(told.fetch_add(1, SeqCst) as u64, change.number);
                });
            }
        };
        let threads = [1, 0].map(|number| thread::spawn(tell(teller.clone(), told.clone(), number)));
        tell(teller, told.clone(), 2)();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(told.load(SeqCst), 3);
    });
}
