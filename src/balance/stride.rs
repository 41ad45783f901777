//! Turns by weight.

/// What the heaviest weighs.
const HEAVIEST: u64 = u16::MAX as u64;

/// Weighted round robin without a queue: the turn's number alone says whose turn it is.
///
/// Turns go round the endpoints. In each round one of weight *w* is passed over unless its share of the heaviest one's
/// weight has added up to another turn, so that in as many rounds as the weights have steps (65,535) each has exactly as many
/// turns as its weight says, spread evenly. Nothing is kept but the weights: any number of threads draw from one counter, or
/// each from its own.
///
/// ```
/// use mainstay::balance::Stride;
///
/// let stride = Stride::new(&[3.0, 1.0]).expect("weights that differ");
/// let turns: Vec<usize> = (0..16).filter_map(|turn| stride.at(turn)).collect();
/// assert_eq!(turns.iter().filter(|place| **place == 0).count(), 8);
/// ```
///
/// Source: gRPC's static stride scheduler, which its weighted round robin (gRFC A58) draws from; an earliest-deadline-first
/// queue, as Envoy has, gives the same shares at the price of a lock.
#[derive(Clone, Debug)]
pub struct Stride(Box<[u16]>);

impl Stride {
    /// A stride by these weights; one of 0 is unknown, and counts as the mean of the others. `None` where all weights are
    /// equal, or fewer than two are known: then turns simply go round.
    pub fn new(weights: &[f64]) -> Option<Self> {
        let known = || weights.iter().filter(|weight| weight.is_finite() && **weight > 0.0);
        let (heaviest, count) = (known().copied().fold(0.0, f64::max), known().count());
        if count < 2 {
            return None;
        }
        let scaled = |weight: f64| (weight / heaviest * HEAVIEST as f64).round().max(1.0) as u16;
        // Divided first, so that the sum of the largest numbers is finite.
        let mean = scaled(known().map(|weight| weight / count as f64).sum());
        let scale = |weight: &f64| if weight.is_finite() && *weight > 0.0 { scaled(*weight) } else { mean };
        let strides: Box<[u16]> = weights.iter().map(scale).collect();
        strides.iter().any(|stride| *stride != strides[0]).then_some(Self(strides))
    }

    /// Whose turn this is; `None` if it is passed over, and the next turn is to be asked for.
    #[inline]
    pub fn at(&self, turn: u64) -> Option<usize> {
        let (count, half) = (self.0.len() as u64, HEAVIEST / 2);
        let (round, place) = (turn / count, turn % count);
        let weight = u64::from(self.0[place as usize]);
        // Half a stride between neighbours, so that those of equal weight are not passed over together.
        let phase = (weight * (round % HEAVIEST) + place * half) % HEAVIEST;
        (phase >= HEAVIEST - weight).then_some(place as usize)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(stride: &Stride, picks: usize) -> Vec<usize> {
        (0..).filter_map(|turn| stride.at(turn)).take(picks).collect()
    }

    #[test]
    fn turns_are_those_of_the_formula() {
        // gRPC's: index = n % count, round = n / count, and passed over if (w * round + index * 32767) % 65535 < 65535 - w.
        let weights = [0.25, 1.0, 0.6];
        let scaled: Vec<u64> = weights.iter().map(|weight| (weight * 65_535.0_f64).round() as u64).collect();
        let stride = Stride::new(&weights).unwrap();
        for turn in 0..300_000_u64 {
            let (place, round) = (turn % 3, turn / 3);
            let weight = scaled[place as usize];
            let passed = (weight * round + place * 32_767) % 65_535 < 65_535 - weight;
            assert_eq!(stride.at(turn), (!passed).then_some(place as usize), "{turn}");
        }
    }

    #[test]
    fn equal_weights_and_too_few_need_no_stride() {
        for weights in [&[][..], &[1.0], &[2.0, 2.0, 2.0], &[0.0, 5.0], &[0.0, 0.0], &[0.0, 3.0, 3.0]] {
            assert!(Stride::new(weights).is_none(), "{weights:?}");
        }
    }

    #[test]
    fn an_unknown_weight_is_the_mean_of_the_others() {
        // gRPC's example: 200, 100 and nothing are as 200, 100 and 150.
        let stride = Stride::new(&[200.0, 100.0, 0.0]).unwrap();
        let counts = picks(&stride, 45_000).iter().fold([0; 3], |mut counts, place| {
            counts[*place] += 1;
            counts
        });
        for (count, owed) in counts.iter().zip([20_000, 10_000, 15_000]) {
            assert!(i32::abs(count - owed) <= 3, "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_cycle_has_exactly_what_the_weights_say(weights in prop::collection::vec(0.01_f64..10.0, 2..6)) {
            if let Some(stride) = Stride::new(&weights) {
                let mut counts = vec![0_u64; weights.len()];
                for turn in 0..HEAVIEST * weights.len() as u64 {
                    if let Some(place) = stride.at(turn) {
                        counts[place] += 1;
                    }
                }
                let owed: Vec<u64> = stride.0.iter().map(|weight| u64::from(*weight)).collect();
                prop_assert_eq!(counts, owed);
            }
        }

        #[test]
        fn any_stretch_is_near_its_share(
            weights in prop::collection::vec(0.05_f64..1.0, 2..8), start in 0_u64..1_000_000,
        ) {
            if let Some(stride) = Stride::new(&weights) {
                let total: u64 = stride.0.iter().map(|weight| u64::from(*weight)).sum();
                let drawn: Vec<usize> = (start..).filter_map(|turn| stride.at(turn)).take(500).collect();
                for (place, weight) in stride.0.iter().enumerate() {
                    let owed = 500.0 * f64::from(*weight) / total as f64;
                    let got = drawn.iter().filter(|drawn| **drawn == place).count() as f64;
                    prop_assert!((got - owed).abs() <= weights.len() as f64 + 2.0, "{place}: {got} for {owed}");
                }
            }
        }
    }
}
