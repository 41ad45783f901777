//! The rule on generated histories, and the defects of budgets before this one.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Budget, BudgetOptions, SLOTS, Withdrawal};
use crate::Ratio;

const WINDOW: Duration = Duration::from_secs(10);

fn ratio(percent: u32) -> Ratio {
    Ratio::new(f64::from(percent) / 100.0).unwrap()
}

fn budget(percent: u32, reserve: u32) -> (Budget, Instant) {
    let epoch = crate::clock::now();
    let options = BudgetOptions::default().share(ratio(percent)).reserve(reserve);
    (Budget::starting(options, epoch).unwrap(), epoch)
}

fn spend_all(budget: &Budget, now: Instant) -> usize {
    std::iter::from_fn(|| budget.withdraw(now)).map(Withdrawal::spend).count()
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Deposit(u8),
    Withdraw,
    Drop(usize),
    Spend(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..3_000).prop_map(Step::Wait),
        1 => (0_u64..30_000_000).prop_map(Step::Wait),
        6 => (1_u8..12).prop_map(Step::Deposit),
        12 => Just(Step::Withdraw),
        2 => any::<usize>().prop_map(Step::Drop),
        2 => any::<usize>().prop_map(Step::Spend),
    ]
}

/// The obvious budget: every deposit and withdrawal with its time in milliseconds.
struct Naive {
    percent: u64,
    reserve: u64,
    deposits: Vec<u64>,
    withdrawals: Vec<u64>,
}

impl Naive {
    fn holds(&self, withdrawals: usize, deposits: usize) -> bool {
        withdrawals as u64 * 100 <= self.percent * deposits as u64 + self.reserve * 100
    }

    /// Whether one more withdrawal keeps the rule, to the millisecond.
    fn exactly(&self, now: u64) -> bool {
        let since = now.saturating_sub(10_000);
        let recent = |times: &[u64]| times.iter().filter(|time| **time >= since).count();
        self.holds(recent(&self.withdrawals) + 1, recent(&self.deposits))
    }

    /// The same as the slots see it: deposits of so many, withdrawals of one more.
    fn by_slots(&self, now: u64) -> bool {
        let slot = |millis: u64| millis * SLOTS as u64 / 10_000;
        let live = |times: &[u64], slots: usize| {
            times.iter().filter(|time| slot(**time) + slots as u64 > slot(now)).count()
        };
        self.holds(live(&self.withdrawals, SLOTS + 1) + 1, live(&self.deposits, SLOTS))
    }
}

proptest! {
    #[test]
    fn a_withdrawal_is_granted_exactly_when_the_rule_allows_it(
        steps in prop::collection::vec(step(), 1..200), percent in 0_u32..=100, reserve in 0_u32..4,
    ) {
        let (budget, epoch) = budget(percent, reserve);
        let mut naive =
            Naive { percent: percent.into(), reserve: reserve.into(), deposits: vec![], withdrawals: vec![] };
        let (mut millis, mut held) = (0, vec![]);
        for step in steps {
            let now = epoch + Duration::from_millis(millis);
            match step {
                Step::Wait(more) => millis += more,
                Step::Deposit(count) => (0..count).for_each(|_| {
                    budget.deposit(now);
                    naive.deposits.push(millis);
                }),
                Step::Withdraw => {
                    let withdrawal = budget.withdraw(now);
                    prop_assert_eq!(withdrawal.is_some(), naive.by_slots(millis));
                    if let Some(withdrawal) = withdrawal {
                        prop_assert!(naive.exactly(millis), "over the rule at {} ms", millis);
                        naive.withdrawals.push(millis);
                        held.push((millis, withdrawal));
                    }
                }
                Step::Drop(index) if !held.is_empty() => {
                    let (taken, withdrawal) = held.swap_remove(index % held.len());
                    drop(withdrawal);
                    let at = naive.withdrawals.iter().position(|time| *time == taken).unwrap();
                    naive.withdrawals.remove(at);
                }
                Step::Spend(index) if !held.is_empty() => held.swap_remove(index % held.len()).1.spend(),
                Step::Drop(_) | Step::Spend(_) => {}
            }
        }
    }
}

