//! Which of the endpoints that were looked at is the least loaded.

use crate::random::{Random, below};

/// By so much of a request must the others be less loaded than the first that was drawn, in requests.
///
/// Without it the fastest of those that were drawn gets everything while nothing is in flight, and one of two at 10 and
/// 12 ms never sees a request of a caller who sends one after the other. From 1 on, the busier of two could win. With
/// weights, between none and one request in flight at a light endpoint there is nothing, and each step is more than its
/// share: with a half, shares stay within 2 points from 5 in flight per endpoint on, and within 5 below; with 0.45 or 0.6
/// they do not.
pub(super) const HANDICAP: f32 = 0.5;

/// The mean of the others counts as so many samples of an endpoint's own: about what one sample of exponential latencies
/// is worth, twice.
const PRIOR: f32 = 2.0;

/// One pick in so many, at the most, goes to an idle endpoint just because nobody knows how it is by now: a mean that
/// nobody asks after does not get better by itself.
pub(super) const EXPLORE: u64 = 16;

/// What is to be seen of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    /// Where it stands in the snapshot.
    pub(super) index: u32,
    /// Requests in flight there; infinitely many where it may not be used.
    pub(super) in_flight: f32,
    /// The mean share of the traffic by its own: 1 where all are equal.
    pub(super) by_share: f32,
    /// How long it takes in nanoseconds, and how many samples that stands on: 0 where nothing is known.
    pub(super) mean: f32,
    pub(super) weight: f32,
    /// Whether what is known is old.
    pub(super) is_silent: bool,
}

impl Look {
    /// How long it takes, drawn towards the mean of all.
    #[inline(always)]
    pub(super) fn latency(&self, prior: f32) -> f32 {
        (self.weight * self.mean + prior) / (self.weight + PRIOR)
    }

    /// Others make a request take `slowed` times as long there: one more makes less of a difference, as far as it is known how
    /// long it takes.
    pub(super) fn crowd(&mut self, slowed: f32) {
        self.by_share /= 1.0 + (slowed - 1.0) * self.weight / (self.weight + PRIOR);
    }

    /// At one that may not be used.
    #[inline]
    pub(super) fn away(index: u32) -> Self {
        Self { index, in_flight: f32::INFINITY, by_share: 1.0, mean: 0.0, weight: 0.0, is_silent: false }
    }
}

/// What draws each mean towards that of all; `None` where nothing is known.
#[inline(always)]
pub(super) fn prior(looks: &[Look]) -> Option<f32> {
    let (mut total, mut sum) = (0.0_f32, 0.0_f32);
    for look in looks {
        (total, sum) = (total + look.weight, sum + look.weight * look.mean);
    }
    (total != 0.0).then(|| sum / total * PRIOR)
}

/// Distinct numbers below `bound`, which is at least `D`, in random order; and whether this pick may explore.
#[inline]
pub(super) fn distinct<const D: usize>(bound: u32, random: &dyn Random) -> ([u32; D], bool) {
    let (mut numbers, mut sorted) = ([0_u32; D], [0_u32; D]);
    let mut word = random.next();
    // The low bits of a word decide next to nothing else.
    let explores = word.is_multiple_of(EXPLORE);
    for drawn in 0..D {
        if drawn > 0 {
            word = if drawn % 2 == 0 { random.next() } else { word >> 32 };
        }
        // One of those that are left: counted on over the ones before it that are taken.
        let mut number = below(word as u32, bound - drawn as u32);
        for taken in &sorted[..drawn] {
            number += u32::from(number >= *taken);
        }
        numbers[drawn] = number;
        for place in &mut sorted[..drawn] {
            (*place, number) = ((*place).min(number), (*place).max(number));
        }
        sorted[drawn] = number;
    }
    (numbers, explores)
}

