//! The handle of a budget, and the guard of a withdrawal.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BudgetOptions, SLOTS, deposits::Deposits, ledger::Ledger};
use crate::{
    Invalid,
    estimate::slices::Slices,
    invalid::Check,
    sync::{Mutex, lock, stripe},
};

/// A shared allowance for extra load: retries, hedges and synthetic probes withdraw from it what successes deposit.
///
/// A clone is a handle to the same budget.
#[derive(Clone)]
pub struct Budget(Arc<State>);

struct State {
    slots: Slices,
    window: Duration,
    deposits: Deposits,
    ledger: Mutex<Ledger>,
}

impl Budget {
    /// A budget without deposits; its time is counted from now.
    ///
    /// # Errors
    /// [`Invalid`] if the window is shorter than 10 ms or longer than 10 years.
    pub fn new(options: BudgetOptions) -> Result<Self, Invalid> {
        Self::starting(options, crate::clock::now())
    }

    /// The same with time counted from `epoch`: what comes earlier counts as the epoch.
    pub(crate) fn starting(options: BudgetOptions, epoch: Instant) -> Result<Self, Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        check.finish()?;
        Ok(Self(Arc::new(State {
            slots: Slices::new(epoch, options.window / SLOTS as u32),
            window: options.window,
            deposits: Deposits::new(),
            ledger: Mutex::new(Ledger::new(&options)),
        })))
    }

    /// Pays in one success: one load and one compare-and-swap on a cache line of the thread's own.
    #[inline]
    pub fn deposit(&self, now: Instant) {
        self.deposit_on(stripe(), now);
    }

    /// Pays in one success at the time of the current poll.
    #[inline]
    pub(crate) fn deposit_now(&self) {
        let slots = &self.0.slots;
        self.0.deposits.add(stripe(), slots.divide(crate::context::nanos_since(slots.epoch())));
    }

    #[inline]
    pub(super) fn deposit_on(&self, stripe: usize, now: Instant) {
        self.0.deposits.add(stripe, self.0.slots.number(now));
    }

    /// Takes out one extra request, or `None` if that would break the rule.
    ///
    /// The withdrawal counts from here on, and is given back if the guard is dropped without being spent. Withdrawals take
    /// turns on a lock.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let slot = self.0.slots.number(now);
        let slot = lock(&self.0.ledger).withdraw(slot, |slot| self.0.deposits.sum(slot))?;
        Some(Withdrawal { budget: self.clone(), slot, spent: false })
    }

    /// How many withdrawals would succeed now if nobody else came. For status; a later withdrawal may find otherwise.
    pub fn available(&self, now: Instant) -> u32 {
        let slot = self.0.slots.number(now);
        let available = lock(&self.0.ledger).available(slot, |slot| self.0.deposits.sum(slot));
        u32::try_from(available).unwrap_or(u32::MAX)
    }

    /// Withdrawals per deposit, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        lock(&self.0.ledger).share()
    }

    /// Replaces share and reserve. What was deposited and withdrawn stays, so a smaller share may refuse until enough
    /// withdrawals have left the window.
    ///
    /// # Errors
    /// [`Invalid`] if the window differs from the present one: counts cannot be cut anew. Make a new budget for that.
    pub fn update(&self, options: &BudgetOptions) -> Result<(), Invalid> {
        let mut check = Check::default();
        options.check(&mut check);
        check.rule(
            options.window == self.0.window,
            "window",
            options.window,
            "the window of a running budget cannot change",
        );
        check.finish()?;
        lock(&self.0.ledger).set(options);
        Ok(())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("window", &self.0.window).finish_non_exhaustive()
    }
}

/// The right to one extra request. Dropped unspent it goes back to the budget.
#[must_use = "a withdrawal that is dropped goes back to the budget"]
pub struct Withdrawal {
    budget: Budget,
    slot: u64,
    spent: bool,
}

impl Withdrawal {
    /// Makes the withdrawal final: the extra request is sent.
    pub fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if !self.spent {
            lock(&self.budget.0.ledger).give_back(self.slot);
        }
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").field("budget", &self.budget).finish_non_exhaustive()
    }
}
