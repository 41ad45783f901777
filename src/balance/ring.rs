//! A ring of hashes.

use crate::{hash::xxh64, invalid::Check};

/// How a ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingOptions {
    /// Points on the ring for an endpoint of weight 1 \[160\]; another has as many more or fewer as its weight says, and at
    /// least one. The more points, the evener the shares: with 160 an endpoint's is within about 8 % of what it should be.
    pub points: u32,
    /// Points on the ring in all \[262,144\]. Where there would be more, each endpoint has half of its points, or a quarter,
    /// and so on.
    pub max_points: u32,
    /// Up to how much of its share of what is in flight an endpoint may have, in percent \[any load\]; at least 100.
    pub bound: Option<u32>,
}

impl RingOptions {
    /// So many points for an endpoint of weight 1.
    #[must_use]
    pub fn points(mut self, points: u32) -> Self {
        self.points = points;
        self
    }

    /// So many points in all.
    #[must_use]
    pub fn max_points(mut self, points: u32) -> Self {
        self.max_points = points;
        self
    }

    /// No endpoint has more than so many percent of its share of what is in flight: 150 is one and a half of the mean.
    #[must_use]
    pub fn bound(mut self, percent: impl Into<Option<u32>>) -> Self {
        self.bound = percent.into();
        self
    }

    pub(super) fn check(&self, check: &mut Check) {
        check.rule((1..=100_000).contains(&self.points), "points", self.points, "1 to 100,000").rule(
            (1..=8 << 20).contains(&self.max_points),
            "max_points",
            self.max_points,
            "1 to 8,388,608",
        );
        check_bound(self.bound, check);
    }
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { points: 160, max_points: 1 << 18, bound: None }
    }
}

pub(super) fn check_bound(bound: Option<u32>, check: &mut Check) {
    check.rule(
        bound.is_none_or(|percent| (100..=10_000).contains(&percent)),
        "bound",
        bound,
        "100 to 10,000",
    );
}

/// Consistent hashing on a ring: each endpoint owns the keys just before its points.
///
/// An endpoint's points depend on its name and weight alone. So when one of n comes or goes only the keys of its own move,
/// and every client that knows the same endpoints finds the same one for a key. (Where the limit on all points is passed
/// this way or that, others move as well.)
///
/// ```
/// use mainstay::balance::{Ring, RingOptions};
///
/// let ring = Ring::new(&[("10.0.0.1:80", 1.0), ("10.0.0.2:80", 1.0)], RingOptions::default());
/// let owner = ring.prefer(42).next();
/// assert_eq!(owner, ring.prefer(42).next());
/// ```
///
/// A look-up is a binary search; memory is 12 bytes for each point.
///
/// Source: Karger et al., "Consistent hashing and random trees"; the points lie where those of ketama in Envoy's form lie, at
/// XXH64 of `name_number`. Envoy scales the number of points by the least weight and the number of hosts, so that there all
/// hosts' points change with one.
#[derive(Debug)]
pub struct Ring {
    points: Box<[u64]>,
    owners: Box<[u32]>,
}

