//! Sums up what requests show, round by round, for a controller.

use std::{fmt, sync::TryLockError, time::Duration};

use super::{
    Algorithm,
    control::{Controller, Round},
};
use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64, Mutex,
    Ordering::{Acquire, Relaxed, Release},
    Padded, stripe, stripes,
};

/// How a request ended, for who decides how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It was answered after so long.
    Took(Duration),
    /// It was given up after more than the usual time: it took at least so long.
    GivenUp(Duration),
    /// It met overload.
    Dropped,
    /// Nothing that matters here.
    Nothing,
}

/// A stripe's word: 24 bits of how many, 40 bits of microseconds in all.
const ONE: u64 = 1 << 40;
const MICROS: u64 = ONE - 1;

/// Counts on words of the thread's own; the one that finds the round to be over closes it, if nobody else is at it.
///
/// A sample that is counted while its round is being closed is in that round or in the next, and in one of them only.
pub(crate) struct Meter {
    on: AtomicBool,
    sums: Box<[Padded<Sums>]>,
    least: AtomicU64,
    most: AtomicU32,
    given_up: AtomicU64,
    dropped: AtomicU64,
    /// When the round may be closed, in nanoseconds since the epoch of whoever asks.
    ends: AtomicU64,
    /// The mean latency of the last round, in microseconds.
    usual: AtomicU64,
    control: Mutex<Control>,
}

/// What the requests of some threads show.
struct Sums {
    /// How many were answered, and in how long together.
    answers: AtomicU64,
    /// For how long places were held, in microseconds, whatever became of them.
    held: AtomicU64,
}

struct Control {
    controller: Option<Box<dyn Controller>>,
    since: u64,
}

impl Meter {
    pub(crate) fn new(controller: Option<Box<dyn Controller>>) -> Self {
        Self {
            on: AtomicBool::new(controller.is_some()),
            sums: (0..stripes())
                .map(|_| Padded(Sums { answers: AtomicU64::new(0), held: AtomicU64::new(0) }))
                .collect(),
            least: AtomicU64::new(u64::MAX),
            most: AtomicU32::new(0),
            given_up: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            usual: AtomicU64::new(u64::MAX),
            control: Mutex::new(Control { controller, since: 0 }),
        }
    }

    /// Whether there is anybody who wants to know.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Has another controller decide, or none; one of the same kind keeps what it has learnt. `set` is given its limit, before
    /// any round of it and after all of the last.
    pub(super) fn replace(&self, algorithm: &Algorithm, set: impl FnOnce(Option<u32>)) {
        let mut control = crate::sync::lock(&self.control);
        if !control.controller.as_mut().is_some_and(|known| known.retune(algorithm)) {
            control.controller = algorithm.controller();
        }
        self.on.store(control.controller.is_some(), Relaxed);
        set(control.controller.as_ref().map(|controller| controller.limit()));
    }

    /// Whether a request that was given up after this time took longer than usual.
    pub(crate) fn is_long(&self, lasted: Duration) -> bool {
        micros(lasted) >= self.usual.load(Relaxed)
    }

    fn own(&self) -> &Sums {
        &self.sums[stripe() & (self.sums.len() - 1)].0
    }

    /// A place was held for so long, or for so much longer than was told.
    #[inline]
    pub(crate) fn held(&self, time: Duration) {
        if !time.is_zero() {
            self.own().held.fetch_add(micros(time), Relaxed);
        }
    }

    /// Counts a request that ends at `now` with so many in flight, itself included; for how long its place was held is told
    /// apart from that. `set` is given the limit, if that closes a round: while nobody else decides, or an older decision
    /// could come after a newer.
    #[inline]
    pub(crate) fn count(&self, shown: Shown, in_flight: u32, now: u64, set: impl FnOnce(u32)) {
        match shown {
            Shown::Took(latency) | Shown::GivenUp(latency) => {
                let micros = micros(latency);
                self.own().answers.fetch_add(ONE + micros, Relaxed);
                if self.least.load(Relaxed) > micros {
                    self.least.fetch_min(micros, Relaxed);
                }
                if matches!(shown, Shown::GivenUp(_)) {
                    self.given_up.fetch_add(1, Relaxed);
                }
            }
            Shown::Dropped => {
                self.dropped.fetch_add(1, Relaxed);
            }
            Shown::Nothing => {}
        }
        if self.most.load(Relaxed) < in_flight {
            self.most.fetch_max(in_flight, Relaxed);
        }
        if now >= self.ends.load(Acquire) {
            self.close(now, in_flight, set);
        }
    }

