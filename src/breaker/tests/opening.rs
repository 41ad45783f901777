//! Opening, and being open.

use super::*;
use crate::backoff::{Backoff, Jitter};

#[test]
fn an_open_breaker_refuses_counts_it_and_says_how_long_why_and_since_when() {
    let mut bench = Bench::new(small());
    bench.fail(5);
    let why = Trip::FailureRate { failures: 5, calls: 5 };
    let refusal = bench.admit().unwrap_err();
    assert_eq!((refusal.state, refusal.remaining, refusal.why), (State::Open, Some(SECOND * 5), why));
    bench.pass(MS);
    let refusal = bench.admit().unwrap_err();
    assert_eq!((refusal.remaining, refusal.lasted), (Some(SECOND * 5 - MS), MS));
    assert_eq!((bench.status().refused, bench.status().opened), (2, 1));
}

#[test]
fn the_first_call_at_the_end_of_the_time_is_let_through_and_none_before() {
    let mut bench = Bench::new(small());
    bench.fail(5);
    bench.pass(SECOND * 5 - Duration::from_nanos(1));
    assert!(bench.admit().is_err());
    bench.pass(Duration::from_nanos(1));
    assert!(bench.admit().is_ok_and(|admission| admission.is_probe()));
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_function_sees_every_opening_until_a_close_starts_anew() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = seen.clone();
    let open = OpenTime::function(move |opening| {
        told.lock().unwrap().push(opening.attempt);
        SECOND
    });
    let mut bench = Bench::new(BreakerOptions::default().consecutive(1).open(open));
    for failures in [5, 3] {
        for _ in 0..failures {
            bench.fail(1);
            bench.pass(SECOND);
        }
        bench.ok(1);
    }
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 0, 1, 2]);
}

#[test]
fn a_growing_time_grows_until_it_closes() {
    let open = Backoff::exponential(SECOND).cap(SECOND * 5).jitter(Jitter::None);
    let mut bench = Bench::new(BreakerOptions::default().consecutive(1).open(open));
    for _ in 0..4 {
        bench.fail(1);
        bench.pass(SECOND * 5);
    }
    bench.ok(1);
    bench.fail(1);
    assert_eq!(bench.openings(), [1, 2, 4, 5, 1].map(|seconds| SECOND * seconds));
}

#[test]
fn the_longest_time_overflows_nothing() {
    let mut bench =
        Bench::new(BreakerOptions::default().consecutive(1).open(OpenTime::function(|_| Duration::MAX)));
    bench.fail(1);
    bench.pass(SECOND * 86_400 * 365);
    assert!(bench.admit().unwrap_err().remaining.is_some_and(|left| left > SECOND * 86_400 * 365));
    let change = bench.breaker.force_open_for(Duration::MAX, bench.now);
    assert!(matches!(change.what, Moved::Opened { .. }));
}

#[test]
fn the_time_an_answer_asks_for_counts_where_it_is_longer_up_to_the_cap() {
    for (asked, lasts) in [(60, 60), (1, 5), (4_000, 300)] {
        let mut bench = Bench::new(BreakerOptions::default().consecutive(1));
        bench.call(Verdict::failure().again(crate::outcome::Again::After(SECOND * asked)));
        assert_eq!(bench.openings(), [SECOND * lasts], "asked for {asked} s");
    }
}

#[test]
fn one_answer_that_asks_to_be_left_alone_opens_it_where_that_is_wanted() {
    let mut bench = Bench::new(BreakerOptions::default().open_when_asked(true));
    bench.call(Verdict::back_off(None));
    assert_eq!(bench.state(), State::Closed);
    bench.call(Verdict::back_off(Some(SECOND * 20)));
    assert_eq!(bench.status().why, Some(Trip::Asked { time: SECOND * 20 }));
    assert_eq!(bench.admit().unwrap_err().remaining, Some(SECOND * 20));
}

#[test]
fn what_began_before_it_opened_changes_nothing_afterwards() {
    let mut bench = Bench::new(small().probes(4, 4));
    let late: Vec<_> = (0..6).map(|_| bench.admit().unwrap()).collect();
    bench.fail(5);
    let mut late = late.into_iter();
    let mut finish = |bench: &mut Bench, verdict| bench.finish(late.next().unwrap(), verdict);
    bench.pass(SECOND * 2);
    finish(&mut bench, Verdict::failure());
    finish(&mut bench, Verdict::success());
    assert_eq!((bench.state(), bench.status().remaining), (State::Open, Some(SECOND * 3)));
    bench.pass(SECOND * 3);
    let probe = bench.admit().unwrap();
    finish(&mut bench, Verdict::failure());
    finish(&mut bench, Verdict::success());
    assert_eq!((bench.state(), bench.status().probing), (State::HalfOpen, 1));
    bench.finish(probe, Verdict::success());
    bench.ok(3);
    assert_eq!(bench.state(), State::Closed);
    finish(&mut bench, Verdict::failure());
    bench.breaker.forgo(late.next().unwrap());
    let status = bench.status();
    assert_eq!((status.calls, status.failures, status.late), (0, 0, 5));
    assert_eq!(bench.openings().len(), 1);
}

#[test]
fn of_many_failures_at_once_one_opens_it() {
    let mut bench = Bench::new(small());
    let calls: Vec<_> = (0..6).map(|_| bench.admit().unwrap()).collect();
    for call in calls {
        bench.finish(call, Verdict::failure());
    }
    assert_eq!((bench.openings().len(), bench.status().late), (1, 1));
}

#[test]
fn time_that_runs_backwards_moves_nothing() {
    let mut bench = Bench::new(small());
    let early = bench.now;
    bench.pass(SECOND * 100);
    bench.fail(5);
    bench.now = early;
    assert!(bench.admit().is_err());
    assert_eq!(bench.status().lasted, Duration::ZERO);
}
