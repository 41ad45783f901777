//! Random sequences of everything that can happen to four endpoints.

mod exhaustive;
mod operations;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Accrual, Finding, Health, HealthOptions, Lease, Ledger, State, Trip, trip::Share};
use crate::{clock, outcome::Class, random::Seeded};

const ENDPOINTS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Outcome(usize, bool),
    /// A failure of an attempt that began before.
    Straggler(usize),
    Wait(u64),
    Join(usize),
    Leave(usize),
    Hold(usize, bool),
    Connect(usize, bool),
    BackOff(usize, u64),
    Probe(usize),
    Settle(usize, u8),
    Forgo(usize),
    /// A judgement of what it has shown in its present state.
    Judge(usize),
    Drain(usize),
    Restore(usize),
    EjectByHand(usize, u64),
    Acquit(usize),
    /// Somebody else finds it dead, or was asked to leave it alone.
    Suspect(usize, u64),
    Heed(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..ENDPOINTS;
    let step = prop_oneof![
        12 => (at.clone(), prop::bool::weighted(0.4)).prop_map(|(at, ok)| Step::Outcome(at, ok)),
        1 => at.clone().prop_map(Step::Straggler),
        4 => (0_u64..40_000).prop_map(Step::Wait),
        2 => at.clone().prop_map(Step::Join),
        1 => at.clone().prop_map(Step::Leave),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, held)| Step::Hold(at, held)),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, up)| Step::Connect(at, up)),
        1 => (at.clone(), 0_u64..9_000).prop_map(|(at, millis)| Step::BackOff(at, millis)),
        4 => at.clone().prop_map(Step::Probe),
        4 => (at.clone(), 0_u8..4).prop_map(|(at, shown)| Step::Settle(at, shown)),
        1 => at.clone().prop_map(Step::Forgo),
        2 => at.clone().prop_map(Step::Judge),
        1 => at.clone().prop_map(Step::Drain),
        2 => at.clone().prop_map(Step::Restore),
        1 => (at.clone(), 0_u64..9_000).prop_map(|(at, millis)| Step::EjectByHand(at, millis)),
        1 => at.clone().prop_map(Step::Acquit),
        2 => (at.clone(), 0_u64..40_000).prop_map(|(at, millis)| Step::Suspect(at, millis)),
        1 => (at, 0_u64..9_000).prop_map(|(at, millis)| Step::Heed(at, millis)),
    ];
    prop::collection::vec(step, 1..250)
}

struct Model {
    options: HealthOptions,
    ledger: Ledger,
    random: Seeded,
    healths: Vec<Health>,
    member: [bool; ENDPOINTS],
    leases: [Option<Lease>; ENDPOINTS],
    now: Instant,
}

impl Model {
    fn new(seed: u64) -> Self {
        let (options, now, ledger) = (HealthOptions::default(), clock::now(), Ledger::default());
        let healths: Vec<_> = (0..ENDPOINTS).map(|_| Health::new(now, &options)).collect();
        healths.iter().for_each(|health| ledger.join(health));
        let random = Seeded::new(seed);
        Self {
            options,
            ledger,
            random,
            healths,
            member: [true; ENDPOINTS],
            leases: [const { None }; ENDPOINTS],
            now,
        }
    }

