//! Operations at endpoints, without a balancer.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::{
    clock,
    health::{Accrual, Blame, Evidence, HealthOptions, OperationOptions, Operations, Successes},
    outcome::Class,
    random::Seeded,
};

struct Scene {
    operations: Operations,
    options: HealthOptions,
    random: Seeded,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let now = clock::now();
        Self {
            operations: Operations::new(now),
            options: HealthOptions::default(),
            random: Seeded::new(1),
            now,
        }
    }

    fn find(&self, name: &str) -> u16 {
        self.operations.find(name, OperationOptions::default()).0
    }

    fn fail(&self, id: u16, endpoint: u64, others_succeed: bool, endpoints: usize) -> Blame {
        let evidence = Evidence { now: self.now, began: None, generation: 0, others_succeed, endpoints };
        self.operations.get(id).unwrap().failure(endpoint, evidence, &self.options, &self.random)
    }

    fn is_away(&self, id: u16, endpoint: u64) -> bool {
        self.operations.get(id).unwrap().is_away(endpoint)
    }
}

#[test]
fn a_name_keeps_its_number_and_those_beyond_the_most_have_none() {
    let operations = Operations::new(clock::now());
    let options = OperationOptions::default().most(2);
    let ids: Vec<u16> =
        ["a", "b", "c", "a", "d"].iter().map(|name| operations.find(name, options).0).collect();
    assert_eq!(ids, [1, 2, 0, 1, 0]);
    assert!(operations.len() == 2 && operations.has_overflowed());
    assert_eq!(
        operations.find("b", OperationOptions::default().most(1)).0,
        0,
        "there is room for less by now"
    );
}

#[test]
fn a_failure_counts_for_the_endpoint_until_a_rule_trips_and_then_for_the_operation_alone() {
    let scene = Scene::new();
    let id = scene.find("get");
    for _ in 0..4 {
        assert_eq!(scene.fail(id, 7, true, 5), Blame::Endpoint);
    }
    assert!(matches!(scene.fail(id, 7, true, 5), Blame::Operation(Some(_))));
    assert_eq!(scene.fail(id, 7, true, 5), Blame::Operation(None));
    assert!(scene.is_away(id, 7) && !scene.is_away(id, 8));
}

#[test]
fn where_nothing_else_succeeds_the_endpoint_is_to_blame_however_often() {
    let scene = Scene::new();
    let id = scene.find("get");
    for _ in 0..50 {
        assert_eq!(scene.fail(id, 7, false, 5), Blame::Endpoint);
    }
    assert!(!scene.is_away(id, 7));
}

#[test]
fn what_it_did_before_the_endpoint_was_set_aside_is_forgotten() {
    let scene = Scene::new();
    let id = scene.find("get");
    for _ in 0..4 {
        scene.fail(id, 7, true, 5);
    }
    let evidence =
        Evidence { now: scene.now, began: None, generation: 3, others_succeed: true, endpoints: 5 };
    let operation = scene.operations.get(id).unwrap();
    assert_eq!(operation.failure(7, evidence, &scene.options, &scene.random), Blame::Endpoint);
}

#[test]
fn an_attempt_that_began_before_it_was_back_says_nothing() {
    let mut scene = Scene::new();
    let (id, began) = (scene.find("get"), scene.now);
    for _ in 0..5 {
        scene.fail(id, 7, true, 5);
    }
    let operation = scene.operations.get(id).unwrap();
    scene.now += Duration::from_secs(301);
    operation.due(7, scene.now, &scene.options);
    let lease = operation.lease(7, scene.now, &scene.options).unwrap();
    operation.settle(7, lease, Class::Success, scene.now, &scene.options, &scene.random);
    assert!(!operation.is_away(7));
    for _ in 0..10 {
        let evidence = Evidence {
            now: scene.now,
            began: Some(began),
            generation: 0,
            others_succeed: true,
            endpoints: 5,
        };
        let blame = operation.failure(7, evidence, &scene.options, &scene.random);
        assert_eq!(blame, Blame::Nobody, "nothing is to be forgiven for it");
    }
    assert!(!operation.is_away(7));
}

#[test]
fn what_counts_no_more_is_not_kept_and_all_that_counts_is() {
    let mut scene = Scene::new();
    let id = scene.find("get");
    let operation = scene.operations.get(id).unwrap();
    let kept = |scene: &Scene| {
        operation.tidy(scene.now, &scene.options);
        operation.state(7).is_some()
    };
    let succeed = |scene: &Scene, count: u64| {
        (0..count).for_each(|number| scene.operations.success(id, 7, 40_000_000_000 + number));
    };
    scene.fail(id, 7, true, 5);
    assert!(kept(&scene), "it is one in a row");
    scene.now += Duration::from_secs(40);
    succeed(&scene, 19);
    assert!(kept(&scene), "it is one of twenty");
    succeed(&scene, 1);
    assert!(!kept(&scene));
    // Twenty successes are not enough while the window goes on.
    scene.fail(id, 7, true, 5);
    succeed(&scene, 100);
    scene.now += Duration::from_secs(29);
    assert!(kept(&scene));
    scene.now += Duration::from_secs(1);
    assert!(!kept(&scene) && !operation.has_failed());
    // Nor is what is set aside forgotten, or that it was before that is forgiven.
    for _ in 0..5 {
        scene.fail(id, 7, true, 5);
    }
    scene.now += Duration::from_secs(301);
    succeed(&scene, 100);
    assert!(scene.is_away(id, 7) && kept(&scene));
    operation.due(7, scene.now, &scene.options);
    let lease = operation.lease(7, scene.now, &scene.options).unwrap();
    operation.settle(7, lease, Class::Success, scene.now, &scene.options, &scene.random);
    succeed(&scene, 100);
    assert!(kept(&scene));
    scene.now += Duration::from_secs(301);
    assert!(!kept(&scene));
    assert!(!scene.is_away(id, 7) && !operation.wants_probes());
}

