//! Endpoints that have answered of late: a small pool, kept by the responses.
//!
//! Source: the pool of probes in Wydrowski and others, "Load is not what you should balance: introducing Prequal" (NSDI 2024), with
//! its size, its age and its one use; here answers stand in it, which cost nothing.

use super::{fleet::Stamp, pool::Pool};
use crate::sync::{AtomicU64, Ordering::Relaxed, Padded, stripe, stripes};

/// So many endpoints stand in the pool of a thread.
const SLOTS: usize = 16;

/// A tick is 2^20 ns, about a millisecond: 32 bits of them go round in 52 days.
const TICK_BITS: u32 = 20;

/// The endpoints that have answered last, each until it is given the next request.
///
/// Each thread has its own, so that picks on different threads write no common word. An endpoint has one slot; where all are
/// taken it gets that of whoever has answered longest ago, so that none is better off by where it stands. Two notes at once on
/// one stripe may lose one, or give an endpoint two slots: a request empties one, and the other grows old. A place that is
/// another endpoint's by now, after a new resolution, is one drawn at random.
#[derive(Debug)]
pub(crate) struct Answered(Box<[Padded<[AtomicU64; SLOTS]>]>);

impl Answered {
    pub(crate) fn new() -> Self {
        let slots = || std::array::from_fn(|_| AtomicU64::new(0));
        Self((0..stripes()).map(|_| Padded(slots())).collect())
    }

    fn own(&self) -> &[AtomicU64; SLOTS] {
        &self.0[stripe() & (self.0.len() - 1)].0
    }

    /// The endpoint at `place` of the snapshot has answered, so many nanoseconds after the epoch.
    pub(crate) fn note(&self, place: u32, nanos: u64) {
        put(self.own(), place, nanos);
    }

    /// The same, said to all threads.
    pub(crate) fn note_everywhere(&self, place: u32, nanos: u64) {
        for own in &self.0 {
            put(&own.0, place, nanos);
        }
    }

    /// The endpoint at `place` of the snapshot is given a request.
    pub(crate) fn take(&self, place: u32) {
        let own = self.own().iter().find(|slot| slot.load(Relaxed) >> 32 == named(place));
        if let Some(slot) = own {
            slot.store(0, Relaxed);
        }
    }

    /// Puts places within `pool` that have answered within so many [`ticks`] in front of those that were drawn, as many as there
    /// are, in an order that `word` decides. What was distinct stays so.
    pub(super) fn draw<const D: usize>(
        &self,
        word: u64,
        now: Stamp,
        within: u32,
        pool: &Pool,
        drawn: &mut [u32; D],
    ) {
        let own = self.own();
        // An odd step goes through all slots.
        let (first, step) = (word as usize, (word >> 8) as usize | 1);
        let slots =
            (0..SLOTS).map(|turn| own[first.wrapping_add(turn.wrapping_mul(step)) % SLOTS].load(Relaxed));
        let places = slots.filter(|slot| *slot != 0 && age(*slot, now.nanos) <= i64::from(within));
        let places = places.map(|slot| ((slot >> 32) as u32).wrapping_sub(1).wrapping_sub(pool.start));
        for (turn, place) in (0..D).zip(places.filter(|place| *place < pool.len)) {
            // Who was drawn already comes to the front, and nobody is lost: of a few all are looked at.
            match drawn.iter().position(|one| *one == place) {
                Some(other) => drawn.swap(turn, other),
                None => drawn[turn] = place,
            }
        }
    }
}

/// How many ticks that is: at least 1.
pub(crate) fn ticks(time: std::time::Duration) -> u32 {
    let most = i32::MAX as u128;
    (time.as_nanos() >> TICK_BITS).clamp(1, most) as u32
}

fn named(place: u32) -> u64 {
    u64::from(place) + 1
}

/// It keeps its slot; else it gets an empty one, or that of whoever has answered longest ago.
fn put(own: &[AtomicU64; SLOTS], place: u32, nanos: u64) {
    let word = named(place) << 32 | u64::from((nanos >> TICK_BITS) as u32);
    let (mut found, mut oldest) = (&own[0], i64::MIN);
    for slot in own {
        let there = slot.load(Relaxed);
        if there >> 32 == named(place) {
            // What stands there already is not written again: others read that line.
            if there != word {
                slot.store(word, Relaxed);
            }
            return;
        }
        let age = if there == 0 { i64::MAX } else { age(there, nanos) };
        if age > oldest {
            (found, oldest) = (slot, age);
        }
    }
    found.store(word, Relaxed);
}

