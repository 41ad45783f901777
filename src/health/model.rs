//! Every interleaving of the few things that may happen to an endpoint at once.

use std::{sync::Arc, time::Instant};

use loom::thread;

use super::{Evidence, Health, HealthOptions, Ledger, Operation, OperationOptions, Operations, State, Trip};
use crate::{clock, outcome::Class, random::Seeded};

struct Pair {
    options: HealthOptions,
    ledger: Ledger,
    random: Seeded,
    healths: [Health; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let (options, ledger, now) = (HealthOptions::default(), Ledger::default(), clock::now());
        let healths = [Health::new(now, &options), Health::new(now, &options)];
        healths.iter().for_each(|health| ledger.join(health));
        Self { options, ledger, random: Seeded::new(1), healths, now }
    }

    fn fail(&self, which: usize, times: u32) {
        for _ in 0..times {
            self.healths[which].failure(self.now, 0, &self.options, &self.ledger, &self.random);
        }
    }

    /// With the first endpoint waiting for a request that decides.
    fn in_probation() -> Self {
        let mut pair = Self::new();
        pair.options.consecutive = 1;
        pair.fail(0, 1);
        pair.now += std::time::Duration::from_secs(301);
        pair.healths[0].due(pair.now, &pair.options, &pair.ledger);
        assert!(matches!(pair.healths[0].state().0, State::Probation { .. }));
        pair
    }
}

#[test]
fn of_two_requests_that_race_for_the_probe_one_has_it_and_a_cancelled_one_loses_it_not() {
    loom::model(|| {
        let pair = Arc::new(Pair::in_probation());
        let other = pair.clone();
        let cancelled = thread::spawn(move || {
            let Pair { options, ledger, random, healths, now } = &*other;
            let lease = healths[0].lease(*now, options, ledger);
            let had = lease.is_some();
            if let Some(lease) = lease {
                healths[0].settle(lease, Class::Inconclusive, *now, options, ledger, random);
            }
            had
        });
        let Pair { options, ledger, random, healths, now } = &*pair;
        let mine = healths[0].lease(*now, options, ledger);
        if mine.is_some() {
            assert!(healths[0].lease(*now, options, ledger).is_none(), "there is one at a time");
        }
        let theirs = cancelled.join().unwrap();
        assert!(mine.is_some() || theirs);
        match mine {
            Some(lease) => {
                assert!(healths[0].settle(lease, Class::Success, *now, options, ledger, random).is_some());
                assert!(healths[0].is_available() && !ledger.wants_probes());
            }
            None => assert!(healths[0].lease(*now, options, ledger).is_some(), "the next one has it"),
        }
    });
}

#[test]
fn two_judgements_at_once_leave_one_endpoint() {
    loom::model(|| {
        let mut pair = Pair::new();
        pair.options.max_ejected = crate::Ratio::ONE;
        pair.options.consecutive = u32::MAX;
        pair.options.failures = 1;
        pair.options.of_last = 1;
        let pair = Arc::new(pair);
        let other = pair.clone();
        let judge = thread::spawn(move || other.fail(1, 1));
        pair.fail(0, 1);
        judge.join().unwrap();
        assert_eq!(pair.ledger.available(), (2, 1));
    });
}

#[test]
fn an_endpoint_removed_while_it_is_ejected_leaves_the_books_right() {
    loom::model(|| {
        let mut pair = Pair::new();
        pair.options.consecutive = 1;
        let pair = Arc::new(pair);
        let other = pair.clone();
        let failing = thread::spawn(move || other.fail(0, 1));
        pair.ledger.leave(&pair.healths[0]);
        failing.join().unwrap();
        assert_eq!(pair.ledger.available(), (1, 1));
        pair.ledger.join(&pair.healths[0]);
        assert_eq!(pair.ledger.available(), (2, 1 + usize::from(pair.healths[0].is_available())));
    });
}

#[test]
fn whoever_looks_after_a_hand_has_drained_an_endpoint_does_not_pick_it_and_a_probe_that_raced_comes_back() {
    loom::model(|| {
        let pair = Arc::new(Pair::in_probation());
        let other = pair.clone();
        let hand = thread::spawn(move || {
            other.healths[0].drain(other.now, &other.ledger);
            assert!(!other.healths[0].is_available() && !other.healths[0].is_usable_in_panic());
            assert!(other.healths[0].lease(other.now, &other.options, &other.ledger).is_none());
        });
        let Pair { options, ledger, random, healths, now } = &*pair;
        if let Some(lease) = healths[0].lease(*now, options, ledger) {
            healths[0].settle(lease, Class::Success, *now, options, ledger, random);
        }
        hand.join().unwrap();
        assert!(!healths[0].is_available(), "drained, whatever the probe has shown");
        assert_eq!(ledger.available(), (2, 1));
        healths[0].restore_by_hand(*now, ledger);
        assert!(healths[0].is_available() && !ledger.wants_probes());
        assert_eq!(ledger.available(), (2, 2));
    });
}

#[test]
fn a_judgement_of_what_came_before_a_hand_restored_the_endpoint_changes_nothing() {
    loom::model(|| {
        let mut pair = Pair::new();
        pair.options.consecutive = 1;
        let pair = Arc::new(pair);
        let generation = pair.healths[0].generation();
        pair.fail(0, 1);
        let other = pair.clone();
        let judge = thread::spawn(move || {
            let Pair { options, ledger, random, healths, now } = &*other;
            healths[0].judge(Trip::Rate.into(), generation, *now, options, ledger, random).is_some()
        });
        let Pair { ledger, healths, now, .. } = &*pair;
        healths[0].restore_by_hand(*now, ledger);
        assert!(!judge.join().unwrap());
        assert!(healths[0].is_available());
        assert_eq!(ledger.available(), (2, 2));
    });
}

