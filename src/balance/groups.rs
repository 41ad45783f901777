//! Which endpoints are used together, and how much of the traffic they get: priorities first, then their zones.

use std::{
    collections::{BTreeMap, btree_map::Entry::Occupied, btree_map::Entry::Vacant},
    time::Instant,
};

use super::{
    localities::Localities,
    member::Member,
    options::{BalanceOptions, Panic},
    priority::{self, Level, Rule},
    zone::{self, Distance, Zone},
};
use crate::{Endpoint, endpoint::Locality};

/// The own zone never counts for less than this share of what it has: a client that is wrong about it still sees it.
const SLOWEST: f64 = 0.02;
/// The own zone takes longer when it takes so many times as long: means of a few samples scatter.
const MARGIN: f64 = 1.25;
/// So many samples make a zone's mean latency worth comparing.
const ENOUGH: f64 = 4.0;

/// An endpoint of the resolution, as the division goes by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) member: &'a Member,
    pub(super) endpoint: &'a Endpoint,
    pub(super) weight: f64,
    /// A service stands.
    pub(super) connected: bool,
    /// What is being connected for the first time says nothing yet.
    pub(super) known: bool,
}

impl Seen<'_> {
    fn is_available(&self) -> bool {
        self.connected && self.member.health.is_available()
    }
}

/// How the endpoints are divided.
#[derive(Clone, Debug, Default)]
pub(super) struct Divided {
    /// Those that are used first come first.
    pub(super) groups: Vec<Group>,
    /// The group of each endpoint, in the order in which they were seen.
    pub(super) of: Vec<usize>,
    pub(super) levels: Vec<LevelState>,
}

/// Endpoints that are used together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Of all traffic, from 0 to 1.
    pub(super) share: f64,
    /// Ejections are set aside.
    pub(super) panic: bool,
    pub(super) priority: u32,
}

/// A priority, for the status and for events.
#[derive(Clone, Debug)]
pub(crate) struct LevelState {
    pub(crate) priority: u32,
    pub(crate) endpoints: usize,
    pub(crate) available: usize,
    pub(crate) percent: u32,
    pub(crate) too_few: bool,
    /// None where they are not told apart.
    pub(crate) zones: Vec<ZoneState>,
}

/// A zone of a priority.
#[derive(Clone, Debug)]
pub(crate) struct ZoneState {
    pub(crate) locality: Locality,
    pub(crate) distance: Distance,
    pub(crate) endpoints: usize,
    pub(crate) available: usize,
    /// Of the traffic of its priority.
    pub(crate) share: f64,
}

/// Divides what was seen.
///
/// `fit` is how well the own zone does beside the others, from 0 to 1.
pub(super) fn divide(seen: &[Seen<'_>], options: &BalanceOptions, fit: f64, now: Instant) -> Divided {
    let mut by_priority: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, one) in seen.iter().enumerate() {
        by_priority.entry(one.endpoint.priority()).or_default().push(index);
    }
    let levels: Vec<Level> = by_priority
        .values()
        .map(|own| Level {
            known: own.iter().filter(|index| seen[**index].known).count(),
            available: own.iter().filter(|index| seen[**index].is_available()).count(),
        })
        .collect();
    let rule = Rule {
        overprovisioning: options.overprovisioning,
        panic_below: options.panic_below.get(),
        fail_open: options.panic == Panic::FailOpen,
    };
    let shares = priority::shares(&levels, rule);
    let mut divided = Divided { of: vec![0; seen.len()], ..Divided::default() };
    for (((priority, own), level), share) in by_priority.iter().zip(&levels).zip(shares) {
        let mut state = LevelState {
            priority: *priority,
            endpoints: own.len(),
            available: level.available,
            percent: share.percent,
            too_few: share.too_few,
            zones: Vec::new(),
        };
        let panic = share.too_few && rule.fail_open;
        // One level gets everything, whatever it has.
        let of_all = if levels.len() == 1 { 1.0 } else { f64::from(share.percent) / 100.0 };
        let zones = if panic { None } else { zones(seen, own, &options.localities, fit, now) };
        match zones {
            None => {
                own.iter().for_each(|index| divided.of[*index] = divided.groups.len());
                divided.groups.push(Group { share: of_all, panic, priority: *priority });
            }
            Some(zones) => {
                for (zone, members) in &zones {
                    members.iter().for_each(|index| divided.of[*index] = divided.groups.len());
                    divided.groups.push(Group { share: of_all * zone.share, panic, priority: *priority });
                }
                state.zones = zones.into_iter().map(|(zone, _)| zone).collect();
            }
        }
        divided.levels.push(state);
    }
    divided
}

