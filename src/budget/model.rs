//! Every interleaving of a few deposits and withdrawals.

use std::{
    sync::{
        Arc,
        // Not loom's: the models keep their books in the order in which things happen, and add no order of their own.
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use loom::thread::{self, JoinHandle};

use super::{Budget, BudgetOptions};
use crate::Ratio;

const WINDOW: Duration = Duration::from_secs(10);

fn budget(reserve: u32) -> (Budget, Instant) {
    let epoch = crate::clock::now();
    let options = BudgetOptions::default().share(Ratio::ONE).reserve(reserve);
    (Budget::starting(options, epoch).unwrap(), epoch)
}

fn join(threads: impl IntoIterator<Item = JoinHandle<usize>>) -> usize {
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

/// Two threads that deposit and two that withdraw, the main one being among them.
fn race(stripes: [usize; 2]) {
    loom::model(move || {
        let (budget, now) = budget(0);
        let (deposits, withdrawals) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let depositors = stripes.map(|stripe| {
            let (budget, deposits) = (budget.clone(), deposits.clone());
            thread::spawn(move || {
                deposits.fetch_add(1, SeqCst);
                budget.deposit_on(stripe, now);
                0
            })
        });
        let withdraw = || {
            let (budget, deposits, withdrawals) = (budget.clone(), deposits.clone(), withdrawals.clone());
            move || {
                let Some(withdrawal) = budget.withdraw(now) else { return 0 };
                assert!(withdrawals.fetch_add(1, SeqCst) < deposits.load(SeqCst), "more than was deposited");
                withdrawal.spend();
                1
            }
        };
        let other = thread::spawn(withdraw());
        let granted = withdraw()() + join([other]);
        join(depositors);
        assert_eq!(granted + budget.available(now) as usize, 2, "no deposit is lost or counted twice");
    });
}

#[test]
fn depositors_and_withdrawers_on_one_stripe_keep_the_rule() {
    race([0, 0]);
}

#[test]
fn depositors_and_withdrawers_on_two_stripes_keep_the_rule() {
    race([0, 1]);
}

#[test]
fn a_deposit_that_is_overtaken_by_its_slot_is_not_counted_in_the_next() {
    loom::model(|| {
        let (budget, now) = budget(0);
        let later = now + WINDOW * 2;
        let depositors = [now, later].map(|at| {
            let budget = budget.clone();
            thread::spawn(move || {
                budget.deposit_on(0, at);
                0
            })
        });
        join(depositors);
        assert_eq!(budget.available(later), 1);
    });
}

#[test]
fn a_withdrawal_dropped_while_others_withdraw_is_returned_exactly_once() {
    loom::model(|| {
        let (budget, now) = budget(1);
        let held = budget.withdraw(now).unwrap();
        let dropper = thread::spawn(move || {
            drop(held);
            0
        });
        let withdraw = |budget: Budget| {
            move || {
                budget.withdraw(now).map_or(0, |withdrawal| {
                    withdrawal.spend();
                    1
                })
            }
        };
        let others = [(); 2].map(|()| thread::spawn(withdraw(budget.clone())));
        let granted = join(others);
        join([dropper]);
        assert_eq!(granted + budget.available(now) as usize, 1);
    });
}