#[test]
fn a_judgement_and_a_run_of_failures_at_once_eject_once_and_leave_the_books_right() {
    loom::model(|| {
        let mut pair = Pair::new();
        pair.options.consecutive = 1;
        let pair = Arc::new(pair);
        let other = pair.clone();
        let judge = thread::spawn(move || {
            let Pair { options, ledger, random, healths, now } = &*other;
            healths[0].judge(Trip::Rate.into(), 0, *now, options, ledger, random).is_some()
        });
        let Pair { options, ledger, random, healths, now } = &*pair;
        let failed = healths[0].failure(*now, 0, options, ledger, random).is_some();
        assert!(judge.join().unwrap() != failed, "one of them");
        assert_eq!(ledger.available(), (2, 1));
        healths[0].restore_by_hand(*now, ledger);
        assert_eq!(ledger.available(), (2, 2));
    });
}

#[test]
fn suspicion_and_a_run_of_failures_at_once_set_it_aside_once_and_the_last_is_spared() {
    loom::model(|| {
        let mut pair = Pair::new();
        pair.options.consecutive = 1;
        let pair = Arc::new(pair);
        let other = pair.clone();
        let told = thread::spawn(move || {
            let Pair { options, ledger, healths, now, .. } = &*other;
            let lasts = std::time::Duration::from_secs(5);
            // Of the first by itself; of the second it is not believed once the first is away.
            (
                healths[0].suspect(lasts, *now, options, ledger).is_some(),
                healths[1].suspect(lasts, *now, options, ledger).is_some(),
            )
        });
        pair.fail(0, 1);
        let (_, second) = told.join().unwrap();
        assert!(!second && !pair.healths[0].is_available() && pair.healths[1].is_available());
        assert_eq!(pair.ledger.available(), (2, 1));
        pair.healths.iter().for_each(|health| {
            health.restore_by_hand(pair.now, &pair.ledger);
        });
        assert_eq!(pair.ledger.available(), (2, 2));
        assert!(!pair.ledger.wants_probes());
    });
}

struct Fleet {
    operations: Operations,
    options: HealthOptions,
    random: Seeded,
    now: Instant,
}

impl Fleet {
    fn new() -> Self {
        let mut options = HealthOptions::default();
        options.consecutive = 1;
        let now = clock::now();
        Self { operations: Operations::new(now), options, random: Seeded::new(1), now }
    }

    fn find(&self) -> u16 {
        self.operations.find("get", OperationOptions::default()).0
    }

    /// The operation fails at `endpoint`, one of two, where others succeed.
    fn fail(&self, operation: &Operation, endpoint: u64) {
        let evidence =
            Evidence { now: self.now, began: None, generation: 0, others_succeed: true, endpoints: 2 };
        operation.failure(endpoint, evidence, &self.options, &self.random);
    }
}

#[test]
fn an_operation_that_two_name_first_at_once_has_one_number() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new());
        let other = fleet.clone();
        let theirs = thread::spawn(move || other.find());
        assert_eq!((fleet.find(), theirs.join().unwrap()), (1, 1));
        assert_eq!(fleet.operations.len(), 1);
    });
}

#[test]
fn an_operation_that_fails_at_both_of_two_endpoints_at_once_keeps_one() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new());
        let operation = fleet.operations.get(fleet.find()).unwrap();
        let (other, own) = (fleet.clone(), operation.clone());
        let failing = thread::spawn(move || other.fail(&own, 1));
        fleet.fail(&operation, 0);
        failing.join().unwrap();
        assert!(operation.is_away(0) != operation.is_away(1));
    });
}

#[test]
fn an_endpoint_that_is_forgotten_while_an_operation_fails_there_leaves_the_books_right() {
    loom::model(|| {
        let fleet = Arc::new(Fleet::new());
        let operation = fleet.operations.get(fleet.find()).unwrap();
        let (other, own) = (fleet.clone(), operation.clone());
        let failing = thread::spawn(move || other.fail(&own, 0));
        operation.forget(0);
        failing.join().unwrap();
        operation.forget(0);
        assert!(!operation.is_away(0) && !operation.wants_probes());
        fleet.fail(&operation, 1);
        assert!(operation.is_away(1), "the cap counts nobody who is gone");
    });
}

#[test]
fn of_two_that_race_for_the_probe_of_an_operation_one_has_it_and_a_cancelled_one_loses_it_not() {
    loom::model(|| {
        let mut fleet = Fleet::new();
        let operation = fleet.operations.get(fleet.find()).unwrap();
        fleet.fail(&operation, 0);
        fleet.now += std::time::Duration::from_secs(301);
        operation.due(0, fleet.now, &fleet.options);
        let fleet = Arc::new(fleet);
        let (other, own) = (fleet.clone(), operation.clone());
        let cancelled = thread::spawn(move || {
            let Some(lease) = own.lease(0, other.now, &other.options) else { return false };
            own.settle(0, lease, Class::Inconclusive, other.now, &other.options, &other.random);
            true
        });
        let mine = operation.lease(0, fleet.now, &fleet.options);
        let theirs = cancelled.join().unwrap();
        assert!(mine.is_some() || theirs);
        let mine = mine.or_else(|| operation.lease(0, fleet.now, &fleet.options)).expect("it is not lost");
        operation.settle(0, mine, Class::Success, fleet.now, &fleet.options, &fleet.random);
        assert!(!operation.is_away(0) && !operation.wants_probes());
    });
}