    fn take(&mut self, step: Step) {
        let Self { options, ledger, random, healths, member, leases, now } = self;
        match step {
            Step::Outcome(at, true) => healths[at].success(*now),
            Step::Outcome(at, false) => {
                let generation = healths[at].generation();
                healths[at].failure(*now, generation, options, ledger, random);
            }
            Step::Straggler(at) => {
                let generation = healths[at].generation().wrapping_sub(1) & 0xFFFF;
                let before = healths[at].state();
                assert_eq!(healths[at].failure(*now, generation, options, ledger, random), None);
                assert_eq!(healths[at].state(), before);
            }
            Step::Wait(millis) => *now += Duration::from_millis(millis),
            Step::Join(at) => {
                ledger.join(&healths[at]);
                member[at] = true;
            }
            Step::Leave(at) => {
                ledger.leave(&healths[at]);
                member[at] = false;
            }
            Step::Hold(at, held) => {
                healths[at].hold(held, *now, ledger);
            }
            Step::Connect(at, up) => healths[at].connect(up, ledger),
            Step::BackOff(at, millis) => {
                healths[at].back_off(Some(Duration::from_millis(millis)), *now, options, ledger);
            }
            Step::Probe(at) => {
                if let Some(lease) = healths[at].lease(*now, options, ledger) {
                    // A lease that time has overtaken may still be about.
                    assert!(healths[at].phase_name() == "probing");
                    leases[at] = Some(lease);
                }
            }
            Step::Settle(at, shown) => {
                if let Some(lease) = leases[at].take() {
                    let shown =
                        [Class::Success, Class::Failure, Class::BackOff, Class::Inconclusive][shown as usize];
                    healths[at].settle(lease, shown, *now, options, ledger, random);
                }
            }
            Step::Judge(at) => {
                let (generation, why) =
                    (healths[at].generation(), Trip::FailureShare(Share::new(9, 10, 0.85)));
                healths[at].judge(why.into(), generation, *now, options, ledger, random);
            }
            Step::Drain(at) => {
                healths[at].drain(*now, ledger);
                assert!(!healths[at].is_available() && !healths[at].is_usable_in_panic());
            }
            Step::Restore(at) => {
                healths[at].restore_by_hand(*now, ledger);
                assert_eq!(healths[at].phase_name(), "in");
            }
            Step::EjectByHand(at, millis) => {
                let lasts = Some(Duration::from_millis(millis));
                healths[at].eject_by_hand(lasts, *now, options, ledger, random);
                assert_eq!(healths[at].phase_name(), "ejected");
            }
            Step::Acquit(at) => {
                healths[at].acquit(*now, ledger);
            }
            Step::Suspect(at, millis) => {
                let before = healths[at].phase_name();
                healths[at].suspect(Duration::from_millis(millis), *now, options, ledger);
                assert!(before == "in" || healths[at].phase_name() == before);
            }
            Step::Heed(at, millis) => {
                healths[at].heed(Duration::from_millis(millis), *now, options, ledger);
            }
            Step::Forgo(at) => {
                if let Some(lease) = leases[at].take() {
                    healths[at].forgo(lease, *now, ledger);
                }
            }
        }
    }

    /// What the background task does, and what must hold whatever has happened.
    fn check(&self) {
        let (mut available, mut waiting) = (0, false);
        for (health, member) in self.healths.iter().zip(self.member) {
            let mut next = health.due(self.now, &self.options, &self.ledger).1;
            // One look may bring about a state whose time has come, too.
            while next.is_some_and(|at| at <= self.now) {
                next = health.due(self.now, &self.options, &self.ledger).1;
            }
            if matches!(health.phase_name(), "ejected" | "probation" | "probing")
                || health.backing_off().is_some()
            {
                assert!(next.is_some_and(|at| at > self.now), "{health:?} waits for traffic");
            }
            available += usize::from(member && health.is_available());
            let kept_out = health.is_held() || health.is_drained() || !health.is_connected();
            let kept_out = kept_out || health.backing_off().is_some();
            waiting |= member && health.phase_name() == "probation" && !kept_out;
        }
        let members = self.member.iter().filter(|member| **member).count();
        assert_eq!(self.ledger.available(), (members, available));
        assert_eq!(self.ledger.wants_probes(), waiting);
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_books_are_right_and_no_state_waits_for_traffic(steps in steps(), seed in any::<u64>()) {
        let mut model = Model::new(seed);
        for step in steps {
            model.take(step);
            model.check();
        }
        // Left alone, everybody comes back.
        for health in &model.healths {
            health.hold(false, model.now, &model.ledger);
            health.restore_by_hand(model.now, &model.ledger);
            health.connect(true, &model.ledger);
        }
        for _ in 0..12 {
            model.now += Duration::from_secs(60);
            model.check();
        }
        prop_assert!(model.healths.iter().all(Health::is_available));
    }

    #[test]
    fn judgements_never_take_the_last_endpoint_or_more_than_the_cap(
        order in prop::collection::vec((0..ENDPOINTS, any::<bool>()), 1..600), cap in 0_u32..=100, seed in any::<u64>(),
    ) {
        let mut model = Model::new(seed);
        model.options.max_ejected = crate::Ratio::new(f64::from(cap) / 100.0).unwrap();
        model.options.consecutive = u32::MAX;
        for (at, ok) in order {
            model.take(Step::Outcome(at, ok));
            let (members, available) = model.ledger.available();
            prop_assert!(available >= 1);
            prop_assert!(members - available <= (members as f64 * f64::from(cap) / 100.0).ceil() as usize);
        }
    }
}

#[test]
fn two_judgements_at_once_leave_one_endpoint() {
    for _ in 0..200 {
        let mut model = Model::new(1);
        model.options.max_ejected = crate::Ratio::ONE;
        model.options.consecutive = u32::MAX;
        let barrier = std::sync::Barrier::new(ENDPOINTS);
        std::thread::scope(|scope| {
            for health in &model.healths {
                let (model, barrier) = (&model, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..10 {
                        health.failure(model.now, 0, &model.options, &model.ledger, &model.random);
                    }
                });
            }
        });
        assert_eq!(model.ledger.available(), (ENDPOINTS, 1));
    }
}

