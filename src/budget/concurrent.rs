//! Envoy's budget: retries that are under way, as a share of the requests that are.

use crate::{
    invalid::Ratio,
    sync::{AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, Padded, stripes},
};

/// At most so large a share of the requests under way may be retries or hedges, or so few, whichever is more.
#[derive(Debug)]
pub(super) struct Concurrent {
    billionths: u64,
    least: u64,
    /// Requests under way, striped by thread: one that ends on another thread than it began on leaves a stripe below zero.
    active: Box<[Padded<AtomicI64>]>,
    retries: AtomicU64,
}

impl Concurrent {
    pub(super) fn new(share: Ratio, least: u32) -> Self {
        Self {
            billionths: (share.get() * 1e9).round() as u64,
            least: u64::from(least),
            active: (0..stripes()).map(|_| Padded(AtomicI64::new(0))).collect(),
            retries: AtomicU64::new(0),
        }
    }

    pub(super) fn began(&self, stripe: usize) {
        self.active[stripe & (self.active.len() - 1)].0.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self, stripe: usize) {
        self.active[stripe & (self.active.len() - 1)].0.fetch_sub(1, Relaxed);
    }

    fn most(&self) -> u64 {
        let active: i64 = self.active.iter().map(|stripe| stripe.0.load(Relaxed)).sum();
        let share = u128::from(active.max(0) as u64) * u128::from(self.billionths) / 1_000_000_000;
        (share as u64).max(self.least)
    }

    /// One more, if there may be.
    pub(super) fn withdraw(&self) -> bool {
        let most = self.most();
        self.retries.fetch_update(SeqCst, SeqCst, |retries| (retries < most).then_some(retries + 1)).is_ok()
    }

    pub(super) fn give_back(&self) {
        self.retries.fetch_sub(1, SeqCst);
    }

    pub(super) fn available(&self) -> u64 {
        self.most().saturating_sub(self.retries.load(SeqCst))
    }

    pub(super) fn share(&self) -> f64 {
        self.billionths as f64 / 1e9
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_envoy_holds() {
        // C33: 100 under way, 20 %, at least 3: the 21st is denied; with 5 under way the 4th.
        for (active, allowed) in [(100, 20), (5, 3), (0, 3), (17, 3), (20, 4)] {
            let budget = Concurrent::new(Ratio::percent::<20>(), 3);
            (0..active).for_each(|request| budget.began(request));
            assert_eq!((0..1_000).filter(|_| budget.withdraw()).count(), allowed, "{active} under way");
            budget.give_back();
            assert_eq!(budget.available(), 1);
        }
    }

    #[test]
    fn requests_that_end_on_another_thread_are_over_all_the_same() {
        let budget = Concurrent::new(Ratio::ONE, 0);
        (0..10).for_each(|request| budget.began(request));
        (0..10).for_each(|_| budget.ended(0));
        assert!(!budget.withdraw());
    }
}
