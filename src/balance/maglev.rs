//! Google's Maglev table.

use super::ring::check_bound;
use crate::{
    hash::{mix, xxh64},
    invalid::Check,
};

/// How a Maglev table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaglevOptions {
    /// Entries in the table, a prime number \[65,537\]. With a hundred for each endpoint shares are even to a hundredth.
    pub size: u32,
    /// Up to how much of its share of what is in flight an endpoint may have, in percent \[any load\]; at least 100.
    pub bound: Option<u32>,
}

/// What Envoy allows.
const LARGEST: u32 = 5_000_011;
/// Other entries that a key tries, once its own is of no use.
const TRIES: u64 = 128;

impl MaglevOptions {
    /// So many entries, a prime number.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// No endpoint has more than so many percent of its share of what is in flight: 150 is one and a half of the mean.
    #[must_use]
    pub fn bound(mut self, percent: impl Into<Option<u32>>) -> Self {
        self.bound = percent.into();
        self
    }

    pub(super) fn check(&self, check: &mut Check) {
        let holds = self.size <= LARGEST && is_prime(self.size);
        check.rule(holds, "size", self.size, "a prime number of at most 5,000,011");
        check_bound(self.bound, check);
    }
}

impl Default for MaglevOptions {
    fn default() -> Self {
        Self { size: 65_537, bound: None }
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// A table in which each endpoint has as many entries as its weight says, and a key finds its own by one look.
///
/// Shares are evener than a ring's and look-ups faster; when one of n endpoints goes, a few keys of the others move as well
/// (a hundredth or two of all, with a hundred entries for each endpoint). Every client that knows the same endpoints has the
/// same table.
///
/// ```
/// use mainstay::balance::{Maglev, MaglevOptions};
///
/// let table = Maglev::new(&[("10.0.0.1:80", 1.0), ("10.0.0.2:80", 2.0)], MaglevOptions::default());
/// assert_eq!(table.prefer(42).next(), table.prefer(42).next());
/// ```
///
/// Source: Eisenbud et al., "Maglev: a fast and reliable software network load balancer", 3.4; weights, and hashes by XXH64,
/// as in Envoy. Where a key goes when its own endpoint is of no use is found by hashing it again.
#[derive(Debug)]
pub struct Maglev {
    table: Box<[u32]>,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// A table of endpoints by name and weight. Its size must be a prime, as [`MaglevOptions`] are checked to have it: with
    /// another the table is empty.
    pub fn new(endpoints: &[(&str, f64)], options: MaglevOptions) -> Self {
        if endpoints.is_empty() || !is_prime(options.size) {
            return Self { table: Box::new([]) };
        }
        let size = u64::from(options.size);
        let heaviest = endpoints.iter().map(|(_, weight)| *weight).fold(f64::MIN_POSITIVE, f64::max);
        struct Turn {
            owner: u32,
            next: u64,
            skip: u64,
            weight: f64,
            target: f64,
        }
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        order.sort_unstable_by_key(|place| endpoints[*place].0);
        let mut turns: Vec<Turn> = order
            .into_iter()
            .map(|place| {
                let name = endpoints[place].0.as_bytes();
                Turn {
                    owner: place as u32,
                    next: xxh64(name, 0) % size,
                    skip: if size > 2 { xxh64(name, 1) % (size - 1) + 1 } else { 1 },
                    weight: endpoints[place].1 / heaviest,
                    target: 0.0,
                }
            })
            .collect();
        let mut table = vec![FREE; options.size as usize];
        let mut left = table.len();
        // The heaviest takes an entry in each round, one of a third of its weight in every third.
        for round in 1_u64.. {
            for turn in &mut turns {
                if left == 0 {
                    return Self { table: table.into() };
                }
                if round as f64 * turn.weight < turn.target {
                    continue;
                }
                turn.target += 1.0;
                // The size is a prime, so its steps meet every entry.
                while table[turn.next as usize] != FREE {
                    turn.next = (turn.next + turn.skip) % size;
                }
                table[turn.next as usize] = turn.owner;
                left -= 1;
            }
        }
        Self { table: table.into() }
    }

    /// The places of the endpoints in the order in which this key prefers them. One may come several times, and of many
    /// some may not.
    pub fn prefer(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let entry = |word: u64| {
            let size = self.table.len() as u64;
            self.table.get(word.checked_rem(size)? as usize).map(|owner| *owner as usize)
        };
        (0..=TRIES)
            .map_while(move |attempt| entry(if attempt == 0 { key } else { mix(key.wrapping_add(attempt)) }))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("10.0.{}.{}:80", number / 256, number % 256)).collect()
    }

    fn table<'a>(endpoints: impl Iterator<Item = (&'a str, f64)>, size: u32) -> Maglev {
        Maglev::new(&endpoints.collect::<Vec<_>>(), MaglevOptions::default().size(size))
    }

    fn counts(table: &Maglev, endpoints: usize) -> Vec<usize> {
        let mut counts = vec![0; endpoints];
        table.table.iter().for_each(|owner| counts[*owner as usize] += 1);
        counts
    }

    #[test]
    fn equal_endpoints_have_equal_shares_to_one_entry() {
        let names = names(7);
        let counts = counts(&table(names.iter().map(|name| (name.as_str(), 1.0)), 65_537), 7);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }

    #[test]
    fn shares_follow_the_weights() {
        let (names, weights) = (names(4), [1.0, 2.0, 0.5, 4.5]);
        let counts = counts(&table(names.iter().map(String::as_str).zip(weights), 65_537), 4);
        for (count, weight) in counts.iter().zip(weights) {
            let share = *count as f64 * 8.0 / 65_537.0 / weight;
            assert!((share - 1.0).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn when_one_of_a_thousand_goes_little_else_moves_as_in_the_paper() {
        // Its figure 12: with 1,000 backends and 65,537 entries some percent of the entries change when a few go.
        let names = names(1_000);
        let all = || names.iter().map(|name| (name.as_str(), 1.0));
        let (before, after) = (table(all(), 65_537), table(all().skip(1), 65_537));
        let moved =
            before.table.iter().zip(&after.table).filter(|(old, new)| **old != 0 && **old != *new + 1);
        let moved = moved.count() as f64 / 65_537.0;
        assert!(moved < 0.03, "{moved}");
    }

    proptest! {
        #[test]
        fn when_one_goes_its_keys_move_and_few_of_the_others(
            count in 3_usize..60, removed in any::<prop::sample::Index>(),
        ) {
            let (names, removed) = (names(count), removed.index(count));
            let all = || names.iter().map(|name| (name.as_str(), 1.0));
            let before = table(all(), 65_537);
            let after = table(
                all().enumerate().filter(|(place, _)| *place != removed).map(|(_, one)| one),
                65_537,
            );
            let name = |owner: u32| owner + u32::from(owner as usize >= removed);
            let moved = before
                .table
                .iter()
                .zip(&after.table)
                .filter(|(old, new)| **old as usize != removed && **old != name(**new))
                .count() as f64 / 65_537.0;
            // Envoy says that about twice as many keys move as have to.
            prop_assert!(moved <= 1.0 / count as f64 + 0.01, "{moved} of {count}");
        }

        #[test]
        fn the_order_in_which_endpoints_come_does_not_matter(count in 1_usize..20, turn in 0_usize..20) {
            let names = names(count);
            let straight = table(names.iter().map(|name| (name.as_str(), 1.0)), 1_009);
            let mut turned: Vec<&str> = names.iter().map(String::as_str).collect();
            turned.rotate_left(turn % count);
            let other = table(turned.iter().map(|name| (*name, 1.0)), 1_009);
            for (a, b) in straight.table.iter().zip(&other.table) {
                prop_assert_eq!(names[*a as usize].as_str(), turned[*b as usize]);
            }
        }
    }

    #[test]
    fn every_size_is_filled_and_none_but_a_prime_is_valid() {
        for size in [2, 3, 5, 7, 1_009] {
            let names = names(10);
            let table = table(names.iter().map(|name| (name.as_str(), 1.0)), size);
            assert!(table.table.iter().all(|owner| *owner != FREE));
        }
        assert!([2, 65_537, LARGEST].map(is_prime).iter().all(|prime| *prime));
        assert!(![0, 1, 4, 65_536].map(is_prime).iter().any(|prime| *prime));
        assert_eq!(Maglev::new(&[], MaglevOptions::default()).prefer(1).next(), None);
    }
}
