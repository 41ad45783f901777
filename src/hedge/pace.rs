//! When hedges go out, and whether they do at all.

use std::time::{Duration, Instant};

use super::options::{Delay, HedgeOptions};
use crate::{
    budget::{Budget, BudgetOptions, Withdrawal},
    estimate::Survival,
    invalid::Invalid,
    sync::{AtomicU64, Ordering::Relaxed, Swap},
};

/// For so long a delay that was computed is used: some ten thousand loads are the price of one.
const REFRESH: Duration = Duration::from_millis(500);

/// The pace of the hedges of one client or layer: the delay, found anew twice a second, and their own share.
#[derive(Debug)]
pub(crate) struct Pace {
    epoch: Instant,
    options: Swap<HedgeOptions>,
    /// Their own share, where they have one.
    share: Budget,
    /// When the delay was found (in half seconds since the epoch, plus 1: the high half), and what it is (in us, plus 2).
    word: AtomicU64,
}

/// What part of a capacity is in use is not believed before that: at first there is no queue.
const SETTLED: Duration = Duration::from_secs(5);

/// No hedge: too little is known.
const UNKNOWN: u64 = 0;
/// No hedge: there is no room.
const NO_ROOM: u64 = 1;

/// What is known of the last minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) latencies: Survival<'a>,
    /// Over how long they were counted.
    pub(crate) over: Duration,
    /// How many attempts may be under way at a time, where that is known and the options do not say.
    pub(crate) capacity: Option<f64>,
}

/// What the pace says of a hedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// After this time.
    After(Duration),
    /// Not at all: too few latencies are known.
    Unknown,
    /// Not at all: too much of the capacity is in use.
    NoRoom,
}

impl Pace {
    pub(crate) fn new(options: &HedgeOptions, epoch: Instant) -> Result<Self, Invalid> {
        options.validate()?;
        Ok(Self {
            epoch,
            share: Budget::starting(own(options), epoch)?,
            options: Swap::new(options.clone()),
            word: AtomicU64::new(0),
        })
    }

    /// Replaces the options. What was counted stays.
    pub(crate) fn set(&self, options: &HedgeOptions) {
        self.share.update(&own(options)).expect("the window is always the same");
        self.options.store(options.clone());
        self.word.store(0, Relaxed);
    }

    pub(crate) fn max_attempts(&self) -> u32 {
        self.options.load().max_attempts
    }

