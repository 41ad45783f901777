//! In which order the endpoints of a pool are asked.

use std::{collections::HashMap, sync::Arc};

use super::{distribution::Distribution, maglev::Maglev, ring::Ring, snapshot::Entry, stride::Stride};
use crate::sync::Ordering::Relaxed;

/// So many endpoints are looked at to find out how much is in flight at all of them.
const SAMPLE: usize = 128;

/// How an endpoint of a pool is found.
#[derive(Debug, Default)]
pub(crate) enum Order {
    #[default]
    LeastLoaded,
    /// One after the other, by weight where there is a stride.
    InTurn(Option<Stride>),
    ByKey(ByKey),
}

/// By the key of a request.
#[derive(Debug)]
pub(crate) struct ByKey {
    pub(crate) table: Arc<Table>,
    /// Where in the snapshot each endpoint of the table is, if a service stands.
    places: Box<[u32]>,
    bound: Option<u32>,
}

/// An endpoint that no service stands to.
const NOWHERE: u32 = u32::MAX;

/// A table of all endpoints of a group, whether they are available or not: so that a key comes back to its own. It is kept
/// as long as they stay the same.
#[derive(Debug)]
pub(crate) struct Table {
    distribution: Distribution,
    /// By their ids, in order.
    members: Box<[(u64, f64)]>,
    total: f64,
    lookup: Lookup,
}

#[derive(Debug)]
enum Lookup {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    /// A table for endpoints by id, name and weight, one of `before` if it is the same.
    pub(crate) fn of<'a>(
        distribution: Distribution,
        mut endpoints: Vec<(u64, &str, f64)>,
        mut before: impl Iterator<Item = &'a Arc<Self>>,
    ) -> Arc<Self> {
        endpoints.sort_unstable_by_key(|(id, _, _)| *id);
        let members: Box<[(u64, f64)]> = endpoints.iter().map(|(id, _, weight)| (*id, *weight)).collect();
        if let Some(same) = before.find(|old| old.distribution == distribution && old.members == members) {
            return same.clone();
        }
        let named: Vec<(&str, f64)> = endpoints.iter().map(|(_, name, weight)| (*name, *weight)).collect();
        let lookup = match distribution {
            Distribution::Maglev(options) => Lookup::Maglev(Maglev::new(&named, options)),
            Distribution::Ring(options) => Lookup::Ring(Ring::new(&named, options)),
            Distribution::LeastLoaded | Distribution::RoundRobin | Distribution::ByReports(_) => {
                Lookup::Ring(Ring::new(&[], Default::default()))
            }
        };
        let total = members.iter().map(|(_, weight)| weight).sum();
        Arc::new(Self { distribution, members, total, lookup })
    }
}

impl ByKey {
    /// `index` tells where in the snapshot an endpoint is, by its id.
    pub(crate) fn new(table: Arc<Table>, index: &HashMap<u64, u32>, bound: Option<u32>) -> Self {
        let place = |(id, _): &(u64, f64)| index.get(id).copied().unwrap_or(NOWHERE);
        let places = table.members.iter().map(place).collect();
        Self { table, places, bound }
    }

    /// The endpoints in the order in which `key` prefers them, by their places in the snapshot, and their shares of the
    /// whole by weight.
    pub(crate) fn prefer(&self, key: u64) -> impl Iterator<Item = (Option<usize>, f64)> + '_ {
        let (ring, maglev) = match &self.table.lookup {
            Lookup::Ring(ring) => (Some(ring.prefer(key)), None),
            Lookup::Maglev(table) => (None, Some(table.prefer(key))),
        };
        ring.into_iter().flatten().chain(maglev.into_iter().flatten()).filter_map(|member| {
            let (place, (_, weight)) = (self.places.get(member)?, self.table.members.get(member)?);
            Some(((*place != NOWHERE).then_some(*place as usize), weight / self.table.total))
        })
    }

    /// Up to how many requests may be in flight at an endpoint with such a share, where there is a bound on that.
    ///
    /// What is in flight is counted at `entries`, those of the pool; of many at a part of them, which gives the mean to some
    /// percent.
    pub(crate) fn slots<S>(&self, entries: &[Entry<S>], key: u64) -> Option<impl Fn(f64) -> u32 + use<S>> {
        let bound = self.bound?;
        let (count, sample) = (entries.len(), entries.len().min(SAMPLE));
        let start = (key % count.max(1) as u64) as usize;
        let of = |offset: usize| entries[(start + offset) % count].member.in_flight.load(Relaxed) as usize;
        let seen: usize = (0..sample).map(of).sum();
        let active = (seen * count).div_ceil(sample.max(1));
        Some(move |share| slots(active, bound, share))
    }
}

/// How many requests an endpoint may have, of `active` in all, with `bound` percent of its share of them: at least one.
///
/// Source: "Consistent hashing with bounded loads" (Mirrokni, Thorup, Zadimoghaddam), in whole numbers as in Envoy.
pub(super) fn slots(active: usize, bound: u32, share: f64) -> u32 {
    let all = ((active as u64 + 1) * u64::from(bound)).div_ceil(100);
    (all as f64 * share).ceil().max(1.0) as u32
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::{super::ring::RingOptions, *};

    #[test]
    fn slots_are_those_of_envoy() {
        // ((active + 1) * factor + 99) / 100, times the weight, rounded up, and one at least.
        for (active, bound, share, owed) in [
            (0, 100, 0.25, 1),
            (99, 120, 0.1, 12),
            (99, 125, 0.01, 2),
            (1_000, 150, 0.25, 376),
            (3, 200, 0.5, 4),
        ] {
            assert_eq!(slots(active, bound, share), owed, "{active}, {bound}, {share}");
        }
    }

    proptest! {
        #[test]
        fn there_is_always_an_endpoint_with_a_slot_left(
            in_flight in prop::collection::vec(0_u32..50, 1..30), bound in 100_u32..200,
        ) {
            let (active, share) = (in_flight.iter().sum::<u32>() as usize, 1.0 / in_flight.len() as f64);
            prop_assert!(in_flight.iter().any(|own| *own < slots(active, bound, share)));
        }
    }

    #[test]
    fn a_table_is_kept_while_its_endpoints_stay_and_made_anew_when_they_change() {
        let distribution = Distribution::Ring(RingOptions::default());
        let table = Table::of(distribution, vec![(2, "b", 1.0), (1, "a", 1.0)], std::iter::empty());
        let same = Table::of(distribution, vec![(1, "a", 1.0), (2, "b", 1.0)], std::iter::once(&table));
        assert!(Arc::ptr_eq(&table, &same));
        for changed in [vec![(1, "a", 1.0)], vec![(1, "a", 1.0), (2, "b", 2.0)]] {
            let other = Table::of(distribution, changed, std::iter::once(&table));
            assert!(!Arc::ptr_eq(&table, &other));
        }
    }
}
