//! What a server has said of itself last, as far as picks go by it.

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// So much of the time that a request takes alone each request of others adds to it: what a server with five slots does, and
/// near enough what those with more or fewer do, while nobody says how many it has.
///
/// Requests of one's own count whole at a pick, though they take no more time there: clients that all know the same would
/// otherwise run to the same server. Chosen in the lab's `noisy_fleet` and `halves`, where 0.1 to 0.3 do alike.
const SLOWS: f32 = 0.2;

/// More than so many make no more of a difference: a server that tells nonsense is not taken for a thousand times as fast.
const MOST: u32 = 1_000;

/// A report holds for so many answers without one: the server may have been replaced by one that tells nothing.
const HOLDS: u32 = 16;

/// By how much so many requests there make another one take longer.
#[inline]
pub(crate) fn slowed(requests: u32) -> f32 {
    1.0 + SLOWS * requests.min(MOST) as f32
}

const COUNT: u32 = (1 << 24) - 1;
const ANSWER: u32 = 1 << 24;

/// What others have in flight at a server by its own word: one word, with how many answers came since without one.
///
/// Two answers at once may each overwrite the other's, as they may overtake each other on the way.
#[derive(Debug)]
pub(crate) struct Told(AtomicU32);

impl Told {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The server has so many requests in flight besides the one that it answers; `own` of them are this client's.
    pub(crate) fn report(&self, in_flight: u32, own: u32) {
        self.0.store(in_flight.saturating_sub(own).min(COUNT - 1) + 1, Relaxed);
    }

    /// An answer has come that says nothing.
    pub(crate) fn silence(&self) {
        let word = self.0.load(Relaxed);
        if word & COUNT != 0 {
            let next = if word / ANSWER >= HOLDS - 1 { 0 } else { word + ANSWER };
            self.0.store(next, Relaxed);
        }
    }

    /// How many requests of others there are.
    #[inline]
    pub(crate) fn others(&self) -> Option<u32> {
        (self.0.load(Relaxed) & COUNT).checked_sub(1)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_there_is_what_is_not_ones_own() {
        let told = Told::new();
        assert_eq!(told.others(), None);
        told.report(7, 3);
        assert_eq!(told.others(), Some(4));
        // Of what is on its way the server knows nothing yet.
        told.report(2, 3);
        assert_eq!(told.others(), Some(0));
        told.report(u32::MAX, 0);
        assert_eq!(told.others(), Some(COUNT - 1));
    }

    #[test]
    fn a_number_beyond_reason_counts_as_a_thousand() {
        assert_eq!((slowed(0), slowed(5)), (1.0, 2.0));
        assert_eq!(slowed(u32::MAX), slowed(MOST));
    }

    #[test]
    fn a_report_is_forgotten_after_sixteen_answers_without_one() {
        let told = Told::new();
        told.silence();
        assert_eq!(told.others(), None);
        told.report(5, 0);
        for _ in 0..HOLDS - 1 {
            told.silence();
            assert_eq!(told.others(), Some(5));
        }
        told.silence();
        assert_eq!(told.others(), None);
        told.report(5, 0);
        (0..HOLDS - 1).for_each(|_| told.silence());
        told.report(6, 0);
        told.silence();
        assert_eq!(told.others(), Some(6), "it counts from the last one");
    }
}
