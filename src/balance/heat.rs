//! Hot and cold endpoints: Prequal's rule.
//!
//! Source: Wydrowski and others, "Load is not what you should balance: introducing Prequal" (NSDI 2024), without its probes: what is known is what
//! responses show, and what servers say on them.

use super::{
    choice::{HANDICAP, Look, prior},
    options::MOST_CHOICES,
};
use crate::sync::{AtomicU32, Ordering::Relaxed, Padded, stripe, stripes};

/// By how much a look moves the border, as a part of where it is: it follows a change within some fifty picks.
const STEP: f32 = 0.05;
/// It never lies so low that it cannot move.
const LOWEST: f32 = 0.1;

/// From how many requests in flight on an endpoint is hot: a quantile of what picks see, which each moves a little.
///
/// Each thread has its own, so that picks on different threads write no common word. What two picks on one stripe see at once may
/// count once.
#[derive(Debug)]
pub(crate) struct Heat(Box<[Padded<AtomicU32>]>);

impl Heat {
    pub(crate) fn new() -> Self {
        Self((0..stripes()).map(|_| Padded(AtomicU32::new(0))).collect())
    }

    /// The endpoint for a request, and what was seen moves the border: `cold` of all endpoints are to lie at or under it.
    ///
    /// An endpoint is hot where more is in flight than at the border. The fastest of the cold ones is taken; where all are hot,
    /// the one with the least in flight by its share. Each mean is drawn towards that of all, as in the default rule.
    pub(super) fn choose<'a>(&self, looks: &'a [Look], cold: f32, explores: bool) -> Option<&'a Look> {
        let own = &self.0[stripe() & (self.0.len() - 1)].0;
        let border = f32::from_bits(own.load(Relaxed));
        let (mut above, mut seen) = (0.0_f32, 0.0_f32);
        for look in looks.iter().filter(|look| look.in_flight.is_finite()) {
            seen += 1.0;
            above += f32::from(u8::from(look.in_flight * look.by_share > border));
        }
        if seen > 0.0 {
            // Of a look at all there are no more than of one at a few: it would throw the border far away.
            let looks = seen.min(MOST_CHOICES as f32);
            let moved = border + STEP * border.max(LOWEST) * looks * (above / seen - (1.0 - cold));
            own.store(moved.max(0.0).to_bits(), Relaxed);
        }
        coolest(looks, border, explores)
    }
}

/// A cold one is faster than another if it takes less than this part of the time, as by the default rule among idle ones: those
/// that are alike share what comes, and of two at 10 and 12 ms both see requests.
const CLEARLY: f32 = 1.0 / (1.0 + HANDICAP);

fn coolest(looks: &[Look], border: f32, explores: bool) -> Option<&Look> {
    let first = looks.first()?;
    if explores && first.is_silent && first.in_flight == 0.0 {
        return Some(first);
    }
    let prior = prior(looks).unwrap_or(0.0);
    let load = |look: &Look| look.in_flight * look.by_share;
    let is_hot = |look: &Look| load(look) > border;
    let mut usable = looks.iter().filter(|look| look.in_flight.is_finite());
    let mut best = usable.next()?;
    for look in usable {
        let is_better = match (is_hot(look), is_hot(best)) {
            (true, true) => load(look) < load(best),
            (false, false) => look.latency(prior) < best.latency(prior) * CLEARLY,
            (hot, _) => !hot,
        };
        if is_better {
            best = look;
        }
    }
    Some(best)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    fn look(in_flight: f32, mean: f32) -> Look {
        Look { index: 0, in_flight, by_share: 1.0, mean, weight: 32.0, is_silent: false }
    }

    fn chosen(looks: &[Look], border: f32) -> Option<usize> {
        let best = coolest(looks, border, false)?;
        looks.iter().position(|look| std::ptr::eq(look, best))
    }

    #[test]
    fn of_the_cold_ones_the_fastest_is_taken_whatever_is_in_flight_there() {
        assert_eq!(chosen(&[look(0.0, 2e7), look(3.0, 1e7)], 3.0), Some(1));
    }

    #[test]
    fn where_all_are_hot_the_least_in_flight_is_taken_by_its_share() {
        assert_eq!(chosen(&[look(4.0, 1e7), look(5.0, 1e6)], 3.0), Some(0));
        let small = Look { by_share: 2.0, ..look(4.0, 1e7) };
        assert_eq!(chosen(&[small, look(5.0, 1e7)], 3.0), Some(1));
    }

    #[test]
    fn a_cold_one_goes_before_a_hot_one_and_none_that_may_not_be_used_is_taken() {
        assert_eq!(chosen(&[look(4.0, 1e6), look(3.0, 1e8)], 3.0), Some(1));
        assert_eq!(chosen(&[Look::away(0), look(9.0, 1e8)], 3.0), Some(1));
        assert_eq!(chosen(&[Look::away(0), Look::away(1)], 3.0), None);
        assert_eq!(chosen(&[], 3.0), None);
    }

    #[test]
    fn the_border_comes_to_lie_where_the_share_says() {
        let (heat, random) = (Heat::new(), crate::random::Seeded::new(7));
        let draw = || (crate::random::Random::next(&random) % 100) as f32;
        for _ in 0..20_000 {
            let looks: [Look; 4] = std::array::from_fn(|_| look(draw(), 1e7));
            heat.choose(&looks, 0.84, false);
        }
        let border = f32::from_bits(heat.0[stripe() & (heat.0.len() - 1)].0.load(Relaxed));
        assert!((70.0..98.0).contains(&border), "{border}");
    }

    #[test]
    fn a_look_at_all_moves_the_border_no_farther_than_one_at_a_few() {
        for in_flight in [1.0, 9.0] {
            let moved = [8, 1_000].map(|count| {
                let heat = Heat::new();
                heat.0.iter().for_each(|own| own.0.store(4.0_f32.to_bits(), Relaxed));
                heat.choose(&vec![look(in_flight, 1e7); count], 0.84, false);
                f32::from_bits(heat.0[stripe() & (heat.0.len() - 1)].0.load(Relaxed))
            });
            assert!((moved[0] - moved[1]).abs() < 1e-3, "{moved:?}");
        }
    }
}
