//! What is counted, and when it is too much.

use super::*;

fn over_time(seconds: u64, min_calls: u32, rate: u32) -> BreakerOptions {
    BreakerOptions::default()
        .window(Window::Time(SECOND * seconds as u32))
        .min_calls(min_calls)
        .failure_rate(Some(percent(rate)))
}

#[test]
fn a_success_may_be_what_opens_it() {
    for options in [over_time(20, 5, 50), small()] {
        let mut bench = Bench::new(options);
        bench.fail(3);
        bench.ok(1);
        assert_eq!((bench.state(), bench.status().failure_rate), (State::Closed, None));
        bench.ok(1);
        assert_eq!((bench.state(), bench.status().failure_rate), (State::Open, Some(0.6)));
    }
}

#[test]
fn a_rate_that_is_reached_opens_it_and_one_below_does_not() {
    for (failures, calls, expected) in
        [(1, 10, State::Open), (0, 10, State::Closed), (1, 9, State::Closed), (2, 11, State::Open)]
    {
        let mut bench = Bench::new(over_time(10, 10, 10));
        bench.fail(failures);
        for _ in failures..calls {
            bench.call(Verdict::success());
        }
        assert_eq!(bench.state(), expected, "{failures} of {calls}");
    }
}

#[test]
fn whole_percents_are_compared_exactly() {
    for rate in 1..=100 {
        let options = BreakerOptions::default().min_calls(100).failure_rate(Some(percent(rate)));
        let mut bench = Bench::new(options.clone());
        bench.fail(rate);
        (rate..100).for_each(|_| {
            bench.call(Verdict::success());
        });
        assert_eq!(bench.state(), State::Open, "{rate} %");
        let mut bench = Bench::new(options);
        bench.fail(rate - 1);
        bench.ok(101 - rate);
        assert_eq!(bench.state(), State::Closed, "{rate} %");
    }
}

#[test]
fn a_window_of_time_slides_in_tenths() {
    let mut bench = Bench::new(over_time(10, 100, 50));
    for _ in 0..10 {
        bench.ok(1);
        bench.pass(SECOND);
    }
    assert_eq!(bench.status().calls, 9);
    bench.pass(SECOND);
    assert_eq!(bench.status().calls, 8);
}

#[test]
fn what_is_as_old_as_the_window_is_gone() {
    for idle in [SECOND * 10, SECOND * 10 + MS, SECOND * 100, SECOND * 86_400] {
        let mut bench = Bench::new(over_time(10, 2, 50));
        bench.fail(1);
        bench.pass(idle);
        assert_eq!(bench.status().calls, 0, "after {idle:?}");
        bench.ok(2);
        assert_eq!((bench.state(), bench.status().failures), (State::Closed, 0));
    }
}

#[test]
fn good_calls_that_leave_the_window_may_open_it_at_the_next_good_one() {
    let mut bench = Bench::new(over_time(10, 5, 50));
    bench.ok(10);
    bench.pass(SECOND * 5);
    bench.fail(5);
    bench.ok(4);
    assert_eq!(bench.state(), State::Closed);
    bench.pass(SECOND * 5);
    bench.call(Verdict::success());
    assert_eq!((bench.state(), bench.status().calls), (State::Open, 10));
}

#[test]
fn the_window_of_calls_holds_the_last_and_no_more() {
    let mut bench = Bench::new(small().failure_rate(Some(percent(60))));
    bench.fail(1);
    bench.ok(4);
    assert_eq!((bench.status().failure_rate, bench.status().calls), (Some(0.2), 5));
    bench.ok(1);
    assert_eq!((bench.status().failure_rate, bench.status().calls), (Some(0.0), 5));
}

#[test]
fn no_length_of_good_history_delays_it() {
    for history in [0, 100, 1_000, 100_000] {
        let mut bench = Bench::new(BreakerOptions::default());
        bench.ok(history);
        let failures = (1..).find(|_| {
            bench.call(Verdict::failure());
            bench.state() == State::Open
        });
        assert_eq!(failures, Some(if history == 0 { 20 } else { 50 }), "after {history}");
    }
}

