//! How much of a level's traffic each of its zones gets.
//!
//! Envoy's zone-aware routing, by capacity instead of a count of hosts. A zone is owed by its clients as much of the
//! traffic as they send, its demand; it has as much of the capacity as it has. Where it has enough, all of its clients'
//! traffic stays. Else what it can take stays, and the rest goes where more capacity is than demand, in proportion to
//! what is left there: first to the zones of the same region, as far as that goes.

/// How far a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Distance {
    /// The client stands in it.
    Own,
    /// It is in the same region.
    Near,
    /// It is elsewhere.
    Far,
}

/// What there is in a zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Zone {
    pub(super) distance: Distance,
    /// What its available endpoints can take, in whatever unit.
    pub(super) capacity: f64,
}

/// The shares of `zones`, which add up to 1; nothing for each where none has capacity.
///
/// The own zone is one of them, also where it has nothing. `demand` is the share of all traffic that comes from there; the
/// others share the rest. `elsewhere` is
/// sent to the other zones of the region in any case, so that it is known how long they take.
pub(super) fn shares(zones: &[Zone], demand: Option<f64>, elsewhere: f64) -> Vec<f64> {
    let total: f64 = zones.iter().map(|zone| zone.capacity).sum();
    if total <= 0.0 {
        return vec![0.0; zones.len()];
    }
    let even = 1.0 / zones.len() as f64;
    let own_demand = demand.unwrap_or(even);
    let others_demand = match zones.len() {
        0 | 1 => 0.0,
        count => (1.0 - own_demand) / (count - 1) as f64,
    };
    let own =
        zones.iter().find(|zone| zone.distance == Distance::Own).map_or(0.0, |zone| zone.capacity / total);
    let keeps = if own <= 0.0 {
        0.0
    } else if own >= own_demand {
        1.0
    } else {
        own / own_demand
    };
    let residual = |zone: &Zone| (zone.capacity / total - others_demand).max(0.0);
    // What is left of this kind of zone to take traffic, in shares of all of it.
    let left =
        |distance: Distance| zones.iter().filter(|zone| zone.distance == distance).map(residual).sum::<f64>();
    let (near, far) = (left(Distance::Near), left(Distance::Far));
    // So much of all traffic leaves the own zone.
    let leaves = own_demand - own.min(own_demand);
    let to_near = if near + far <= 0.0 {
        // Nobody has anything left: as if none were owed anything.
        f64::from(u8::from(zones.iter().any(|zone| zone.distance == Distance::Near && zone.capacity > 0.0)))
    } else if far <= 0.0 {
        1.0
    } else {
        (near / leaves.max(f64::MIN_POSITIVE)).min(1.0)
    };
    let spread = |zone: &Zone, distance: Distance, left: f64| {
        let all: f64 = zones.iter().filter(|zone| zone.distance == distance).map(|zone| zone.capacity).sum();
        if left > 0.0 {
            residual(zone) / left
        } else if all > 0.0 {
            zone.capacity / all
        } else {
            0.0
        }
    };
    let mut shares: Vec<f64> = zones
        .iter()
        .map(|zone| match zone.distance {
            Distance::Own => keeps,
            Distance::Near => (1.0 - keeps) * to_near * spread(zone, Distance::Near, near),
            Distance::Far => (1.0 - keeps) * (1.0 - to_near) * spread(zone, Distance::Far, far),
        })
        .collect();
    let neighbours: f64 =
        zones.iter().filter(|zone| zone.distance == Distance::Near).map(|zone| zone.capacity).sum();
    let away = 1.0 - keeps;
    if neighbours > 0.0 && away < elsewhere {
        for (share, zone) in shares.iter_mut().zip(zones) {
            match zone.distance {
                Distance::Own => *share -= elsewhere - away,
                Distance::Near => *share += (elsewhere - away) * zone.capacity / neighbours,
                Distance::Far => {}
            }
        }
    }
    shares
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(distance: Distance, capacity: f64) -> Zone {
        Zone { distance, capacity }
    }

    /// An own zone and others of the same region.
    fn region(capacities: &[f64]) -> Vec<Zone> {
        let distance = |index| if index == 0 { Distance::Own } else { Distance::Near };
        capacities.iter().enumerate().map(|(index, capacity)| zone(distance(index), *capacity)).collect()
    }

    fn near(shares: &[f64], owed: &[f64]) -> bool {
        shares.iter().zip(owed).all(|(share, owed)| (share - owed).abs() < 1e-9)
    }

    #[test]
    fn a_zone_that_can_take_its_own_keeps_it() {
        let found = shares(&region(&[10.0, 10.0, 10.0]), None, 0.0);
        assert!(near(&found, &[1.0, 0.0, 0.0]), "{found:?}");
        // Envoy's example: 20 % of the clients, 25 % of the hosts.
        let found = shares(&region(&[25.0, 75.0]), Some(0.2), 0.0);
        assert!(near(&found, &[1.0, 0.0]), "{found:?}");
    }

    #[test]
    fn a_zone_keeps_no_more_than_it_can_take() {
        // Envoy's example: 20 % of the clients, 10 % of the hosts.
        let found = shares(&region(&[10.0, 90.0]), Some(0.2), 0.0);
        assert!(near(&found, &[0.5, 0.5]), "{found:?}");
    }

    #[test]
    fn what_leaves_goes_by_what_is_left_elsewhere() {
        // The comment in Envoy's source: demands of 40, 40 and 20 %, capacities of 25, 50 and 25 leave 10 and 5. Here the
        // others are owed 30 each, which leaves 20 of the one and nothing of the other.
        let found = shares(&region(&[25.0, 50.0, 25.0]), Some(0.4), 0.0);
        assert!(near(&found, &[0.625, 0.375, 0.0]), "{found:?}");
        let found = shares(&region(&[25.0, 45.0, 35.0, 15.0].map(|c| c / 1.2)), Some(0.4), 0.0);
        let (second, third) = (45.0 / 120.0 - 0.2, 35.0 / 120.0 - 0.2);
        assert!((found[1] / found[2] - second / third).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_zone_that_is_lost_moves_its_traffic_evenly_and_the_others_keep_theirs() {
        let found = shares(&region(&[0.0, 10.0, 10.0]), None, 0.0);
        assert!(near(&found, &[0.0, 0.5, 0.5]), "{found:?}");
        let found = shares(&region(&[10.0, 0.0, 10.0]), None, 0.0);
        assert!(near(&found, &[1.0, 0.0, 0.0]), "{found:?}");
    }

    #[test]
    fn the_own_region_comes_before_others_as_far_as_it_goes() {
        let mut zones = region(&[0.0, 10.0]);
        zones.push(zone(Distance::Far, 10.0));
        zones.push(zone(Distance::Far, 10.0));
        // A quarter leaves; the neighbour has a third less a quarter left, which is a third of that.
        let found = shares(&zones, None, 0.0);
        assert!(near(&found, &[0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]), "{found:?}");
        zones[1].capacity = 100.0;
        let found = shares(&zones, None, 0.0);
        assert!(near(&found, &[0.0, 1.0, 0.0, 0.0]), "{found:?}");
    }

    #[test]
    fn a_little_goes_to_the_neighbours_to_be_measured() {
        let found = shares(&region(&[10.0, 10.0, 10.0]), None, 0.02);
        assert!(near(&found, &[0.98, 0.01, 0.01]), "{found:?}");
        let zones = [zone(Distance::Own, 1.0), zone(Distance::Far, 1.0)];
        assert!(near(&shares(&zones, None, 0.02), &[1.0, 0.0]), "not to another region");
    }

    proptest! {
        #[test]
        fn shares_are_of_one_whole_and_no_zone_without_capacity_gets_any(
            given in prop::collection::vec((0_u8..3, 0_u32..50), 1..8),
            demand in prop::option::of(0.01_f64..1.0),
            elsewhere in 0.0_f64..0.1,
        ) {
            let mut own = false;
            let zones: Vec<Zone> = given
                .iter()
                .map(|(distance, capacity)| {
                    let distance = match distance {
                        0 if !std::mem::replace(&mut own, true) => Distance::Own,
                        1 => Distance::Near,
                        _ => Distance::Far,
                    };
                    zone(distance, f64::from(*capacity))
                })
                .collect();
            let found = shares(&zones, demand, elsewhere);
            let some = zones.iter().any(|zone| zone.capacity > 0.0);
            prop_assert!((found.iter().sum::<f64>() - f64::from(u8::from(some))).abs() < 1e-9, "{found:?}");
            for (share, zone) in found.iter().zip(&zones) {
                prop_assert!(*share >= 0.0 && (zone.capacity > 0.0 || *share == 0.0), "{found:?}");
            }
        }

        #[test]
        fn clients_in_all_zones_load_equal_zones_alike_whatever_is_lost(
            zones in 2_usize..6, endpoints in 1_u32..20, lost in prop::collection::vec(0_usize..6, 0..4),
        ) {
            // Every zone's clients send the same; some zones are gone.
            let capacity: Vec<f64> = (0..zones)
                .map(|zone| if lost.contains(&zone) { 0.0 } else { f64::from(endpoints) })
                .collect();
            let mut load = vec![0.0; zones];
            for client in 0..zones {
                let seen: Vec<Zone> = (0..zones)
                    .map(|other| {
                        let distance = if other == client { Distance::Own } else { Distance::Near };
                        zone(distance, capacity[other])
                    })
                    .collect();
                for (load, share) in load.iter_mut().zip(shares(&seen, None, 0.0)) {
                    *load += share;
                }
            }
            let alive: Vec<f64> =
                load.iter().zip(&capacity).filter(|(_, own)| **own > 0.0).map(|(load, _)| *load).collect();
            let mean = alive.iter().sum::<f64>() / alive.len().max(1) as f64;
            prop_assert!(alive.iter().all(|load| (load - mean).abs() < 1e-9), "{load:?}");
        }
    }
}