#[test]
fn every_percentage_of_a_thousand_deposits_is_exact() {
    for percent in 0..=100 {
        let (budget, now) = budget(percent, 0);
        (0..1_000).for_each(|_| budget.deposit(now));
        assert_eq!(spend_all(&budget, now), percent as usize * 10, "{percent} %");
    }
}

#[test]
fn without_deposits_there_is_the_reserve_once_per_window() {
    let (budget, epoch) = budget(20, 3);
    assert_eq!(spend_all(&budget, epoch), 3);
    assert_eq!(spend_all(&budget, epoch + WINDOW), 0);
    assert_eq!(spend_all(&budget, epoch + WINDOW + WINDOW / 10), 3);
}

#[test]
fn any_idle_time_costs_the_same_and_leaves_only_the_reserve() {
    let (budget, epoch) = budget(50, 1);
    (0..100).for_each(|_| budget.deposit(epoch));
    for days in [1, 30, 365, 3_650] {
        let now = epoch + Duration::from_secs(days * 24 * 3600);
        assert_eq!(budget.available(now), 1);
        budget.deposit(now);
        budget.deposit(now);
        assert_eq!(budget.available(now), 2);
    }
}

#[test]
fn threads_that_withdraw_at_once_do_not_overdraw() {
    let (budget, now) = budget(20, 1);
    let granted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let tries = (0..2_000).filter(|_| {
                        budget.deposit(now);
                        budget.withdraw(now).map(Withdrawal::spend).is_some()
                    });
                    tries.count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(granted + spend_all(&budget, now), 8_000 / 5 + 1);
}

#[test]
fn a_withdrawal_dropped_after_its_window_gives_nothing_back() {
    let (budget, epoch) = budget(0, 1);
    let old = budget.withdraw(epoch).unwrap();
    let later = epoch + WINDOW * 11 / 10;
    let new = budget.withdraw(later).unwrap();
    drop(old);
    assert_eq!(budget.available(later), 0);
    drop(new);
    assert_eq!(budget.available(later), 1);
}

#[test]
fn a_late_clock_does_not_open_the_budget_again() {
    let (budget, epoch) = budget(0, 1);
    let later = epoch + WINDOW * 5;
    assert_eq!(spend_all(&budget, later), 1);
    assert_eq!(spend_all(&budget, epoch), 0);
    (0..100).for_each(|_| budget.deposit(epoch));
    assert_eq!(spend_all(&budget, later), 0);
}

#[test]
fn time_before_the_start_counts_as_the_start() {
    let epoch = crate::clock::now();
    let options = BudgetOptions::default().share(Ratio::ONE).reserve(0);
    let budget = Budget::starting(options, epoch + WINDOW).unwrap();
    budget.deposit(epoch);
    assert_eq!(spend_all(&budget, epoch), 1);
}

#[test]
fn an_update_keeps_the_counts_and_refuses_another_window() {
    let (budget, now) = budget(20, 0);
    (0..10).for_each(|_| budget.deposit(now));
    assert_eq!(spend_all(&budget, now), 2);
    let options = BudgetOptions::default().share(ratio(50)).reserve(1);
    budget.update(&options).unwrap();
    assert_eq!(budget.available(now), 4);
    budget.update(&options.clone().share(Ratio::ZERO)).unwrap();
    assert_eq!(budget.available(now), 0);
    let problem = budget.update(&options.window(WINDOW * 2)).unwrap_err();
    assert_eq!(problem.problems()[0].field, "window");
}

#[test]
fn the_defaults_are_what_their_documentation_says() {
    let options = BudgetOptions::default();
    assert_eq!((options.share.get(), options.window, options.reserve), (0.2, WINDOW, 1));
    assert!(Budget::new(options).is_ok());
}

#[test]
fn a_window_that_cannot_be_cut_is_refused() {
    for window in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
        assert!(Budget::new(BudgetOptions::default().window(window)).is_err());
    }
}