    #[cold]
    fn close(&self, now: u64, in_flight: u32, set: impl FnOnce(u32)) {
        let mut control = match self.control.try_lock() {
            Ok(control) => control,
            // A controller has panicked: that is no reason never to ask it again.
            Err(TryLockError::Poisoned(left)) => left.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Control { controller: Some(controller), since } = &mut *control else { return };
        if now < self.ends.load(Relaxed) {
            return;
        }
        let (pace, lasted) = (controller.pace(), Duration::from_nanos(now.saturating_sub(*since)));
        let samples: u64 = self.sums.iter().map(|sum| sum.0.answers.load(Relaxed) / ONE).sum();
        let counted = samples + self.dropped.load(Relaxed);
        if lasted < pace.least || (counted < pace.samples && lasted < pace.most) {
            let soon = if lasted < pace.least { pace.least - lasted } else { pace.least / 8 };
            self.ends.store(now.saturating_add(nanos(soon).max(1)), Release);
            return;
        }
        let round = self.take(lasted, in_flight);
        // A round of a few requests in a long time says nothing of how many there may be, unless they were as many as there may.
        let long = lasted > pace.most.saturating_mul(IDLE);
        let idle = *since == 0 || (long && round.in_flight * 2.0 < f64::from(controller.limit()));
        let limit = (!idle).then(|| controller.round(&round));
        *since = now;
        self.ends.store(now.saturating_add(nanos(controller.pace().least).max(1)), Release);
        if round.samples > 0 {
            self.usual.store(micros(round.mean), Relaxed);
        }
        if let Some(limit) = limit {
            set(limit);
        }
    }

    fn take(&self, lasted: Duration, in_flight: u32) -> Round {
        let (mut samples, mut sum, mut held) = (0, 0, 0_u64);
        for Padded(sums) in &self.sums {
            let word = sums.answers.swap(0, Relaxed);
            samples += word / ONE;
            sum += word & MICROS;
            held = held.saturating_add(sums.held.swap(0, Relaxed));
        }
        let least = self.least.swap(u64::MAX, Relaxed);
        let seconds = lasted.as_secs_f64();
        Round {
            samples,
            mean: Duration::from_micros(sum.checked_div(samples).unwrap_or(0)),
            least: Duration::from_micros(if samples == 0 { 0 } else { least }),
            given_up: self.given_up.swap(0, Relaxed).min(samples),
            dropped: self.dropped.swap(0, Relaxed),
            most: self.most.swap(in_flight, Relaxed),
            in_flight: if seconds > 0.0 { held as f64 / 1e6 / seconds } else { 0.0 },
            ..Round::new(lasted)
        }
    }

    #[cfg(all(test, mainstay_loom))]
    pub(super) fn left(&self) -> u64 {
        self.sums.iter().map(|sum| sum.0.answers.load(Relaxed) / ONE).sum()
    }
}

/// So many times its longest a round may last before it is none, if little was in flight.
const IDLE: u32 = 4;

/// At most 2^24: 16.8 s, so that a round of 2^16 of them fits its word.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(ONE >> 16)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1)
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::sync::{Arc, Mutex as Plain};

    use super::*;
    use crate::limit::control::Pace;

    /// Keeps what it is told.
    #[derive(Debug, Clone, Default)]
    struct Notes(Arc<Plain<Vec<Round>>>);

    impl Controller for Notes {
        fn limit(&self) -> u32 {
            7
        }
        fn round(&mut self, round: &Round) -> u32 {
            self.0.lock().unwrap().push(*round);
            7
        }
        fn pace(&self) -> Pace {
            Pace::new(Duration::from_millis(100), 4, Duration::from_millis(1_000))
        }
    }

    const MS: u64 = 1_000_000;

    fn took(ms: u64) -> Shown {
        Shown::Took(Duration::from_millis(ms))
    }

    /// What [`Meter::count`] sets.
    fn count(meter: &Meter, shown: Shown, in_flight: u32, now: u64) -> Option<u32> {
        let mut limit = None;
        if let Shown::Took(time) = shown {
            meter.held(time);
        }
        meter.count(shown, in_flight, now, |told| limit = Some(told));
        limit
    }

    #[test]
    fn a_round_lasts_until_there_are_enough_samples() {
        let notes = Notes::default();
        let meter = Meter::new(Some(Box::new(notes.clone())));
        assert_eq!(count(&meter, Shown::Nothing, 1, 5_000 * MS), None);
        for (at, latency) in [(5_050, 10), (5_120, 20), (5_200, 30)] {
            assert_eq!(count(&meter, took(latency), 3, at * MS), None);
        }
        assert_eq!(count(&meter, Shown::Nothing, 2, 5_250 * MS), None);
        assert_eq!(count(&meter, took(60), 5, 5_300 * MS), Some(7));
        let round = notes.0.lock().unwrap()[0];
        assert_eq!((round.samples, round.dropped, round.most), (4, 0, 5));
        assert_eq!((round.mean, round.least), (Duration::from_millis(30), Duration::from_millis(10)));
        assert_eq!(round.lasted, Duration::from_millis(300));
        assert!((round.in_flight - 0.4).abs() < 1e-9);
        assert!(meter.is_long(Duration::from_millis(30)) && !meter.is_long(Duration::from_millis(29)));
    }

