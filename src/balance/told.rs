//! What a server has said of itself last, as far as picks go by it.

use crate::{
    Ratio,
    sync::{AtomicU32, Ordering::Relaxed},
};

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

/// What was said beside answers holds until so many more questions should have been asked: a few answers without one say
/// nothing, where one is asked for ten of them.
///
/// For how many answers that is, where one is asked for such a share of them.
pub(crate) fn beside(share: Ratio) -> u32 {
    if share > Ratio::ZERO { (f64::from(HOLDS) / share.get()).min(f64::from(LONGEST)) as u32 } else { HOLDS }
}

const COUNT: u32 = (1 << 16) - 1;
const ANSWER: u32 = 1 << 16;
const LONGEST: u32 = (1 << 15) - 1;
/// It was said beside answers.
const BESIDE: u32 = 1 << 31;

fn others(in_flight: u32, own: u32) -> u32 {
    in_flight.saturating_sub(own).min(COUNT - 1) + 1
}

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
    ///
    /// Whether nothing was known before: of two at once one finds that.
    pub(crate) fn report(&self, in_flight: u32, own: u32) -> bool {
        self.0.swap(others(in_flight, own), Relaxed) & COUNT == 0
    }

    /// The same, said beside answers.
    pub(crate) fn report_beside(&self, in_flight: u32, own: u32) -> bool {
        self.0.swap(others(in_flight, own) | BESIDE, Relaxed) & COUNT == 0
    }

    /// An answer has come that says nothing. What was said [`beside`] answers holds for so many of them.
    ///
    /// How many others there were, if that is not known any more: of two at once one finds that.
    pub(crate) fn silence(&self, beside: impl FnOnce() -> u32) -> Option<u32> {
        let word = self.0.load(Relaxed);
        let others = (word & COUNT).checked_sub(1)?;
        let most = if word & BESIDE == 0 { HOLDS } else { beside() };
        let lapses = (word & !BESIDE) / ANSWER + 1 >= most;
        let next = if lapses { 0 } else { word + ANSWER };
        let won = self.0.compare_exchange(word, next, Relaxed, Relaxed).is_ok();
        (won && lapses).then_some(others)
    }

    /// Forgets it. How many others there were, if that was known.
    pub(crate) fn forget(&self) -> Option<u32> {
        (self.0.swap(0, Relaxed) & COUNT).checked_sub(1)
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

    fn never() -> u32 {
        unreachable!("it was said on an answer")
    }

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
        told.silence(never);
        assert_eq!(told.others(), None);
        told.report(5, 0);
        for _ in 0..HOLDS - 1 {
            told.silence(never);
            assert_eq!(told.others(), Some(5));
        }
        told.silence(never);
        assert_eq!(told.others(), None);
        told.report(5, 0);
        for _ in 0..HOLDS - 1 {
            told.silence(never);
        }
        told.report(6, 0);
        told.silence(never);
        assert_eq!(told.others(), Some(6), "it counts from the last one");
    }

    #[test]
    fn what_is_forgotten_is_told_once() {
        let told = Told::new();
        told.report(5, 1);
        assert_eq!((told.forget(), told.others(), told.forget()), (Some(4), None, None));
    }

    #[test]
    fn that_it_begins_is_told_once_and_that_it_ceases() {
        let told = Told::new();
        assert_eq!([told.report(5, 0), told.report(6, 0), told.report_beside(7, 0)], [true, false, false]);
        let silent = |_| told.silence(|| 3);
        assert_eq!([0; 4].map(silent), [None, None, Some(7), None]);
        assert!(told.report_beside(0, 0));
    }

    #[test]
    fn what_was_said_beside_answers_holds_for_as_many_more_of_them_as_are_asked_about_seldom() {
        for (share, answers) in [
            (Ratio::ONE, 16),
            (Ratio::percent::<10>(), 160),
            (Ratio::new(1e-9).unwrap(), LONGEST),
            (Ratio::ZERO, 16),
        ] {
            let told = Told::new();
            told.report_beside(5, 2);
            for _ in 1..answers {
                told.silence(|| beside(share));
                assert_eq!(told.others(), Some(3), "{share:?}");
            }
            told.silence(|| beside(share));
            assert_eq!(told.others(), None, "{share:?}");
        }
        let told = Told::new();
        told.report_beside(5, 0);
        told.report(6, 0);
        let lapsed: Vec<_> = (0..HOLDS).filter_map(|_| told.silence(never)).collect();
        assert_eq!((told.others(), lapsed), (None, vec![6]), "the last one counts");
    }
}