#[test]
fn failures_in_a_row_are_counted_up_to_the_next_success() {
    let mut bench = Bench::new(BreakerOptions::default().failure_rate(None).consecutive(6));
    bench.fail(5);
    assert_eq!(bench.state(), State::Closed);
    bench.ok(1);
    bench.fail(5);
    assert_eq!(bench.state(), State::Closed);
    bench.fail(1);
    assert_eq!(bench.status().why, Some(Trip::Consecutive { failures: 6 }));
}

#[test]
fn old_steps_are_dropped_before_the_rate_is_judged() {
    let mut bench = Bench::new(over_time(30, 1, 61));
    bench.ok(60);
    bench.pass(SECOND * 30);
    bench.ok(9);
    bench.fail(14);
    assert_eq!((bench.state(), bench.status().calls), (State::Closed, 23));
    bench.fail(1);
    assert_eq!(bench.state(), State::Open, "15 of 24 are 62.5 %");
}

#[test]
fn a_few_calls_are_no_rate_whatever_they_are() {
    let mut bench = Bench::new(BreakerOptions::default());
    bench.fail(19);
    assert_eq!((bench.state(), bench.status().failure_rate), (State::Closed, None));
    bench.fail(1);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn nothing_opens_it_while_it_warms_up() {
    let mut bench = Bench::new(BreakerOptions::default().consecutive(1).warm_up(SECOND * 10));
    bench.fail(30);
    assert_eq!(bench.state(), State::Closed);
    bench.pass(SECOND * 10);
    bench.fail(1);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn failures_of_the_warm_up_do_not_open_it_afterwards() {
    for options in [small(), small().window(Window::Time(SECOND * 60)), small().consecutive(2)] {
        let mut bench = Bench::new(options.warm_up(SECOND * 10));
        bench.fail(30);
        bench.pass(SECOND * 10);
        assert_eq!((bench.status().calls, bench.status().consecutive), (0, 0));
        bench.fail(1);
        bench.ok(4);
        assert_eq!((bench.state(), bench.status().failures), (State::Closed, 1));
    }
}

#[test]
fn what_says_nothing_counts_neither_way() {
    let mut bench = Bench::new(BreakerOptions::default());
    for _ in 0..5 {
        bench.ok(1);
        bench.fail(1);
        assert!(bench.call(Verdict::inconclusive()) && bench.call(Verdict::back_off(Some(SECOND))));
    }
    let status = bench.status();
    assert_eq!((status.calls, status.failures), (10, 5));
}

#[test]
fn slow_calls_open_it_whether_they_fail_or_not() {
    let options = small().failure_rate(None).slow(percent(50), SECOND * 4);
    let mut bench = Bench::new(options);
    for (seconds, verdict) in [
        (5, Verdict::failure()),
        (5, Verdict::success()),
        (1, Verdict::failure()),
        (1, Verdict::success()),
        (5, Verdict::success()),
    ] {
        assert_eq!(bench.state(), State::Closed);
        bench.lasting(SECOND * seconds, verdict);
    }
    let status = bench.status();
    assert_eq!((status.state, status.slow_rate, status.slow), (State::Open, Some(0.6), 3));
    assert_eq!(status.why, Some(Trip::SlowRate { slow: 3, calls: 5 }));
}

#[test]
fn a_call_that_lasts_just_as_long_as_it_may_is_not_slow() {
    let mut bench = Bench::new(small().slow(percent(50), SECOND));
    bench.lasting(SECOND, Verdict::success());
    assert_eq!(bench.status().slow, 0);
    bench.lasting(SECOND + Duration::from_nanos(1), Verdict::success());
    assert_eq!(bench.status().slow, 1);
}

#[test]
fn a_late_call_of_another_thread_is_counted_where_it_belongs() {
    let mut bench = Bench::new(over_time(10, 100, 50));
    let slow = bench.admit().unwrap();
    bench.ok(3);
    bench.pass(SECOND * 10);
    bench.finish(slow, Verdict::failure());
    assert_eq!((bench.status().calls, bench.status().failures), (1, 1));
}