    #[test]
    fn drops_fill_a_round_too() {
        let notes = Notes::default();
        let meter = Meter::new(Some(Box::new(notes.clone())));
        count(&meter, Shown::Nothing, 1, 5_000 * MS);
        let ends: Vec<_> =
            (1..6).map(|at| count(&meter, Shown::Dropped, 1, (5_000 + at * 50) * MS)).collect();
        assert_eq!(ends, [None, None, None, Some(7), None]);
        assert_eq!(notes.0.lock().unwrap()[0].dropped, 4);
    }

    #[test]
    fn a_round_of_a_few_in_a_long_time_is_none() {
        let notes = Notes::default();
        let meter = Meter::new(Some(Box::new(notes.clone())));
        for at in [5_000, 10_000, 20_000] {
            count(&meter, took(10), 1, at * MS);
        }
        assert!(notes.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_long_round_in_which_all_places_were_held_counts() {
        let notes = Notes::default();
        let meter = Meter::new(Some(Box::new(notes.clone())));
        // Seven at a time, of ten seconds each.
        for round in 0..4 {
            for number in 0..7 {
                count(&meter, took(10_000), 7, (10_000 * round + 5_000) * MS + number);
            }
        }
        let rounds = notes.0.lock().unwrap().clone();
        assert_eq!(rounds.len(), 3);
        assert!((rounds[2].in_flight - 7.0).abs() < 0.1, "{rounds:?}");
    }

    #[test]
    fn what_is_held_counts_whatever_became_of_it() {
        let notes = Notes::default();
        let meter = Meter::new(Some(Box::new(notes.clone())));
        count(&meter, Shown::Nothing, 1, 5_000 * MS);
        for at in [5_100, 5_200, 5_300, 5_400] {
            meter.held(Duration::from_millis(50));
            count(&meter, Shown::Nothing, 1, at * MS);
            meter.held(Duration::from_millis(40));
            count(&meter, took(10), 1, at * MS);
        }
        count(&meter, Shown::Nothing, 1, 5_450 * MS);
        let round = notes.0.lock().unwrap()[0];
        assert!((round.in_flight - 0.4 / 0.45).abs() < 1e-9, "{round:?}");
        assert_eq!(round.mean, Duration::from_millis(10));
    }

    #[test]
    fn a_round_may_be_as_long_as_it_takes() {
        #[derive(Debug)]
        struct Patient;
        impl Controller for Patient {
            fn limit(&self) -> u32 {
                7
            }
            fn round(&mut self, _: &Round) -> u32 {
                8
            }
            fn pace(&self) -> Pace {
                Pace::new(Duration::from_millis(100), 2, Duration::MAX)
            }
        }
        let meter = Meter::new(Some(Box::new(Patient)));
        let ends = [5_000, 5_200, 5_400, 9_000_000].map(|at| count(&meter, took(10), 1, at * MS));
        assert_eq!(ends, [None, None, None, Some(8)]);
    }

    #[test]
    fn a_controller_that_has_panicked_is_asked_again() {
        #[derive(Debug)]
        struct Startled(bool);
        impl Controller for Startled {
            fn limit(&self) -> u32 {
                7
            }
            fn round(&mut self, _: &Round) -> u32 {
                assert!(std::mem::replace(&mut self.0, true), "the first round");
                8
            }
            fn pace(&self) -> Pace {
                Pace::new(Duration::from_millis(100), 1, Duration::from_millis(1_000))
            }
        }
        let meter = Meter::new(Some(Box::new(Startled(false))));
        count(&meter, took(10), 1, 5_000 * MS);
        let round = std::panic::AssertUnwindSafe(|| count(&meter, took(10), 1, 5_200 * MS));
        assert!(std::panic::catch_unwind(round).is_err());
        assert_eq!(count(&meter, took(10), 1, 5_400 * MS), Some(8));
    }

    #[test]
    fn without_a_controller_nothing_is_decided() {
        let meter = Meter::new(None);
        assert!(!meter.is_on());
        assert_eq!(count(&meter, took(10), 1, 5_000 * MS), None);
    }
}
