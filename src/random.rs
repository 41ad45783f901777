//! Chance, injected.
//!
//! Every algorithm that draws takes a [`Random`], so that a seed replays a run. [`Entropy`] is what clients use unless
//! told otherwise; [`Seeded`] is for tests and simulations.

use std::{cell::Cell, fmt};

use rand::TryRng as _;

use crate::sync::{AtomicU64, Ordering};

/// A source of uniformly distributed 64-bit words. It may be shared by threads.
pub trait Random: Send + Sync + 'static {
    /// The next word.
    fn next(&self) -> u64;
}

/// A small fast generator per thread, each seeded by the operating system: no two threads, clients or processes share
/// a sequence.
///
/// It is wyrand: a counter and one wide multiplication. Draws are on the way of every request, and need to be fast and
/// evenly spread, not unpredictable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy;

thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });

#[cold]
fn from_system() -> u64 {
    // A machine without entropy at start-up still gets distinct sequences: the address of a stack value and the thread.
    rand::rngs::SysRng.try_next_u64().unwrap_or_else(|_| {
        let salt = 0_u8;
        (&raw const salt as u64) ^ (crate::sync::stripe() as u64).rotate_left(32)
    }) | 1
}

impl Random for Entropy {
    #[inline]
    fn next(&self) -> u64 {
        STATE.with(|state| {
            let mut word = state.get();
            if word == 0 {
                word = from_system();
            }
            let next = word.wrapping_add(0xA076_1D64_78BD_642F);
            state.set(next);
            let wide = u128::from(next) * u128::from(next ^ 0xE703_7ED1_A0B4_28DB);
            (wide >> 64) as u64 ^ wide as u64
        })
    }
}

/// SplitMix64 from a seed: the same seed gives the same sequence. Threads that share one interleave it.
pub struct Seeded(AtomicU64);

impl Seeded {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for Seeded {
    fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mut word = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seeded").finish_non_exhaustive()
    }
}

/// A number in `[0, 1)` with 53 bits.
#[inline]
pub(crate) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number in `[0, bound)` from the 32 low bits of `word`; 0 for a bound of 0.
///
/// The bias is at most `bound / 2^32`.
#[inline]
pub(crate) fn below(word: u32, bound: u32) -> u32 {
    ((u64::from(word) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_its_sequence_and_another_seed_does_not() {
        let (a, b, c) = (Seeded::new(1), Seeded::new(1), Seeded::new(2));
        let (xs, ys, zs): (Vec<_>, Vec<_>, Vec<_>) = (
            (0..8).map(|_| a.next()).collect(),
            (0..8).map(|_| b.next()).collect(),
            (0..8).map(|_| c.next()).collect(),
        );
        assert_eq!(xs, ys);
        assert_ne!(xs, zs);
    }

    #[test]
    fn two_threads_do_not_share_a_sequence() {
        let draw = || std::thread::spawn(|| (0..4).map(|_| Entropy.next()).collect::<Vec<_>>()).join();
        assert_ne!(draw().ok(), draw().ok());
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        assert_eq!(below(u32::MAX, 7), 6);
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u32::MAX, 0), 0);
        assert!(unit(u64::MAX) < 1.0);
        assert!(unit(0) >= 0.0);
    }
}
