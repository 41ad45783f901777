//! Quantiles of latencies some of which were cut off before they had ended.

use std::time::Duration;

use super::histogram::{Counts, middle};

/// The distribution of latencies of which some are known only to be *at least* so long: attempts that lost a race, that
/// failed, or whose callers gave up.
///
/// To take those as latencies would call them faster than they are, and to leave them out would forget the slowest first.
/// The product-limit estimate (Kaplan and Meier, 1958) takes each for what it is: of all that had lasted as long, so many
/// ended next.
#[derive(Clone, Copy, Debug)]
pub struct Survival<'a> {
    ended: &'a Counts,
    cut: &'a Counts,
}

impl<'a> Survival<'a> {
    /// Of latencies that have `ended`, and of what was `cut` off.
    pub fn new(ended: &'a Counts, cut: &'a Counts) -> Self {
        Self { ended, cut }
    }

    /// How many there are, of both kinds.
    pub fn total(&self) -> u64 {
        self.ended.total() + self.cut.total()
    }

    /// How many of them ended by themselves.
    pub fn ended(&self) -> u64 {
        self.ended.total()
    }

    /// The latency that a share of `quantile` (from 0 to 1; what lies outside is taken as the nearer end) does not exceed,
    /// within 1/16. `None` where too much was cut off to tell, or nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let mut left = self.total() as f64;
        let (mut survive, above) = (1.0, 1.0 - quantile.clamp(0.0, 1.0));
        for (index, (ended, cut)) in self.ended.buckets().zip(self.cut.buckets()).enumerate() {
            if ended > 0 {
                survive *= 1.0 - ended as f64 / left;
                // A share of a half of four is two of them, whatever the rounding.
                if survive <= above + 1e-9 {
                    return Some(Duration::from_nanos(middle(index)));
                }
            }
            // What was cut off in a bucket had lasted as long as those that ended in it.
            left -= (ended + cut) as f64;
        }
        None
    }

    /// The time that all of them took together, at least.
    pub fn spent(&self) -> Duration {
        let nanos = |counts: &Counts| -> f64 {
            counts.buckets().enumerate().map(|(index, count)| count as f64 * middle(index) as f64).sum()
        };
        Duration::from_nanos((nanos(self.ended) + nanos(self.cut)) as u64)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        estimate::Histogram,
        random::{Random as _, Seeded, unit},
    };

    const MS: Duration = Duration::from_millis(1);

    fn counts(latencies: impl IntoIterator<Item = Duration>) -> Counts {
        let histogram = Histogram::new();
        latencies.into_iter().for_each(|latency| histogram.record(latency));
        histogram.counts()
    }

    #[test]
    fn losers_that_are_cut_off_at_the_percentile_leave_it_where_it_is() {
        let none = Counts::default();
        let all = counts((1..=100).map(|n| MS * n));
        let (ended, cut) = (counts((1..=90).map(|n| MS * n)), counts((91..=100).map(|_| MS * 91)));
        let found = Survival::new(&ended, &cut).quantile(0.85);
        assert_eq!(found, Survival::new(&all, &none).quantile(0.85));
        let forgetful = ended.quantile(0.85).unwrap();
        assert!(forgetful < found.unwrap());
    }

    #[test]
    fn where_all_were_cut_off_nothing_is_known() {
        let (none, cut) = (Counts::default(), counts([MS, MS * 2]));
        assert_eq!(Survival::new(&none, &cut).quantile(0.5), None);
        assert_eq!(Survival::new(&none, &none).quantile(0.5), None);
    }

    #[test]
    fn callers_who_give_up_early_do_not_make_latencies_shorter() {
        // Exponential latencies of 40 ms, and callers with as short a patience: the median is 27.7 ms, and that of those
        // who were answered 13.9.
        let random = Seeded::new(5);
        let draw = || -40.0 * (1.0 - unit(random.next())).ln();
        let (ended, cut) = (Histogram::new(), Histogram::new());
        for _ in 0..20_000 {
            let (takes, patience) = (draw(), draw());
            let of = if takes <= patience { &ended } else { &cut };
            of.record(Duration::from_secs_f64(takes.min(patience) / 1e3));
        }
        let (ended, cut) = (ended.counts(), cut.counts());
        let median = Survival::new(&ended, &cut).quantile(0.5).unwrap().as_secs_f64() * 1e3;
        assert!((median / 27.7 - 1.0).abs() < 0.08, "{median}");
        assert!(ended.quantile(0.5).unwrap() < MS * 16);
    }

    #[test]
    fn time_spent_is_summed_over_both() {
        let spent = Survival::new(&counts([MS * 40; 10]), &counts([MS * 20; 5])).spent();
        assert!((spent.as_secs_f64() / 0.5 - 1.0).abs() < 1.0 / 16.0, "{spent:?}");
    }

    proptest! {
        #[test]
        fn with_nothing_cut_off_it_is_the_plain_quantile(
            nanos in prop::collection::vec(1_024_u64..1 << 36, 1..200), quantile in 0.0_f64..=1.0,
        ) {
            let (all, none) = (counts(nanos.into_iter().map(Duration::from_nanos)), Counts::default());
            prop_assert_eq!(Survival::new(&all, &none).quantile(quantile), all.quantile(quantile));
        }

        #[test]
        fn to_cut_off_what_takes_longest_moves_no_quantile_below(
            millis in prop::collection::vec(1_u64..2_000, 20..200), keep in 0.3_f64..0.95,
        ) {
            let (all, none) = (counts(millis.iter().map(|n| MS * *n as u32)), Counts::default());
            let at = all.quantile(keep).unwrap();
            let (ended, cut): (Vec<u64>, Vec<u64>) = millis.iter().partition(|n| MS * (**n as u32) <= at * 2);
            let (ended, cut) = (counts(ended.iter().map(|n| MS * *n as u32)), counts(cut.iter().map(|_| at * 2)));
            for quantile in [0.1, 0.2, keep * 0.9] {
                prop_assert_eq!(Survival::new(&ended, &cut).quantile(quantile), Survival::new(&all, &none).quantile(quantile));
            }
        }
    }
}