/// The least loaded of `looks`, in the order in which they were drawn; `None` where none of them may be used.
///
/// Load is what is in flight there by its share, and this request, times how long it takes: only what is in flight goes by
/// share, since where nothing is, the draw has given each its share already. Each mean is drawn towards that of all of them,
/// as far as it stands on few samples.
#[inline]
pub(super) fn lightest(looks: &[Look], explores: bool) -> Option<&Look> {
    let (first, others) = looks.split_first()?;
    if explores && first.is_silent && first.in_flight == 0.0 {
        return Some(first);
    }
    let requests = |look: &Look, handicap: f32| (look.in_flight + handicap) * look.by_share + 1.0;
    let (mut best, mut least);
    match prior(looks) {
        // Where nothing is known all are as fast as each other.
        None => {
            (best, least) = (first, requests(first, 0.0));
            for look in others {
                let load = requests(look, HANDICAP);
                if load < least {
                    (best, least) = (look, load);
                }
            }
        }
        Some(prior) => {
            (best, least) = (first, first.latency(prior) * requests(first, 0.0));
            for look in others {
                let load = look.latency(prior) * requests(look, HANDICAP);
                if load < least {
                    (best, least) = (look, load);
                }
            }
        }
    }
    (least < f32::INFINITY).then_some(best)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Seeded;

    fn look(in_flight: f32, mean: f32, weight: f32) -> Look {
        Look { index: 0, in_flight, by_share: 1.0, mean, weight, is_silent: false }
    }

    fn chosen(looks: &[Look]) -> usize {
        let best = lightest(looks, false).unwrap();
        looks.iter().position(|look| std::ptr::eq(look, best)).unwrap()
    }

    #[test]
    fn of_two_alike_the_busier_one_gets_nothing() {
        for known in [0.0, 32.0] {
            assert_eq!(chosen(&[look(1.0, 1e7, known), look(0.0, 1e7, known)]), 1);
            assert_eq!(chosen(&[look(0.0, 1e7, known), look(1.0, 1e7, known)]), 0);
        }
    }

    #[test]
    fn a_tie_goes_to_the_first_drawn_and_so_does_a_small_difference() {
        assert_eq!(chosen(&[look(0.0, 1e7, 32.0), look(0.0, 1e7, 32.0)]), 0);
        assert_eq!(chosen(&[look(0.0, 1.2e7, 32.0), look(0.0, 1e7, 32.0)]), 0);
        assert_eq!(chosen(&[look(0.0, 2e7, 32.0), look(0.0, 1e7, 32.0)]), 1);
    }

    #[test]
    fn what_is_known_of_few_samples_counts_little() {
        let lucky = [look(0.0, 1e7, 32.0), look(0.0, 5e6, 0.5)];
        assert_eq!(chosen(&lucky), 0);
        let sure = [look(0.0, 1e7, 32.0), look(0.0, 5e6, 32.0)];
        assert_eq!(chosen(&sure), 1);
    }

    #[test]
    fn an_unknown_endpoint_is_as_fast_as_the_others() {
        assert_eq!(chosen(&[look(1.0, 1e7, 32.0), look(0.0, 0.0, 0.0)]), 1);
        assert_eq!(chosen(&[look(0.0, 0.0, 0.0), look(1.0, 1e7, 32.0)]), 0);
    }

    #[test]
    fn only_an_idle_endpoint_that_was_silent_is_explored() {
        let slow = |in_flight, is_silent| Look { in_flight, is_silent, ..look(0.0, 1e9, 32.0) };
        let explored =
            |first| lightest(&[first, look(0.0, 1e7, 32.0)], true).is_some_and(|best| best.mean == 1e9);
        assert!(explored(slow(0.0, true)));
        assert!(!explored(slow(1.0, true)));
        assert!(!explored(slow(0.0, false)));
    }

    #[test]
    fn peaks_are_compared_as_they_are() {
        let certain = 1e9;
        assert_eq!(chosen(&[look(2.0, 1e7, certain), look(0.0, 1.9e7, certain)]), 1);
        assert_eq!(chosen(&[look(2.0, 1e7, certain), look(0.0, 2.1e7, certain)]), 0);
    }

    #[test]
    fn who_may_not_be_used_is_not_chosen_and_tells_nothing() {
        let known = [Look::away(0), look(5.0, 1e7, 32.0), Look::away(2)];
        assert_eq!(chosen(&known), 1);
        assert_eq!(lightest(&[Look::away(0), Look::away(1)], true), None);
        assert_eq!(lightest(&[], true), None);
    }

    /// That each number comes as often as any other, at each place.
    fn is_even<const D: usize>(bound: u32) {
        let (random, rounds) = (Seeded::new(5), 20_000);
        let mut counts = vec![[0_u32; D]; bound as usize];
        for _ in 0..rounds {
            let (numbers, _) = distinct::<D>(bound, &random);
            let mut sorted = numbers;
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]) && sorted[D - 1] < bound, "{numbers:?}");
            numbers.iter().enumerate().for_each(|(place, number)| counts[*number as usize][place] += 1);
        }
        for own in &counts {
            for count in own {
                let share = f64::from(*count) * f64::from(bound) / f64::from(rounds);
                assert!((share - 1.0).abs() < 0.12, "{D} of {bound}: {share}");
            }
        }
    }

    #[test]
    fn draws_are_distinct_and_each_place_is_even() {
        is_even::<1>(3);
        is_even::<2>(2);
        is_even::<2>(7);
        is_even::<3>(3);
        is_even::<4>(4);
        is_even::<4>(20);
        is_even::<8>(8);
        is_even::<8>(20);
    }

    #[test]
    fn one_draw_in_sixteen_explores() {
        let random = Seeded::new(9);
        let explores = (0..16_000).filter(|_| distinct::<4>(10, &random).1).count();
        assert!((850..1_150).contains(&explores), "{explores}");
    }

    proptest! {
        #[test]
        fn with_one_more_in_flight_and_all_else_equal_nobody_is_preferred(
            in_flight in 0_u32..1_000, mean in 1.0_f32..1e10, weight in 0.0_f32..32.0, first in any::<bool>(),
        ) {
            let (busier, other) = (look(in_flight as f32 + 1.0, mean, weight), look(in_flight as f32, mean, weight));
            let looks = if first { [busier, other] } else { [other, busier] };
            prop_assert_eq!(chosen(&looks), usize::from(first));
        }
    }
}
