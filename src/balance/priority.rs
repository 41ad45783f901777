//! How much of the traffic each priority gets, and which of them is in panic.
//!
//! The formula is Envoy's, in whole percents as there: a level is as healthy as its available share times the
//! over-provisioning, and no more than wholly; the levels are filled in their order, each with its health by that of all
//! of them, where that is less than whole.

/// What there is at one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Endpoints of which something is known.
    pub(super) known: usize,
    /// Endpoints that may be used.
    pub(super) available: usize,
}

/// What a level comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Of all the traffic, in percent.
    pub(super) percent: u32,
    /// Whether fewer endpoints are available than the panic threshold asks for.
    pub(super) too_few: bool,
}

/// When a level has too few endpoints, and what follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// In percent.
    pub(super) overprovisioning: u32,
    /// As a share of the known endpoints.
    pub(super) panic_below: f64,
    /// Whether a level in panic uses all it has.
    pub(super) fail_open: bool,
}

/// The shares of `levels`, the first of which is used first. They add up to 100, or to nothing where nothing can be used.
///
/// A level without an available endpoint is empty and not in panic while another has one. While all levels together are
/// healthy none is in panic; with one level there is nobody to take its traffic, and only its own share counts. Where all
/// that have something are in panic, traffic goes by how many endpoints each has.
pub(super) fn shares(levels: &[Level], rule: Rule) -> Vec<Share> {
    let health = |level: &Level| {
        let percent = rule.overprovisioning as usize * level.available / level.known.max(1);
        percent.min(100) as u32
    };
    let total = levels.iter().map(health).sum::<u32>().min(100);
    let none = levels.iter().all(|level| level.available == 0);
    let is_empty = |level: &Level| level.known == 0 || (level.available == 0 && !none);
    let too_few = |level: &Level| {
        let few = (level.available as f64) < rule.panic_below * level.known as f64;
        few && !is_empty(level) && (total < 100 || levels.len() == 1)
    };
    let lost = levels.iter().all(|level| is_empty(level) || too_few(level));
    let mut shares: Vec<Share> = if rule.fail_open && lost {
        let of = |level: &Level| if is_empty(level) { 0 } else { level.known };
        let all = levels.iter().map(of).sum::<usize>().max(1);
        levels.iter().map(|level| Share { percent: (100 * of(level) / all) as u32, too_few: true }).collect()
    } else {
        let mut left = 100;
        let fill = |level: &Level| {
            let percent = (health(level) * 100).checked_div(total).unwrap_or(0).min(left);
            left -= percent;
            Share { percent, too_few: false }
        };
        levels.iter().map(fill).collect()
    };
    for (share, level) in shares.iter_mut().zip(levels) {
        share.too_few = too_few(level);
    }
    // What rounding has left over goes to the first that has something.
    let given: u32 = shares.iter().map(|share| share.percent).sum();
    if let Some(first) = shares.iter_mut().find(|share| share.percent > 0) {
        first.percent += 100 - given;
    }
    shares
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVOY: Rule = Rule { overprovisioning: 140, panic_below: 0.5, fail_open: true };

    fn levels(healthy: &[usize]) -> Vec<Level> {
        healthy.iter().map(|available| Level { known: 100, available: *available }).collect()
    }

    fn percents(healthy: &[usize], rule: Rule) -> Vec<u32> {
        shares(&levels(healthy), rule).iter().map(|share| share.percent).collect()
    }

    #[test]
    fn the_first_priority_keeps_everything_and_then_spills_as_envoys_table_says() {
        let calm = Rule { panic_below: 0.0, ..ENVOY };
        for (healthy, owed) in [
            (&[100, 100][..], &[100, 0][..]),
            (&[72, 100], &[100, 0]),
            (&[71, 100], &[99, 1]),
            (&[50, 100], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
            (&[20, 30], &[40, 60]),
            (&[25, 25, 100], &[35, 35, 30]),
            (&[72, 72], &[100, 0]),
            (&[71, 71], &[99, 1]),
            (&[50, 60], &[70, 30]),
        ] {
            assert_eq!(percents(healthy, calm), owed, "{healthy:?}");
        }
        // 98 to give, of which the rounding leaves two to the first.
        assert_eq!(percents(&[25, 25, 20], calm), [37, 35, 28]);
    }

    #[test]
    fn nobody_is_in_panic_while_all_levels_together_are_healthy() {
        assert!(shares(&levels(&[5, 100]), ENVOY).iter().all(|share| !share.too_few));
        // Envoy's example: 7 % to a level in panic, 91 of 98 to the other.
        let shares = shares(&levels(&[5, 65]), ENVOY);
        assert_eq!(shares[0].percent + shares[1].percent, 100);
        assert!(shares[0].too_few && !shares[1].too_few, "{shares:?}");
        assert!((6..=9).contains(&shares[0].percent), "{shares:?}");
    }

    #[test]
    fn where_all_are_in_panic_traffic_goes_by_how_many_there_are() {
        let uneven = [Level { known: 10, available: 3 }, Level { known: 30, available: 9 }];
        let shares = shares(&uneven, ENVOY);
        assert!(shares.iter().all(|share| share.too_few));
        assert_eq!((shares[0].percent, shares[1].percent), (25, 75));
    }

    #[test]
    fn an_empty_level_is_not_in_panic_while_another_has_something() {
        let shares = shares(&levels(&[0, 30]), ENVOY);
        assert_eq!(shares[0], Share { percent: 0, too_few: false });
        assert_eq!(shares[1], Share { percent: 100, too_few: true });
    }

    #[test]
    fn with_nothing_available_all_that_is_there_is_used_or_nothing_as_the_policy_says() {
        assert_eq!(percents(&[0, 0], ENVOY), [50, 50]);
        assert_eq!(percents(&[0, 0], Rule { fail_open: false, ..ENVOY }), [0, 0]);
    }

    #[test]
    fn a_single_level_panics_by_its_own_share_whatever_the_over_provisioning() {
        let rule = Rule { panic_below: 0.9, ..ENVOY };
        assert_eq!(shares(&levels(&[80]), rule), [Share { percent: 100, too_few: true }]);
        assert_eq!(shares(&levels(&[90]), rule), [Share { percent: 100, too_few: false }]);
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_formula_and_add_up(
            given in prop::collection::vec((1_usize..200, 0.0_f64..=1.0), 1..6),
        ) {
            let levels: Vec<Level> = given
                .iter()
                .map(|(known, share)| Level { known: *known, available: (*known as f64 * share) as usize })
                .collect();
            let calm = Rule { panic_below: 0.0, ..ENVOY };
            let shares = shares(&levels, calm);
            let some = levels.iter().any(|level| level.available * 140 >= level.known);
            prop_assert_eq!(shares.iter().map(|share| share.percent).sum::<u32>(), if some { 100 } else { 0 });
            // In real numbers, without any rounding.
            let health: Vec<f64> = levels
                .iter()
                .map(|level| (1.4 * level.available as f64 / level.known as f64).min(1.0))
                .collect();
            let total = health.iter().sum::<f64>().min(1.0);
            let mut left = 1.0_f64;
            for (share, health) in shares.iter().zip(&health) {
                let owed = if some { (health / total).min(left) } else { 0.0 };
                left -= owed;
                let slack = 0.01 * (levels.len() + 1) as f64 + 0.01 / total.max(0.01);
                prop_assert!((f64::from(share.percent) / 100.0 - owed).abs() <= slack, "{:?}: {}", shares, owed);
            }
        }
    }
}