    /// When the next attempt is due after the one before it. `look` is asked when what was found is out of date; whether there
    /// was room before, and is now, is told to `turned` where it has changed.
    pub(crate) fn due<'a>(
        &self,
        now: Instant,
        look: impl FnOnce(&dyn Fn(Seen<'_>) -> Due) -> Due,
        turned: impl FnOnce(Due) + 'a,
    ) -> Due {
        let passed = now.saturating_duration_since(self.epoch).as_millis() / REFRESH.as_millis();
        let tick = (passed as u64 + 1) & 0xFFFF_FFFF;
        let found = self.word.load(Relaxed);
        if found >> 32 == tick {
            return unpack(found & 0xFFFF_FFFF);
        }
        let options = self.options.load();
        let due = look(&|seen| decide(&options, seen, self.share.drawn(now)));
        let next = tick << 32 | pack(due);
        // Of those who find it out of date at once, one tells.
        let won = self.word.compare_exchange(found, next, Relaxed, Relaxed).is_ok();
        let had_room = found & 0xFFFF_FFFF != NO_ROOM;
        if won && had_room == (due == Due::NoRoom) {
            turned(due);
        }
        due
    }

    /// The delay that was found last, for status.
    pub(crate) fn last(&self) -> Option<Duration> {
        let found = self.word.load(Relaxed);
        match unpack(found & 0xFFFF_FFFF) {
            Due::After(delay) if found != 0 => Some(delay),
            _ => None,
        }
    }

    /// One more request is being waited for: it pays into the share of the hedges.
    pub(crate) fn waited_for(&self, now: Instant) {
        self.share.deposit(now);
    }

    /// What one more hedge that time has called for takes out of their own share.
    pub(crate) fn withdraw(&self, now: Instant) -> Option<Option<Withdrawal>> {
        if self.options.load().share.is_none() {
            return Some(None);
        }
        self.share.withdraw(now).map(Some)
    }
}

/// The share of the hedges, as a budget without a reserve: its window is as long as that of retries.
fn own(options: &HedgeOptions) -> BudgetOptions {
    BudgetOptions::default().share(options.share.unwrap_or(crate::Ratio::ZERO)).reserve(0)
}

/// `hedged` is how many hedges there were for each request of late.
fn decide(options: &HedgeOptions, seen: Seen<'_>, hedged: f64) -> Due {
    let capacity = options.capacity.map(f64::from).or(seen.capacity);
    if capacity.is_some() && seen.over < SETTLED {
        return Due::Unknown;
    }
    // What is affordable is what the capacity has over the load of the first attempts.
    let spare = capacity.map_or(f64::INFINITY, |capacity| {
        options.max_utilisation.get() * (1.0 + hedged) / utilisation(seen, capacity) - 1.0
    });
    if spare <= 0.0 {
        return Due::NoRoom;
    }
    match (options.delay, options.percentile(spare)) {
        (Delay::Fixed(delay), _) => Due::After(delay),
        (_, Some(_)) if seen.latencies.total() < u64::from(options.samples) => Due::Unknown,
        (_, Some(percentile)) => seen.latencies.quantile(percentile).map_or(Due::Unknown, Due::After),
        (_, None) => Due::Unknown,
    }
}

/// By Little's law: the mean number of attempts under way is the time that they took by the time that has passed.
fn utilisation(seen: Seen<'_>, capacity: f64) -> f64 {
    let passed = seen.over.as_secs_f64();
    if passed > 0.0 { seen.latencies.spent().as_secs_f64() / passed / capacity.max(1.0) } else { 0.0 }
}

fn pack(due: Due) -> u64 {
    match due {
        Due::Unknown => UNKNOWN,
        Due::NoRoom => NO_ROOM,
        // What is longer than an hour is as good as never.
        Due::After(delay) => delay.as_micros().min(0xFFFF_FFFF - 2) as u64 + 2,
    }
}

fn unpack(word: u64) -> Due {
    match word {
        UNKNOWN => Due::Unknown,
        NO_ROOM => Due::NoRoom,
        micros => Due::After(Duration::from_micros(micros - 2)),
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::{
        Ratio,
        estimate::{Counts, Histogram},
    };

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn counts(latencies: impl IntoIterator<Item = Duration>) -> Counts {
        let histogram = Histogram::new();
        latencies.into_iter().for_each(|latency| histogram.record(latency));
        histogram.counts()
    }

    fn spend_all(pace: &Pace, now: Instant) -> usize {
        let mut taken = 0;
        while let Some(withdrawal) = pace.withdraw(now) {
            if let Some(withdrawal) = withdrawal {
                withdrawal.spend();
            }
            taken += 1;
        }
        taken
    }

    fn decided(options: &HedgeOptions, ended: &Counts, capacity: Option<f64>) -> Due {
        let none = Counts::default();
        decide(options, Seen { latencies: Survival::new(ended, &none), over: SECOND * 10, capacity }, 0.0)
    }

    #[test]
    fn the_delay_is_the_percentile_that_half_of_the_share_exceeds() {
        let ended = counts((1..=1_000).map(|n| MS * n));
        let at = |share: f64| {
            let options = HedgeOptions::default().share(Ratio::new(share).unwrap());
            decided(&options, &ended, None)
        };
        for (share, percentile) in [(0.02, 0.99), (0.1, 0.95), (0.5, 0.75)] {
            assert_eq!(at(share), Due::After(ended.quantile(percentile).unwrap()));
        }
    }

    #[test]
    fn few_latencies_say_nothing_about_a_percentile_and_a_fixed_delay_needs_none() {
        let (options, few) = (HedgeOptions::default(), counts([MS; 99]));
        assert_eq!(decided(&options, &few, None), Due::Unknown);
        assert!(matches!(decided(&options, &counts([MS; 100]), None), Due::After(_)));
        let fixed = options.delay(Delay::Fixed(MS * 7));
        assert_eq!(decided(&fixed, &Counts::default(), None), Due::After(MS * 7));
    }

    #[test]
    fn there_is_no_room_when_more_than_its_share_of_the_capacity_was_in_use() {
        // 1,000 attempts of 100 ms in ten seconds are ten at a time.
        let (options, ended) = (HedgeOptions::default(), counts([MS * 100; 1_000]));
        assert_eq!(decided(&options, &ended, Some(10.0)), Due::NoRoom);
        assert!(matches!(decided(&options, &ended, Some(14.0)), Due::After(_)));
    }

    #[test]
    fn a_large_share_shrinks_to_what_is_to_spare() {
        // Ten at a time: of 25 there may be 20, which is as much again; of 14 there may be 11.2, of which half is used.
        let ended = counts((1..=1_000).map(|n| MS * n / 5));
        let options = HedgeOptions::default().share(Ratio::percent::<50>());
        let at = |capacity| decided(&options, &ended, Some(capacity));
        assert_eq!(at(25.0), Due::After(ended.quantile(0.75).unwrap()));
        assert_eq!(at(14.0), Due::After(ended.quantile(0.945).unwrap()));
        assert_eq!(decided(&options.clone().capacity(12), &ended, Some(25.0)), Due::NoRoom);
    }

    #[test]
    fn what_was_found_is_used_for_half_a_second_and_a_turn_is_told_once() {
        let epoch = crate::clock::now();
        let pace = Pace::new(&HedgeOptions::default(), epoch).unwrap();
        let (looks, turns) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let ask = |at: Duration, due: Due| {
            let look = |_: &dyn Fn(Seen<'_>) -> Due| {
                looks.set(looks.get() + 1);
                due
            };
            pace.due(epoch + at, look, |_| turns.set(turns.get() + 1))
        };
        assert_eq!(ask(MS, Due::After(MS)), Due::After(MS));
        assert_eq!(ask(MS * 499, Due::NoRoom), Due::After(MS));
        assert_eq!((looks.get(), turns.get()), (1, 0));
        assert_eq!(ask(MS * 500, Due::NoRoom), Due::NoRoom);
        assert_eq!(ask(MS * 1_000, Due::NoRoom), Due::NoRoom);
        assert_eq!((looks.get(), turns.get(), pace.last()), (3, 1, None));
        assert_eq!(ask(MS * 1_500, Due::After(MS * 2)), Due::After(MS * 2));
        assert_eq!((turns.get(), pace.last()), (2, Some(MS * 2)));
    }

    #[test]
    fn hedges_are_never_more_than_their_share_of_what_was_waited_for() {
        let epoch = crate::clock::now();
        let pace = Pace::new(&HedgeOptions::default(), epoch).unwrap();
        (0..1_000).for_each(|_| pace.waited_for(epoch));
        let granted = spend_all(&pace, epoch);
        assert_eq!(granted, 20);
    }

    #[test]
    fn new_options_act_at_once_and_keep_what_was_counted() {
        let epoch = crate::clock::now();
        let pace = Pace::new(&HedgeOptions::default(), epoch).unwrap();
        (0..100).for_each(|_| pace.waited_for(epoch));
        let fixed = HedgeOptions::default().delay(Delay::Fixed(MS)).share(Ratio::new(0.1).unwrap());
        pace.set(&fixed);
        let none = Counts::default();
        let seen = Seen { latencies: Survival::new(&none, &none), over: SECOND, capacity: None };
        assert_eq!(pace.due(epoch, |decide| decide(seen), |_| {}), Due::After(MS));
        assert_eq!(spend_all(&pace, epoch), 10);
    }
}
