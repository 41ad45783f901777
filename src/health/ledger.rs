//! The books of a fleet: who may go without too many being gone.

use super::{
    Trip,
    state::{Detail, Health},
};
use crate::sync::{AtomicUsize, Mutex, Ordering::Relaxed, Ordering::SeqCst, lock};

/// What the endpoints of one client share: how many there are, may be used, and are out by judgement.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<Counts>,
    /// Endpoints that a deciding request can be sent to: requests look here before anywhere else, and look for one in vain
    /// where something else keeps it out.
    pub(super) waiting: AtomicUsize,
    /// Endpoints that are not available.
    away: AtomicUsize,
    /// Whether the cap holds for whatever sets an endpoint aside here.
    judges_all: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    members: usize,
    available: usize,
    judged: usize,
    /// Endpoints that are not in these books, and available.
    beside: usize,
}

impl Ledger {
    /// Books in which the cap holds for whatever sets an endpoint aside.
    pub(super) fn of_judgements() -> Self {
        Self { judges_all: true, ..Self::default() }
    }

    /// There are so many endpoints in all: those that are not in these books are available, as far as they go.
    pub(super) fn among(&self, endpoints: usize) {
        let mut counts = lock(&self.counts);
        counts.beside = endpoints.saturating_sub(counts.members);
    }

    /// Whether the cap holds for what `why` sets aside.
    pub(super) fn judges(&self, why: Trip) -> bool {
        self.judges_all || why.is_judgement()
    }

    /// Whether some endpoint is not available.
    #[inline]
    pub(super) fn has_away(&self) -> bool {
        self.away.load(Relaxed) > 0
    }

    fn note(&self, counts: &Counts) {
        self.away.store(counts.members - counts.available, Relaxed);
    }

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
        self.note(&counts);
        drop(counts);
        if health.wants_probe() {
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
        self.note(&counts);
        drop(counts);
        if health.wants_probe() {
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Whether some endpoint waits for a deciding request, and nothing else keeps it out.
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
        let members = counts.members + counts.beside;
        if !detail.member || members < 2 {
            return false;
        }
        if judgement {
            let most = (members as f64 * cap).ceil() as usize;
            let others = counts.available + counts.beside - usize::from(detail.counted);
            if counts.judged >= most || others < 1 {
                return false;
            }
            counts.judged += 1;
        }
        counts.available -= usize::from(std::mem::take(&mut detail.counted));
        self.note(&counts);
        true
    }

    /// Whether an endpoint that is available may be left alone for what is only heard: fewer are out, whatever for, than `cap`
    /// allows, and another is left. If so it is out of the counts at once.
    pub(super) fn spare(&self, detail: &mut Detail, cap: f64) -> bool {
        let mut counts = lock(&self.counts);
        let most = (counts.members as f64 * cap).ceil() as usize;
        if !detail.counted || counts.available < 2 || counts.members - counts.available >= most {
            return false;
        }
        detail.counted = false;
        counts.available -= 1;
        self.note(&counts);
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
        self.note(&counts);
    }
}