/// The zones of a level, the nearest first, with the places of their endpoints; `None` where they are not told apart.
fn zones(
    seen: &[Seen<'_>],
    level: &[usize],
    options: &Localities,
    fit: f64,
    now: Instant,
) -> Option<Vec<(ZoneState, Vec<usize>)>> {
    let own = options.own.as_ref().filter(|_| level.len() >= options.min_endpoints as usize)?;
    let mut by_zone: BTreeMap<(Distance, &str, &str), Vec<usize>> = BTreeMap::new();
    // Where it has nothing the own zone is a zone all the same: its clients are there.
    by_zone.insert((Distance::Own, &own.region, &own.zone), Vec::new());
    for index in level {
        let locality = seen[*index].endpoint.locality();
        let (region, zone) = (&*locality.region, &*locality.zone);
        let distance = distance(own, locality);
        match by_zone.entry((distance, region, zone)) {
            Occupied(mut zone) => zone.get_mut().push(*index),
            Vacant(zone) => {
                zone.insert(vec![*index]);
            }
        }
    }
    let measured: Vec<Zone> = {
        let slow = (slowness(seen, &by_zone, now) * fit).max(SLOWEST);
        let capacity = |members: &[usize]| -> f64 {
            members.iter().map(|index| seen[*index]).filter(Seen::is_available).map(|one| one.weight).sum()
        };
        let zone = |((distance, _, _), members): (&(Distance, &str, &str), &Vec<usize>)| Zone {
            distance: *distance,
            capacity: capacity(members) * if *distance == Distance::Own { slow } else { 1.0 },
        };
        by_zone.iter().map(zone).collect()
    };
    let demand = options.demand.map(|demand| demand.get());
    let shares = zone::shares(&measured, demand, options.elsewhere.get());
    let state = |(((distance, region, zone), members), share): ((_, Vec<usize>), f64)| {
        let available = members.iter().filter(|index| seen[**index].is_available()).count();
        let locality = Locality::new(region, zone, "");
        (ZoneState { locality, distance, endpoints: members.len(), available, share }, members)
    };
    Some(by_zone.into_iter().zip(shares).map(state).collect())
}

/// How far a place is from another.
pub(super) fn distance(own: &Locality, other: &Locality) -> Distance {
    match (other.region == own.region, other.zone == own.zone) {
        (true, true) => Distance::Own,
        (true, false) => Distance::Near,
        (false, _) => Distance::Far,
    }
}

/// How long the others take by how long the own zone takes, where it takes clearly longer: 1 and less.
fn slowness(seen: &[Seen<'_>], zones: &BTreeMap<(Distance, &str, &str), Vec<usize>>, now: Instant) -> f64 {
    let mean = |of: &dyn Fn(Distance) -> bool| {
        let members = zones.iter().filter(|((distance, _, _), _)| of(*distance)).flat_map(|(_, all)| all);
        let (weight, sum) = members
            .map(|index| seen[*index])
            .filter(Seen::is_available)
            .filter_map(|one| one.member.expected(one.member.fleet.at(now)))
            .map(|known| (f64::from(known.weight).min(1e3), f64::from(known.mean)))
            .fold((0.0, 0.0), |(all, sum), (weight, mean)| (all + weight, sum + weight * mean));
        (weight >= ENOUGH).then(|| sum / weight)
    };
    let own = mean(&|distance| distance == Distance::Own);
    // What is far takes longer for being far: it says nothing about the own zone unless nothing is near.
    let others =
        mean(&|distance| distance == Distance::Near).or_else(|| mean(&|distance| distance == Distance::Far));
    match (own, others) {
        (Some(own), Some(others)) if own > 0.0 => (others * MARGIN / own).min(1.0),
        _ => 1.0,
    }
}
