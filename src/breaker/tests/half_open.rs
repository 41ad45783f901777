//! Probes.

use super::*;

#[test]
fn as_many_probes_as_said_are_let_through_each_time() {
    let mut bench = Bench::about_to_half_open(small().probes(4, 4));
    for _ in 0..2 {
        let probes: Vec<_> = (0..6).map(|_| bench.admit()).collect();
        assert_eq!(
            probes.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
        let probe = probes.into_iter().flatten().next().unwrap();
        bench.finish(probe, Verdict::failure());
        assert_eq!(bench.state(), State::Open);
        bench.pass(SECOND * 5);
    }
}

#[test]
fn the_outcome_of_a_probe_makes_no_room_for_another() {
    let mut bench = Bench::about_to_half_open(small().probes(3, 3));
    let probes: Vec<_> = (0..3).map(|_| bench.admit().unwrap()).collect();
    assert!((0..5).all(|_| bench.admit().is_err()));
    let mut probes = probes.into_iter();
    bench.finish(probes.next().unwrap(), Verdict::success());
    assert!(bench.admit().is_err());
    probes.for_each(|probe| bench.finish(probe, Verdict::success()));
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn it_opens_as_soon_as_too_many_have_failed() {
    for (probes, needed, oks) in [(3, 3, 2), (4, 3, 2)] {
        let mut bench = Bench::about_to_half_open(small().probes(probes, needed));
        bench.ok(oks);
        for _ in 0..=(probes - needed) {
            assert_eq!(bench.state(), State::HalfOpen);
            bench.fail(1);
        }
        assert_eq!(bench.status().why, Some(Trip::Probes { failures: probes - needed + 1 }));
    }
}

#[test]
fn it_closes_as_soon_as_enough_have_succeeded_with_an_empty_window() {
    let mut bench = Bench::about_to_half_open(small().probes(4, 2));
    let running = bench.admit().unwrap();
    bench.ok(2);
    assert_eq!((bench.state(), bench.status().calls), (State::Closed, 0));
    bench.finish(running, Verdict::failure());
    assert_eq!((bench.state(), bench.status().calls), (State::Closed, 0));
}

#[test]
fn failures_keep_it_open_time_after_time_and_one_success_closes_it() {
    let mut bench = Bench::about_to_half_open(small());
    for _ in 0..4 {
        let probe = bench.admit().unwrap();
        assert!(bench.admit().is_err());
        bench.finish(probe, Verdict::failure());
        assert!(bench.admit().is_err());
        bench.pass(SECOND * 5);
    }
    bench.ok(1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_probe_that_says_nothing_gives_its_place_back() {
    let mut bench = Bench::about_to_half_open(small().probes(4, 4));
    bench.ok(3);
    assert!(bench.call(Verdict::inconclusive()));
    assert_eq!((bench.state(), bench.status().probing), (State::HalfOpen, 0));
    bench.ok(1);
    assert_eq!(bench.state(), State::Closed);

    let mut bench = Bench::about_to_half_open(small().probes(4, 4));
    (0..4).for_each(|_| assert!(bench.call(Verdict::back_off(None))));
    bench.ok(4);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_probe_that_was_not_made_gives_its_place_back_once() {
    let mut bench = Bench::about_to_half_open(small());
    for _ in 0..3 {
        let probe = bench.admit().unwrap();
        assert!(bench.admit().is_err());
        bench.breaker.forgo(probe);
    }
    bench.ok(1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_call_let_through_while_it_was_closed_makes_no_room_in_half_open() {
    let mut bench = Bench::new(small().consecutive(1));
    let closed = bench.admit().unwrap();
    bench.fail(1);
    bench.pass(SECOND * 5);
    let _probe = bench.admit().unwrap();
    bench.breaker.forgo(closed);
    assert!(bench.admit().is_err());
}

#[test]
fn a_probe_that_hangs_does_not_hold_it_half_open_for_ever() {
    for (lapse, expected) in [(Lapse::Opens, State::Open), (Lapse::Closes, State::Closed)] {
        let mut bench = Bench::about_to_half_open(small().half_open(SECOND, lapse));
        let hung = bench.admit().unwrap();
        bench.pass(SECOND - MS);
        assert!(bench.admit().is_err());
        bench.pass(MS);
        assert_eq!(bench.admit().is_ok(), lapse == Lapse::Closes);
        assert_eq!(bench.state(), expected);
        bench.finish(hung, Verdict::failure());
        assert_eq!((bench.state(), bench.status().late), (expected, 1));
    }
}

#[test]
fn a_probe_that_ends_after_its_time_closes_nothing_even_if_nobody_came_meanwhile() {
    let mut bench = Bench::about_to_half_open(small().half_open(SECOND, Lapse::Opens));
    let probe = bench.admit().unwrap();
    bench.pass(SECOND);
    bench.finish(probe, Verdict::success());
    assert_eq!((bench.state(), bench.status().late), (State::Open, 1));
    assert_eq!(bench.status().why, Some(Trip::Lapsed));
}

#[test]
fn half_open_does_not_lapse_while_no_probe_is_out_because_one_said_nothing() {
    for lapse in [Lapse::Opens, Lapse::Closes] {
        for forgone in [true, false] {
            let mut bench = Bench::about_to_half_open(small().probes(2, 2).half_open(SECOND, lapse));
            let (first, second) = (bench.admit().unwrap(), bench.admit().unwrap());
            bench.breaker.forgo(first);
            assert_eq!(bench.breaker.due(bench.now).1, Some(bench.now + SECOND), "one is out");
            if forgone {
                bench.breaker.forgo(second)
            } else {
                bench.finish(second, Verdict::inconclusive())
            }
            bench.pass(SECOND * 60);
            assert_eq!(bench.breaker.due(bench.now), (None, None));
            assert_eq!(bench.state(), State::HalfOpen);
            // The next one has the whole time.
            let next = bench.admit().unwrap();
            assert_eq!(bench.breaker.due(bench.now).1, Some(bench.now + SECOND));
            bench.finish(next, Verdict::success());
            bench.ok(1);
            assert_eq!(bench.state(), State::Closed);
        }
    }
}

#[test]
fn half_open_without_calls_waits_for_the_first() {
    let mut bench = Bench::about_to_half_open(small());
    let (change, due) = bench.breaker.due(bench.now);
    assert_eq!((change.map(|change| change.what), due), (Some(Moved::HalfOpened), None));
    bench.pass(SECOND * 86_400);
    assert_eq!(bench.breaker.due(bench.now), (None, None));
    bench.ok(1);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_slow_probe_has_failed_where_slowness_counts() {
    for (options, expected) in [(small(), State::Closed), (small().slow(percent(100), SECOND), State::Open)] {
        let mut bench = Bench::about_to_half_open(options);
        bench.lasting(SECOND * 2, Verdict::success());
        assert_eq!(bench.state(), expected);
    }
}

#[test]
fn a_refused_call_in_half_open_is_not_told_a_time_that_nobody_knows() {
    let mut bench = Bench::about_to_half_open(small());
    let _probe = bench.admit().unwrap();
    let refusal = bench.admit().unwrap_err();
    assert_eq!((refusal.state, refusal.remaining, refusal.lasted), (State::HalfOpen, None, SECOND * 5));
}
