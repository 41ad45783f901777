//! What people and programs do to it.

use super::*;

#[test]
fn forced_open_stays_whatever_the_time() {
    let mut bench = Bench::new(small());
    let running = bench.admit().unwrap();
    bench.fail(5);
    bench.force(State::ForcedOpen);
    for _ in 0..3 {
        let refusal = bench.admit().unwrap_err();
        assert_eq!((refusal.state, refusal.remaining), (State::ForcedOpen, None));
        assert_eq!(bench.breaker.due(bench.now), (None, None), "no timer of before moves it");
        bench.pass(SECOND * 6);
    }
    bench.finish(running, Verdict::success());
    assert_eq!(bench.state(), State::ForcedOpen);
    bench.force(State::Closed);
    bench.ok(1);
}

#[test]
fn disabled_lets_everything_through_and_counts_nothing() {
    let mut bench = Bench::new(small());
    bench.force(State::Disabled);
    bench.fail(50);
    assert_eq!((bench.state(), bench.status().calls), (State::Disabled, 0));
}

#[test]
fn metrics_only_counts_tells_each_rule_once_and_never_opens() {
    let mut bench = Bench::new(small().consecutive(3));
    bench.force(State::MetricsOnly);
    bench.ok(2);
    bench.fail(6);
    assert_eq!((bench.state(), bench.status().failure_rate), (State::MetricsOnly, Some(1.0)));
    let exceeded: Vec<_> =
        bench.changes.iter().filter(|change| matches!(change.what, Moved::Exceeded(_))).collect();
    assert_eq!(exceeded.len(), 1, "the rate hides the run: {exceeded:?}");
}

#[test]
fn a_reset_closes_it_with_an_empty_window() {
    let mut bench = Bench::new(small());
    bench.fail(4);
    bench.force(State::Closed);
    assert_eq!((bench.status().calls, bench.status().consecutive), (0, 0));
    bench.fail(4);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.changes[0].what, Moved::Closed { by_hand: true });
}

#[test]
fn it_may_start_open() {
    let mut bench = Bench::new(small());
    bench.breaker.force_open_for(SECOND * 2, bench.now);
    assert_eq!(bench.admit().unwrap_err().why, Trip::ByHand);
    bench.pass(SECOND * 2);
    bench.ok(1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn options_replaced_while_it_is_open_change_neither_state_nor_the_time_left() {
    let mut bench = Bench::new(small());
    bench.fail(5);
    bench.pass(SECOND * 2);
    bench.update(small().open(SECOND * 100).probes(3, 2)).unwrap();
    let status = bench.status();
    assert_eq!((status.state, status.remaining), (State::Open, Some(SECOND * 3)));
    assert_eq!((status.opened, status.why), (1, Some(Trip::FailureRate { failures: 5, calls: 5 })));
    bench.pass(SECOND * 3);
    let probes: Vec<_> = (0..3).map(|_| bench.admit().unwrap()).collect();
    bench.update(small().open(SECOND * 100)).unwrap();
    assert!(bench.admit().is_err(), "those that are out stay out");
    probes.into_iter().take(1).for_each(|probe| bench.finish(probe, Verdict::failure()));
    assert_eq!(bench.status().remaining, Some(SECOND * 100));
}

#[test]
fn half_open_ends_if_what_its_probes_have_shown_is_enough_by_new_options() {
    let half_open = || {
        let mut bench = Bench::new(small().probes(3, 3));
        bench.fail(5);
        bench.pass(SECOND * 5);
        let probes: Vec<_> = (0..3).map(|_| bench.admit().unwrap()).collect();
        (bench, probes.into_iter())
    };
    // Two have succeeded, and nobody is out that could be the third.
    let (mut bench, mut probes) = half_open();
    (0..2).for_each(|_| bench.finish(probes.next().unwrap(), Verdict::success()));
    bench.breaker.forgo(probes.next().unwrap());
    bench.update(small().probes(1, 1)).unwrap();
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.changes.last().unwrap().what, Moved::Closed { by_hand: false });
    // One has failed, which one may no more.
    let mut bench = Bench::new(small().probes(3, 2));
    bench.fail(5);
    bench.pass(SECOND * 5);
    let probe = bench.admit().unwrap();
    bench.finish(probe, Verdict::failure());
    assert_eq!(bench.state(), State::HalfOpen);
    bench.update(small().probes(1, 1)).unwrap();
    assert_eq!((bench.state(), bench.status().why), (State::Open, Some(Trip::Probes { failures: 1 })));
}

#[test]
fn options_replaced_while_it_is_closed_keep_the_window_that_they_can_keep() {
    let mut bench = Bench::new(small());
    let running = bench.admit().unwrap();
    bench.fail(3);
    bench.update(small().failure_rate(Some(percent(80)))).unwrap();
    assert_eq!(bench.status().failures, 3);
    bench.finish(running, Verdict::failure());
    bench.ok(1);
    assert_eq!(bench.status().why, Some(Trip::FailureRate { failures: 4, calls: 5 }));

    let mut bench = Bench::new(small());
    bench.fail(3);
    bench.update(small().window(Window::Time(SECOND * 10))).unwrap();
    assert_eq!(bench.status().calls, 0);
    assert!(bench.update(small().probes(0, 0)).is_err());
    assert_eq!(bench.breaker.options().probes, 1);
}

#[test]
fn looking_never_moves_it() {
    let mut bench = Bench::new(small());
    bench.fail(5);
    bench.pass(SECOND * 50);
    for _ in 0..3 {
        assert_eq!((bench.state(), bench.status().remaining), (State::Open, Some(Duration::ZERO)));
    }
    assert_eq!(bench.changes.len(), 1);
    bench.ok(1);
}

#[test]
fn time_alone_moves_it_where_somebody_keeps_it() {
    let mut bench = Bench::new(small().half_open(SECOND, Lapse::Opens));
    bench.fail(5);
    let (change, due) = bench.breaker.due(bench.now);
    assert_eq!((change, due), (None, Some(bench.now + SECOND * 5)));
    bench.pass(SECOND * 5);
    assert_eq!(bench.breaker.due(bench.now).0.unwrap().what, Moved::HalfOpened);
    let _hung = bench.admit().unwrap();
    let (_, due) = bench.breaker.due(bench.now);
    assert_eq!(due, Some(bench.now + SECOND));
    bench.pass(SECOND);
    let what = bench.breaker.due(bench.now).0.unwrap().what;
    assert_eq!(what, Moved::Opened { why: Trip::Lapsed, lasts: SECOND * 5 });
}

#[test]
fn changes_are_numbered_without_gaps() {
    let mut bench = Bench::new(small());
    for _ in 0..3 {
        bench.fail(5);
        bench.pass(SECOND * 5);
        bench.ok(1);
    }
    bench.force(State::Disabled);
    bench.force(State::Closed);
    let numbers: Vec<_> = bench.changes.iter().map(|change| change.number).collect();
    assert_eq!(numbers, (0..11).collect::<Vec<_>>());
}

#[test]
fn what_was_never_sent_and_what_was_count_alike() {
    let mut bench = Bench::new(small());
    (0..5).for_each(|_| assert!(bench.call(Verdict::failure().sent(Sent::No))));
    assert_eq!(bench.state(), State::Open);
}
