//! Endpoints that picks draw from together.

use std::time::Instant;

use super::{
    alias::Alias,
    distribution::{Distribution, Sticky},
    groups::Group,
    options::BalanceOptions,
    order::Order,
    snapshot::Entry,
    stride::Stride,
};
use crate::random::below;

/// A stretch of the snapshot's entries, with what it takes to pick one of them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) priority: u32,
    /// All weights are equal, and nobody is working up to its share.
    pub(crate) plain: bool,
    /// It is plain, and requests go to the least loaded, whatever they are.
    pub(crate) usual: bool,
    /// Ejections are set aside.
    pub(crate) panic: bool,
    /// Some endpoints are working up to their share.
    pub(crate) ramping: bool,
    /// Draws by weight, where weights differ.
    pub(crate) alias: Option<Alias>,
    pub(crate) order: Order,
}

/// No reported weight counts for more than so many times the median of all, or for less than that part of it: one report that makes no
/// sense takes no more. (gRPC bounds weights by the mean, which one such report moves.)
const FARTHEST: f64 = 10.0;

/// Keeps weights within bounds; 0 is unknown, and stays.
fn bound(weights: &mut [f64]) {
    let mut known: Vec<f64> = weights.iter().copied().filter(|weight| *weight > 0.0).collect();
    known.sort_unstable_by(f64::total_cmp);
    let Some(median) = known.get(known.len() / 2) else { return };
    for weight in weights.iter_mut().filter(|weight| **weight > 0.0) {
        *weight = weight.clamp(median / FARTHEST, (median * FARTHEST).min(f64::MAX));
    }
}

impl Pool {
    /// A pool of `entries`, which begin at `start` of the snapshot's. Returns also when the last ramp ends.
    pub(crate) fn of<S>(
        start: usize,
        entries: &[Entry<S>],
        group: &Group,
        options: &BalanceOptions,
        now: Instant,
    ) -> (Self, Option<Instant>) {
        let ramps = entries.iter().filter_map(|entry| entry.member.ramp(now, &options.slow_start));
        let ramp_ends = ramps.map(|(_, end)| end).max();
        let first = entries.first().map_or(1.0, |entry| entry.weight);
        let unequal = entries.iter().any(|entry| entry.weight != first);
        let weights = || entries.iter().map(|entry| f64::from(entry.weight)).collect::<Vec<_>>();
        let plain = !unequal && ramp_ends.is_none();
        let least_loaded = options.distribution == Distribution::LeastLoaded;
        let whatever = options.sticky == Sticky::Off && options.health.per_operation.is_none();
        let order = match options.distribution {
            Distribution::RoundRobin => Order::InTurn(Stride::new(&weights())),
            Distribution::ByReports(reported) => {
                let own = |entry: &Entry<S>| {
                    entry.member.weight(now, &reported).map_or(0.0, |weight| weight * f64::from(entry.part))
                };
                let mut weights: Vec<f64> = entries.iter().map(own).collect();
                bound(&mut weights);
                Order::InTurn(Stride::new(&weights))
            }
            // What goes by key is put in place when all pools are there.
            _ => Order::LeastLoaded,
        };
        let pool = Self {
            start: start as u32,
            len: entries.len() as u32,
            plain,
            usual: plain && least_loaded && whatever,
            panic: group.panic,
            priority: group.priority,
            ramping: ramp_ends.is_some(),
            alias: unequal.then(|| Alias::new(&weights())),
            order,
        };
        (pool, ramp_ends)
    }
}

/// Several pools, and who gets how much.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Up to which of 2^32 each pool's share goes.
    ends: Box<[u32]>,
    /// All of them are.
    pub(crate) usual: bool,
    /// Those that are used first come first.
    pub(crate) pools: Box<[Pool]>,
}

impl Pools {
    /// `shares` are in proportion; those of empty pools do not count.
    pub(crate) fn new(pools: Vec<Pool>, shares: &[f64]) -> Self {
        let share = |(pool, share): (&Pool, &f64)| if pool.len == 0 { 0.0 } else { *share };
        let mut shares: Vec<f64> = pools.iter().zip(shares).map(share).collect();
        if shares.iter().sum::<f64>() <= 0.0 {
            // What is owed something has nothing: the nearest that has takes it.
            if let Some(first) = pools.iter().position(|pool| pool.len > 0) {
                shares[first] = 1.0;
            }
        }
        let total: f64 = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or(0);
        let mut sum = 0.0;
        let ends = shares.iter().enumerate().map(|(index, share)| {
            sum += share / total;
            if index >= last { u32::MAX } else { (sum * f64::from(u32::MAX)) as u32 }
        });
        let usual = pools.iter().all(|pool| pool.usual);
        Self { ends: ends.collect(), usual, pools: pools.into() }
    }

    /// The pool that this word draws. The same word draws the same pool while shares are the same, and most words do when
    /// they change a little.
    #[inline]
    pub(crate) fn draw(&self, word: u32) -> Option<&Pool> {
        let index = self.ends.iter().position(|end| word < *end).unwrap_or(self.last());
        self.pools.get(index)
    }

    /// A pool of the same priority as this one, of which `fits` is true: each endpoint there is as likely as any other.
    pub(crate) fn another(&self, pool: &Pool, word: u32, fits: impl Fn(&Pool) -> bool) -> Option<&Pool> {
        let others = || self.pools.iter().filter(|other| other.priority == pool.priority && fits(other));
        let mut place = below(word, others().map(|other| other.len).sum());
        others().find(|other| {
            let found = place < other.len;
            place = place.saturating_sub(other.len);
            found
        })
    }

    /// The last that gets anything.
    fn last(&self) -> usize {
        self.ends.iter().position(|end| *end == u32::MAX).unwrap_or(0)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::random::{Random as _, Seeded};

    fn pools(lengths: &[u32]) -> Vec<Pool> {
        lengths.iter().map(|len| Pool { len: *len, ..Pool::default() }).collect()
    }

    #[test]
    fn pools_are_drawn_by_their_shares_and_empty_ones_never() {
        let (pools, random) = (Pools::new(pools(&[5, 0, 5, 5]), &[0.3, 0.5, 0.1, 0.0]), Seeded::new(1));
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            let drawn = pools.draw(random.next() as u32).unwrap();
            counts[pools.pools.iter().position(|pool| std::ptr::eq(pool, drawn)).unwrap()] += 1;
        }
        assert!((74_000..76_000).contains(&counts[0]), "{counts:?}");
        assert_eq!((counts[1], counts[3], counts[0] + counts[2]), (0, 0, 100_000));
        assert_eq!(pools.draw(u32::MAX).map(|pool| pool.len), Some(5));
    }

    #[test]
    fn where_what_is_owed_something_is_empty_the_nearest_takes_it() {
        let pools = Pools::new(pools(&[0, 3, 4]), &[1.0, 0.0, 0.0]);
        assert_eq!(pools.draw(0).map(|pool| pool.len), Some(3));
        assert_eq!(pools.draw(u32::MAX).map(|pool| pool.len), Some(3));
    }
}
