//! Sums up what requests show, round by round, for a controller.

use std::{fmt, sync::TryLockError, time::Duration};

use super::control::{Controller, Round};
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
    sums: Box<[Padded<AtomicU64>]>,
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

struct Control {
    controller: Option<Box<dyn Controller>>,
    since: u64,
}

impl Meter {
    pub(crate) fn new(controller: Option<Box<dyn Controller>>) -> Self {
        Self {
            on: AtomicBool::new(controller.is_some()),
            sums: (0..stripes()).map(|_| Padded(AtomicU64::new(0))).collect(),
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

    /// Has another controller decide, or none. `set` is given its limit, before any round of it and after all of the last.
    pub(super) fn replace(&self, controller: Option<Box<dyn Controller>>, set: impl FnOnce(Option<u32>)) {
        let mut control = crate::sync::lock(&self.control);
        let limit = controller.as_ref().map(|controller| controller.limit());
        self.on.store(controller.is_some(), Relaxed);
        control.controller = controller;
        set(limit);
    }

    /// Whether a request that was given up after this time took longer than usual.
    pub(crate) fn is_long(&self, lasted: Duration) -> bool {
        micros(lasted) >= self.usual.load(Relaxed)
    }

    /// Counts a request that ends at `now` with so many in flight, itself included. `set` is given the limit, if that closes a
    /// round: while nobody else decides, or an older decision could come after a newer.
    #[inline]
    pub(crate) fn count(&self, shown: Shown, in_flight: u32, now: u64, set: impl FnOnce(u32)) {
        match shown {
            Shown::Took(latency) | Shown::GivenUp(latency) => {
                let micros = micros(latency);
                self.sums[stripe() & (self.sums.len() - 1)].0.fetch_add(ONE + micros, Relaxed);
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
        let samples: u64 = self.sums.iter().map(|sum| sum.0.load(Relaxed) / ONE).sum();
        let counted = samples + self.dropped.load(Relaxed);
        if lasted < pace.least || (counted < pace.samples && lasted < pace.most) {
            let soon = if lasted < pace.least { pace.least - lasted } else { pace.least / 8 };
            self.ends.store(now.saturating_add(nanos(soon).max(1)), Release);
            return;
        }
        // A round of a few requests in a long time says nothing of how many there may be.
        let idle = *since == 0 || lasted > pace.most.saturating_mul(IDLE);
        let round = self.take(lasted, in_flight);
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
        let (mut samples, mut sum) = (0, 0);
        for word in &self.sums {
            let word = word.0.swap(0, Relaxed);
            samples += word / ONE;
            sum += word & MICROS;
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
            in_flight: if seconds > 0.0 { sum as f64 / 1e6 / seconds } else { 0.0 },
            ..Round::new(lasted)
        }
    }

    #[cfg(all(test, mainstay_loom))]
    pub(super) fn left(&self) -> u64 {
        self.sums.iter().map(|sum| sum.0.load(Relaxed) / ONE).sum()
    }
}

/// So many times its longest a round may last before it is none.
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