#[test]
fn requests_look_for_nobody_to_prove_while_no_request_can_be_sent_there() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    model.now += Duration::from_secs(6);
    model.check();
    assert!(model.ledger.wants_probes());
    for (away, back) in
        [(Step::Connect(0, false), Step::Connect(0, true)), (Step::Hold(0, true), Step::Hold(0, false))]
    {
        model.take(away);
        assert!(!model.ledger.wants_probes());
        model.take(back);
        assert!(model.ledger.wants_probes());
    }
    model.healths[0].drain(model.now, &model.ledger);
    assert!(!model.ledger.wants_probes());
    model.take(Step::Leave(0));
    model.take(Step::Join(0));
    assert!(!model.ledger.wants_probes());
}

#[test]
fn a_probe_that_nobody_ever_settles_is_given_up_and_another_offered() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    assert_eq!(model.healths[0].phase_name(), "ejected");
    model.now += Duration::from_secs(6);
    model.check();
    let lost = model.healths[0].lease(model.now, &model.options, &model.ledger);
    assert!(lost.is_some() && model.healths[0].phase_name() == "probing");
    model.now += model.options.probe_limit + model.options.probe_wait;
    model.check();
    assert_eq!(model.healths[0].phase_name(), "probation");
    assert!(model.healths[0].lease(model.now, &model.options, &model.ledger).is_some());
}

#[test]
fn where_no_probe_is_ever_settled_the_endpoint_returns_all_the_same() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    let ejected = model.now;
    while model.healths[0].phase_name() != "in" {
        assert!(model.now - ejected < Duration::from_secs(120), "{:?}", model.healths[0]);
        // As answers do that go on for longer than a probe is waited for.
        let _unsettled = model.healths[0].lease(model.now, &model.options, &model.ledger);
        model.now += Duration::from_secs(1);
        model.check();
    }
}

#[test]
fn a_probe_that_is_told_to_back_off_has_shown_that_the_endpoint_is_alive() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    model.now += Duration::from_secs(6);
    model.check();
    model.take(Step::Probe(0));
    model.take(Step::Settle(0, 2));
    assert_eq!(model.healths[0].phase_name(), "in");
}

#[test]
fn what_is_only_heard_keeps_an_endpoint_out_for_no_longer_than_a_request_is_waited_for() {
    let mut model = Model::new(1);
    model.take(Step::Suspect(0, 300_000));
    assert_eq!(model.healths[0].phase_name(), "probation");
    model.now += model.options.probe_wait;
    model.check();
    assert_eq!(model.healths[0].phase_name(), "in");
}

