//! How well the own zone does beside the others.

use super::Control;
use crate::balance::{groups, zone::Distance};

/// What is left of the counts from one look to the next.
const KEPT: f64 = 0.7;
/// So many attempts say something about a zone.
const ENOUGH: f64 = 4.0;

/// Attempts that have ended of late.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    well: f64,
    badly: f64,
}

impl Ended {
    fn count(&mut self, well: u64, badly: u64) {
        (self.well, self.badly) = (self.well + well as f64, self.badly + badly as f64);
    }

    fn fade(&mut self) {
        (self.well, self.badly) = (self.well * KEPT, self.badly * KEPT);
    }

    /// The share of successes; all of them where too few are known.
    fn success(&self) -> f64 {
        let all = self.well + self.badly;
        if all < ENOUGH { 1.0 } else { self.well / all }
    }
}

/// The attempts of the own zone and of the others.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    own: Ended,
    others: Ended,
}

impl Fitness {
    /// The success of the own zone by that of the others, and no more than 1: what fails everywhere alike is no fault of it.
    pub(super) fn own(&self) -> f64 {
        let (own, others) = (self.own.success(), self.others.success());
        if own >= others { 1.0 } else { own / others }
    }
}

impl<S> Control<S> {
    /// Counts what has ended since the last look. A zone that is cut off fails as a whole well before each of its endpoints
    /// has failed often enough to be set aside.
    pub(super) fn measure_zones(&mut self) {
        let options = self.fleet.options.load();
        let Some(own) = &options.localities.own else { return };
        let fitness = &mut self.fitness;
        fitness.own.fade();
        fitness.others.fade();
        for slot in self.slots.values_mut().filter(|slot| slot.gone.is_none()) {
            let (well, badly) = slot.member.health.totals();
            let before = std::mem::replace(&mut slot.measured, (well, badly));
            let zone = match groups::distance(own, slot.endpoint.locality()) {
                Distance::Own => &mut fitness.own,
                Distance::Near | Distance::Far => &mut fitness.others,
            };
            zone.count(well.saturating_sub(before.0), badly.saturating_sub(before.1));
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    fn fitness(own: (u64, u64), others: (u64, u64)) -> f64 {
        let mut fitness = Fitness::default();
        fitness.own.count(own.0, own.1);
        fitness.others.count(others.0, others.1);
        fitness.own()
    }

    #[test]
    fn a_zone_that_fails_more_than_the_others_is_as_much_less_fit() {
        assert_eq!(fitness((10, 10), (10, 0)), 0.5);
        assert_eq!(fitness((0, 20), (10, 0)), 0.0);
        assert_eq!(fitness((10, 10), (5, 5)), 1.0, "what fails everywhere is no fault of it");
        assert_eq!(fitness((20, 0), (5, 5)), 1.0);
        assert_eq!(fitness((0, 3), (10, 0)), 1.0, "three say nothing");
        assert_eq!(fitness((0, 20), (0, 20)), 1.0);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut ended = Ended::default();
        ended.count(0, 100);
        (0..10).for_each(|_| ended.fade());
        assert_eq!(ended.success(), 1.0);
    }
}