impl Ring {
    /// A ring of endpoints by name and weight.
    pub fn new(endpoints: &[(&str, f64)], options: RingOptions) -> Self {
        let wanted = |halvings: u32| {
            endpoints.iter().map(move |(_, weight)| {
                let points = weight * f64::from(options.points) / f64::from(halvings).exp2();
                (points.round() as u64).clamp(1, u64::from(options.max_points))
            })
        };
        let halvings = (0..64)
            .find(|halvings| {
                let all = wanted(*halvings).fold(0_u64, u64::saturating_add);
                all <= u64::from(options.max_points).max(endpoints.len() as u64)
            })
            .unwrap_or(63);
        let mut ring = Vec::new();
        let mut text = Vec::new();
        for ((owner, (name, _)), points) in (0_u32..).zip(endpoints).zip(wanted(halvings)) {
            text.clear();
            text.extend_from_slice(name.as_bytes());
            text.push(b'_');
            let stem = text.len();
            for number in 0..points {
                text.truncate(stem);
                text.extend_from_slice(number.to_string().as_bytes());
                ring.push((xxh64(&text, 0), owner));
            }
        }
        // Two points in one place are the smaller name's, in whatever order the endpoints came.
        ring.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| endpoints[a.1 as usize].0.cmp(endpoints[b.1 as usize].0))
        });
        Self {
            points: ring.iter().map(|(point, _)| *point).collect(),
            owners: ring.iter().map(|(_, owner)| *owner).collect(),
        }
    }

    /// The places of the endpoints in the order in which this key prefers them: who owns it, and who would if those before
    /// were gone. One may come several times.
    pub fn prefer(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.points.partition_point(|point| *point < key);
        let (before, after) = self.owners.split_at(first);
        after.iter().chain(before).map(|owner| *owner as usize)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::mix;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("10.0.{}.{}:80", number / 256, number % 256)).collect()
    }

    fn ring<'a>(names: impl Iterator<Item = (&'a str, f64)>, options: RingOptions) -> Ring {
        Ring::new(&names.collect::<Vec<_>>(), options)
    }

    proptest! {
        #[test]
        fn removing_one_endpoint_moves_its_keys_and_no_others(
            weights in prop::collection::vec(0.1_f64..4.0, 2..40), removed in any::<prop::sample::Index>(),
        ) {
            let (names, removed) = (names(weights.len()), removed.index(weights.len()));
            let all = || names.iter().map(String::as_str).zip(weights.iter().copied());
            let before = ring(all(), RingOptions::default());
            let after = ring(
                all().enumerate().filter(|(place, _)| *place != removed).map(|(_, one)| one),
                RingOptions::default(),
            );
            for key in (0..2_000).map(mix) {
                let (old, new) = (before.prefer(key).next().unwrap(), after.prefer(key).next().unwrap());
                let new = new + usize::from(new >= removed);
                if old == removed {
                    // It goes to who was next.
                    prop_assert_eq!(before.prefer(key).find(|owner| *owner != removed), Some(new));
                } else {
                    prop_assert_eq!(old, new);
                }
            }
        }

        #[test]
        fn the_order_in_which_endpoints_come_does_not_matter(count in 1_usize..30, turn in 0_usize..30) {
            let names = names(count);
            let straight = ring(names.iter().map(|name| (name.as_str(), 1.0)), RingOptions::default());
            let mut turned: Vec<&str> = names.iter().map(String::as_str).collect();
            turned.rotate_left(turn % count);
            let other = ring(turned.iter().map(|name| (*name, 1.0)), RingOptions::default());
            for key in (0..200).map(mix) {
                let (a, b) = (straight.prefer(key).next().unwrap(), other.prefer(key).next().unwrap());
                prop_assert_eq!(names[a].as_str(), turned[b]);
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let (names, weights) = (names(10), [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.5, 0.5]);
        let ring = ring(names.iter().map(String::as_str).zip(weights), RingOptions::default().points(1_000));
        let mut counts = [0.0; 10];
        (0..100_000).map(mix).for_each(|key| counts[ring.prefer(key).next().unwrap()] += 1.0);
        for (count, weight) in counts.iter().zip(weights) {
            let share = count / 100_000.0 * 12.0 / weight;
            assert!((share - 1.0).abs() < 0.15, "{share}: {counts:?}");
        }
    }

    #[test]
    fn a_ring_is_no_larger_than_allowed_and_everybody_is_on_it() {
        let names = names(1_000);
        let options = RingOptions::default().max_points(5_000);
        let ring = ring(names.iter().map(|name| (name.as_str(), 1.0)), options);
        assert_eq!(ring.points.len(), 5_000);
        let few = RingOptions::default().max_points(10);
        let ring = Ring::new(&names.iter().map(|name| (name.as_str(), 1.0)).collect::<Vec<_>>(), few);
        assert_eq!(ring.points.len(), 1_000);
    }

    #[test]
    fn a_key_prefers_each_endpoint_sooner_or_later_and_an_empty_ring_none() {
        let names = names(5);
        let ring = ring(names.iter().map(|name| (name.as_str(), 1.0)), RingOptions::default());
        let mut seen: Vec<usize> = ring.prefer(u64::MAX).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(Ring::new(&[], RingOptions::default()).prefer(1).next(), None);
    }
}