#[test]
fn who_is_suspected_after_a_long_time_of_health_is_forgiven_as_others_are() {
    for heard in [false, true] {
        let mut model = Model::new(1);
        (0..3).for_each(|_| model.take(Step::EjectByHand(0, 20_000)));
        model.now += Duration::from_secs(20);
        model.check();
        model.take(Step::Probe(0));
        model.take(Step::Settle(0, 0));
        model.now += Duration::from_secs(3_600);
        if heard {
            model.take(Step::Suspect(0, 5_000));
            model.take(Step::Probe(0));
            model.take(Step::Settle(0, 1));
        } else {
            (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
        }
        let State::Ejected { until, .. } = model.healths[0].state().0 else {
            panic!("{:?}", model.healths[0])
        };
        assert!(until - model.now <= Duration::from_secs(5), "{heard}: {:?}", until - model.now);
    }
}

#[test]
fn who_is_not_available_anyway_is_not_suspected_and_takes_no_room_of_the_cap() {
    for step in [Step::Connect(0, false), Step::Hold(0, true), Step::Drain(0), Step::BackOff(0, 9_000)] {
        let mut model = Model::new(1);
        model.take(step.clone());
        model.take(Step::Suspect(0, 5_000));
        assert_eq!((model.healths[0].phase_name(), model.ledger.judged()), ("in", 0), "{step:?}");
    }
}

#[test]
fn an_ejection_of_no_time_is_forgiven_at_once() {
    let mut model = Model::new(1);
    model.take(Step::EjectByHand(0, 0));
    model.check();
    model.take(Step::Probe(0));
    model.take(Step::Settle(0, 0));
    model.now += Duration::from_secs(3_600);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    let State::Ejected { until, .. } = model.healths[0].state().0 else { panic!("{:?}", model.healths[0]) };
    assert!(until - model.now <= Duration::from_secs(5), "{:?}", until - model.now);
}

#[test]
fn a_probe_that_fails_ejects_nobody_where_nobody_is_ejected() {
    let mut model = Model::new(1);
    model.take(Step::EjectByHand(0, 1_000));
    model.now += Duration::from_secs(1);
    model.check();
    model.options.enabled = false;
    model.take(Step::Probe(0));
    model.take(Step::Settle(0, 1));
    model.check();
    assert_eq!(model.healths[0].phase_name(), "in");
}

#[test]
fn who_is_told_again_and_again_to_leave_an_endpoint_alone_asks_it_in_between() {
    let mut model = Model::new(1);
    let heed = |model: &Model, at: usize| {
        model.healths[at].heed(Duration::from_secs(1), model.now, &model.options, &model.ledger)
    };
    assert!(heed(&model, 0).is_some());
    for _ in 0..3 {
        model.now += Duration::from_millis(300);
        assert_eq!(heed(&model, 0), None);
    }
    model.now += Duration::from_millis(100);
    model.check();
    assert!(model.healths[0].is_available());
}

#[test]
fn what_is_only_heard_is_not_added_to_what_keeps_an_endpoint_out_already() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    model.take(Step::Heed(0, 5_000));
    assert!(model.healths[0].is_usable_in_panic(), "it is ejected, and has not asked for anything");
    // Neither does it take the place of a judgement under the cap.
    for at in [1, 2] {
        model.take(Step::Drain(at));
        model.take(Step::Suspect(at, 5_000));
        assert_eq!(model.healths[at].phase_name(), "in");
    }
    assert_eq!(model.ledger.judged(), 0);
}

#[test]
fn what_is_only_heard_leaves_as_many_endpoints_as_judgements_do() {
    let mut model = Model::new(1);
    (0..ENDPOINTS).for_each(|at| model.take(Step::Heed(at, 1_000)));
    assert_eq!(model.ledger.available(), (ENDPOINTS, 2), "half of them");
    let mut model = Model::new(1);
    model.options.max_ejected = crate::Ratio::ONE;
    (0..ENDPOINTS).for_each(|at| model.take(Step::Heed(at, 1_000)));
    assert_eq!(model.ledger.available(), (ENDPOINTS, 1));
}

#[test]
fn checks_that_fail_do_not_keep_out_whom_requests_took_out() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    model.now += Duration::from_secs(6);
    model.check();
    assert_eq!(model.healths[0].phase_name(), "probation");
    let Model { options, ledger, random, healths, now, .. } = &model;
    assert_eq!(healths[0].checked(Finding::Fails, *now, options, ledger, random), None);
    assert_eq!(healths[0].phase_name(), "probation");
}

#[test]
fn failures_of_before_do_not_add_up_with_those_since_it_is_back() {
    let mut model = Model::new(1);
    (0..5).for_each(|_| model.take(Step::Outcome(0, false)));
    model.now += Duration::from_secs(6);
    model.check();
    model.take(Step::Probe(0));
    model.take(Step::Settle(0, 0));
    (0..30).for_each(|_| model.take(Step::Straggler(0)));
    (0..4).for_each(|_| model.take(Step::Outcome(0, false)));
    assert_eq!(model.healths[0].phase_name(), "in");
    model.take(Step::Outcome(0, false));
    assert_eq!(model.healths[0].phase_name(), "ejected");
}

#[test]
fn the_rate_is_seen_where_more_fails_within_the_window_than_is_remembered() {
    let (options, now) = (HealthOptions::default(), clock::now());
    let accrual = Accrual::new(now, options.window);
    (0..400).for_each(|_| accrual.success(now));
    // Three of four succeed: never six failures of the last twenty. After the 401st failure less than 80 % have.
    let trip = (0..=400).find_map(|_| {
        (0..3).for_each(|_| accrual.success(now));
        accrual.failure(now, &options)
    });
    assert_eq!(trip, Some(Trip::Rate));
}
