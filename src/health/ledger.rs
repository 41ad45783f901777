//! The books of a fleet: who may go without too many being gone.

use super::state::{Detail, Health, Phase};
use crate::sync::{AtomicUsize, Mutex, Ordering::Relaxed, Ordering::SeqCst, lock};

/// What the endpoints of one client share: how many there are, may be used, and are out by judgement.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<Counts>,
    /// Endpoints that wait for a deciding request: requests look here before anywhere else.
    pub(super) waiting: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    members: usize,
    available: usize,
    judged: usize,
}

impl Ledger {
    /// Counts an endpoint in: a new one, or one that kept its state while it was away.
    pub fn join(&self, health: &Health) {
        let mut detail = lock(&health.detail);
        if std::mem::replace(&mut detail.member, true) {
            return;
        }
        detail.counted = health.is_available();
        let mut counts = lock(&self.counts);
        counts.members += 1;
        counts.available += usize::from(detail.counted);
        counts.judged += usize::from(detail.judged);
        drop(counts);
        if detail.phase == Phase::Probation {
            self.waiting.fetch_add(1, SeqCst);
        }
    }

    /// Counts an endpoint out that was removed. What becomes of it while it is away is not counted here.
    pub fn leave(&self, health: &Health) {
        let mut detail = lock(&health.detail);
        if !std::mem::replace(&mut detail.member, false) {
            return;
        }
        let mut counts = lock(&self.counts);
        counts.members -= 1;
        counts.available -= usize::from(std::mem::take(&mut detail.counted));
        counts.judged -= usize::from(detail.judged);
        drop(counts);
        if detail.phase == Phase::Probation {
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Whether some endpoint waits for a deciding request.
    #[inline]
    pub fn wants_probes(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// How many endpoints there are, and how many of them are available.
    pub fn available(&self) -> (usize, usize) {
        let counts = lock(&self.counts);
        (counts.members, counts.available)
    }

    /// How many are out by judgement.
    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn judged(&self) -> usize {
        lock(&self.counts).judged
    }

    /// Whether an endpoint may go. If so it is out of the counts at once: two that go together see each other.
    pub(super) fn permit(&self, detail: &mut Detail, judgement: bool, cap: f64) -> bool {
        let mut counts = lock(&self.counts);
        if !detail.member || counts.members < 2 {
            return false;
        }
        if judgement {
            let most = (counts.members as f64 * cap).ceil() as usize;
            let others = counts.available - usize::from(detail.counted);
            if counts.judged >= most || others < 1 {
                return false;
            }
            counts.judged += 1;
        }
        counts.available -= usize::from(std::mem::take(&mut detail.counted));
        true
    }

    pub(super) fn unjudge(&self, detail: &Detail) {
        if detail.member {
            lock(&self.counts).judged -= 1;
        }
    }

    pub(super) fn count(&self, detail: &mut Detail, available: bool) {
        if !detail.member || detail.counted == available {
            return;
        }
        detail.counted = available;
        let mut counts = lock(&self.counts);
        if available {
            counts.available += 1;
        } else {
            counts.available -= 1;
        }
    }
}
