//! Draws by weight in constant time.

/// Walker's alias table, built by Vose's method: a slot drawn uniformly holds one index or its alias.
#[derive(Debug)]
pub(crate) struct Alias(Box<[Slot]>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The slot's own index is taken if 32 random bits are below this.
    keep: u32,
    alias: u32,
}

impl Alias {
    /// A table for `weights`, all positive and finite.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let count = weights.len();
        let total: f64 = weights.iter().sum();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * count as f64 / total).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|index| shares[*index] < 1.0);
        let mut slots: Vec<Slot> =
            (0..count).map(|index| Slot { keep: u32::MAX, alias: index as u32 }).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
            slots[low] = Slot { keep: (shares[low] * f64::from(u32::MAX)) as u32, alias: high as u32 };
            shares[high] -= 1.0 - shares[low];
            if shares[high] < 1.0 { small.push(high) } else { large.push(high) }
        }
        // What is left over is 1 but for rounding: it keeps its own index.
        Self(slots.into())
    }

    /// The index that 64 random bits draw.
    #[inline]
    pub(crate) fn draw(&self, word: u64) -> usize {
        let index = crate::random::below(word as u32, self.0.len() as u32);
        let slot = self.0[index as usize];
        (if (word >> 32) as u32 <= slot.keep { index } else { slot.alias }) as usize
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Random as _, Seeded};

    proptest! {
        #[test]
        fn draws_follow_the_weights(weights in prop::collection::vec(0.01_f64..100.0, 1..20), seed in any::<u64>()) {
            let (alias, random) = (Alias::new(&weights), Seeded::new(seed));
            const DRAWS: usize = 40_000;
            let mut seen = vec![0_usize; weights.len()];
            for _ in 0..DRAWS {
                seen[alias.draw(random.next())] += 1;
            }
            let total: f64 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let expected = weight / total;
                let got = seen[index] as f64 / DRAWS as f64;
                let sigma = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
                prop_assert!((got - expected).abs() < 6.0 * sigma + 1e-3, "{index}: {got} for {expected}");
            }
        }
    }
}