/// In ticks; what comes from a thread that is ahead is new.
fn age(slot: u64, nanos: u64) -> i64 {
    i64::from(((nanos >> TICK_BITS) as u32).wrapping_sub(slot as u32) as i32)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NONE: u32 = u32::MAX;

    fn at(nanos: u64) -> Stamp {
        Stamp { at: crate::clock::now(), nanos }
    }

    fn drawn<const D: usize>(answered: &Answered, nanos: u64, start: u32, len: u32) -> Vec<u32> {
        let pool = Pool { start, len, ..Pool::default() };
        let mut drawn = [NONE; D];
        answered.draw(0x0301, at(nanos), ticks(Duration::from_secs(1)), &pool, &mut drawn);
        let mut found: Vec<u32> = drawn.into_iter().filter(|place| *place != NONE).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn who_has_answered_is_drawn_until_it_is_given_a_request_or_a_second_has_passed() {
        let answered = Answered::new();
        assert!(drawn::<4>(&answered, 0, 0, 20).is_empty());
        answered.note(3, SECOND);
        answered.note(17, SECOND + SECOND / 2);
        assert_eq!(drawn::<4>(&answered, SECOND + SECOND / 2, 0, 20), [3, 17]);
        assert_eq!(drawn::<1>(&answered, SECOND + SECOND / 2, 0, 20).len(), 1);
        answered.take(3);
        assert_eq!(drawn::<4>(&answered, SECOND + SECOND / 2, 0, 20), [17]);
        assert!(drawn::<4>(&answered, 2 * SECOND + SECOND / 2 + (2 << TICK_BITS), 0, 20).is_empty());
    }

    #[test]
    fn who_comes_when_all_slots_are_taken_gets_that_of_the_oldest_and_only_its_own_request_empties_it() {
        let answered = Answered::new();
        let tick = 1 << TICK_BITS;
        (0..16).for_each(|place| answered.note(place, u64::from(place) * tick));
        answered.note(0, 16 * tick);
        answered.note(17, 17 * tick);
        let all = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17];
        assert_eq!(drawn::<16>(&answered, 17 * tick, 0, 20), all);
        answered.take(1);
        assert_eq!(drawn::<16>(&answered, 17 * tick, 0, 20), all);
        answered.take(17);
        assert_eq!(drawn::<16>(&answered, 17 * tick, 0, 20), all[..15]);
    }

    #[test]
    fn a_pool_draws_its_own_only_and_by_their_places_in_it() {
        let answered = Answered::new();
        (0..8).for_each(|place| answered.note(place, 0));
        assert_eq!(drawn::<8>(&answered, 0, 5, 2), [0, 1]);
    }

    #[test]
    fn who_is_drawn_anyway_comes_to_the_front_and_takes_nobodys_place() {
        let (answered, pool) = (Answered::new(), Pool { len: 4, ..Pool::default() });
        answered.note(3, 0);
        answered.note(1, 0);
        for word in 0..0x1000 {
            let mut drawn = [0, 1, 2, 3];
            answered.draw(word, at(0), 1, &pool, &mut drawn);
            assert!(matches!(drawn[..2], [1, 3] | [3, 1]), "{drawn:?}");
            drawn.sort_unstable();
            assert_eq!(drawn, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn time_that_runs_backwards_and_a_clock_that_has_gone_round_make_nothing_old() {
        let answered = Answered::new();
        answered.note(1, SECOND);
        assert_eq!(drawn::<4>(&answered, 0, 0, 20), [1]);
        let (answered, round) = (Answered::new(), 1 << (32 + TICK_BITS));
        answered.note(2, round - SECOND / 4);
        assert_eq!(drawn::<4>(&answered, round + SECOND / 4, 0, 20), [2]);
    }

    #[test]
    fn a_time_is_at_least_a_tick_and_at_most_what_can_be_told() {
        assert_eq!(ticks(Duration::from_nanos(1)), 1);
        assert_eq!(ticks(Duration::from_secs(1)), 953);
        assert_eq!(ticks(Duration::MAX), i32::MAX as u32);
    }

    #[test]
    fn every_slot_comes_first_as_often() {
        let (answered, pool) = (Answered::new(), Pool { len: 16, ..Pool::default() });
        (0..16).for_each(|place| answered.note(place, 0));
        let random = crate::random::Seeded::new(3);
        let mut counts = [0_u32; 16];
        for _ in 0..16_000 {
            let mut drawn = [NONE; 2];
            answered.draw(crate::random::Random::next(&random), at(0), 1, &pool, &mut drawn);
            drawn.iter().for_each(|place| counts[*place as usize] += 1);
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }
}
