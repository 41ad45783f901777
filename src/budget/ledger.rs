//! What was withdrawn, and whether one more may be: under the budget's lock.

use super::{BudgetOptions, SLOTS};

/// Withdrawals live one slot longer than deposits: with the slots' edges counted both ways, every withdrawal of the window
/// is in and no deposit from before it.
const LIVE: u64 = SLOTS as u64 + 1;

#[derive(Debug)]
pub(super) struct Ledger {
    rule: Rule,
    /// The newest slot that anybody withdrew in. A caller whose clock lags withdraws in this one.
    newest: u64,
    /// Slot number and withdrawals.
    slots: [(u64, u64); LIVE as usize],
}

/// Share and reserve.
#[derive(Clone, Copy, Debug)]
struct Rule {
    billionths: u64,
    reserve: u64,
}

impl Rule {
    fn new(options: &BudgetOptions) -> Self {
        let billionths = (options.share.get() * BILLION as f64).round() as u64;
        Self { billionths, reserve: u64::from(options.reserve) }
    }

    /// How many withdrawals `deposits` allow. In whole numbers: 29 % of 100 are 29.
    fn allows(self, deposits: u64) -> u64 {
        let earned = u128::from(deposits) * u128::from(self.billionths) / u128::from(BILLION);
        u64::try_from(earned).unwrap_or(u64::MAX).saturating_add(self.reserve)
    }
}

const BILLION: u64 = 1_000_000_000;

impl Ledger {
    pub(super) fn new(options: &BudgetOptions) -> Self {
        Self { rule: Rule::new(options), newest: 0, slots: [(0, 0); LIVE as usize] }
    }

    pub(super) fn share(&self) -> f64 {
        self.rule.billionths as f64 / BILLION as f64
    }

    pub(super) fn set(&mut self, options: &BudgetOptions) {
        self.rule = Rule::new(options);
    }

    /// Withdraws one in `slot` or the newest known one, whichever is later, if the rule holds with it, and returns the
    /// slot. `deposits` gives what was deposited in a slot and the `SLOTS - 1` before it.
    pub(super) fn withdraw(&mut self, slot: u64, deposits: impl FnOnce(u64) -> u64) -> Option<u64> {
        self.newest = self.newest.max(slot);
        let slot = self.newest;
        if self.withdrawn(slot) >= self.rule.allows(deposits(slot)) {
            return None;
        }
        let place = &mut self.slots[(slot % LIVE) as usize];
        *place = (slot, if place.0 == slot { place.1 + 1 } else { 1 });
        Some(slot)
    }

    /// Takes a withdrawal of `slot` back, if it still counts there.
    pub(super) fn give_back(&mut self, slot: u64) {
        let place = &mut self.slots[(slot % LIVE) as usize];
        if place.0 == slot {
            place.1 = place.1.saturating_sub(1);
        }
    }

    /// How many withdrawals are possible in `slot`, by the same rule.
    pub(super) fn available(&self, slot: u64, deposits: impl FnOnce(u64) -> u64) -> u64 {
        let slot = slot.max(self.newest);
        self.rule.allows(deposits(slot)).saturating_sub(self.withdrawn(slot))
    }

    /// What was withdrawn in the window of `slot`.
    pub(super) fn drawn(&self, slot: u64) -> u64 {
        self.withdrawn(slot.max(self.newest))
    }

    fn withdrawn(&self, slot: u64) -> u64 {
        let live = self.slots.iter().filter(|(number, _)| number + LIVE > slot);
        live.map(|(_, count)| count).sum()
    }
}