#[test]
fn of_many_endpoints_those_are_told_that_it_was_kept_from() {
    let scene = Scene::new();
    let (id, other) = (scene.find("get"), scene.find("put"));
    for endpoint in [3, 5] {
        (0..5).for_each(|_| assert_ne!(scene.fail(id, endpoint, true, 9), Blame::Operation(None)));
    }
    scene.fail(id, 7, true, 9);
    let operation = scene.operations.get(id).unwrap();
    assert_eq!(operation.forget_all(&[1, 3, 7]), [3]);
    assert!([3, 7].into_iter().all(|endpoint| operation.state(endpoint).is_none()));
    assert!(operation.is_away(5) && operation.forget(5) && !operation.forget(5));
    assert!(!operation.is_away(5) && scene.operations.get(other).unwrap().forget_all(&[1, 3]).is_empty());
}

#[test]
fn a_success_of_the_operation_breaks_its_row() {
    let scene = Scene::new();
    let id = scene.find("get");
    for round in 0..40 {
        // One of five: neither in a row, nor too many of the last, nor too low a rate.
        if round % 6 == 0 {
            scene.fail(id, 7, true, 5);
        } else {
            scene.operations.success(id, 7, 0);
        }
    }
    assert!(!scene.is_away(id, 7));
}

#[test]
fn other_operations_are_told_from_the_own_for_as_long_as_the_window() {
    let (successes, epoch) = (Successes::new(), clock::now());
    let (second, window) = (Duration::from_secs(1), Duration::from_secs(30));
    let note = |id, seconds: u64| successes.note(id, seconds * 1_000_000_000);
    let others = |id, seconds: u32| successes.others(id, epoch, epoch + second * seconds, window);
    assert!(!others(1, 0), "nothing has");
    note(1, 5);
    assert!(!others(1, 6) && others(2, 6));
    note(2, 10);
    note(2, 20);
    assert!(others(1, 21) && others(2, 21));
    // The first has not succeeded since 5 s.
    assert!(!others(2, 36) && others(1, 36) && !others(1, 52));
}

#[test]
fn what_is_forgiven_counts_in_the_total_and_in_a_row_and_nowhere_else() {
    let (now, options) = (clock::now(), HealthOptions::default());
    let accrual = Accrual::new(now, options.window);
    for _ in 0..10 {
        accrual.success(now);
    }
    for _ in 0..3 {
        assert_eq!(accrual.failure_of(2, now, &options), None);
    }
    assert_eq!(accrual.failure_of(9, now, &options), None);
    accrual.forgive(2);
    assert_eq!((accrual.totals(), accrual.counted()), ((10, 4), (10, 1)));
    assert_eq!(accrual.streak(), 4);
    accrual.success(now);
    assert_eq!((accrual.failure(now, &options), accrual.counted()), (None, (11, 2)));
}

proptest! {
    #[test]
    fn whatever_fails_an_operation_is_set_aside_at_half_of_the_endpoints_at_most_and_one_keeps_it(
        endpoints in 1_usize..9,
        failures in prop::collection::vec((0_u64..9, 0_u8..12), 1..400),
    ) {
        let mut scene = Scene::new();
        let id = scene.find("get");
        let operation = scene.operations.get(id).unwrap();
        for (endpoint, what) in failures {
            let endpoint = endpoint % endpoints as u64;
            match what {
                0 => scene.now += Duration::from_secs(3),
                1 => { operation.due(endpoint, scene.now, &scene.options); }
                2 => {
                    if let Some(lease) = operation.lease(endpoint, scene.now, &scene.options) {
                        operation.settle(endpoint, lease, Class::Failure, scene.now, &scene.options, &scene.random);
                    }
                }
                3 => {
                    if let Some(lease) = operation.lease(endpoint, scene.now, &scene.options) {
                        operation.forgo(endpoint, lease, scene.now);
                    }
                }
                4 => { operation.forget(endpoint); }
                _ => { scene.fail(id, endpoint, true, endpoints); }
            }
            let away = (0..endpoints as u64).filter(|endpoint| operation.is_away(*endpoint)).count();
            prop_assert!(away <= endpoints.div_ceil(2) && away < endpoints, "{away} of {endpoints}");
        }
        // No state waits for traffic.
        scene.now += Duration::from_secs(1_000);
        for endpoint in 0..endpoints as u64 {
            for _ in 0..3 {
                operation.due(endpoint, scene.now, &scene.options);
                scene.now += Duration::from_secs(100);
            }
            prop_assert!(!operation.is_away(endpoint));
        }
        prop_assert!(!operation.wants_probes());
    }
}
