//! The calls of a closed breaker: the last so many, or those of the last so long.

use std::time::Instant;

use super::Window;
use crate::{
    estimate::slices::{Ring, Slices},
    sync::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
        Padded, fence,
    },
};

/// In so many steps a window of time slides.
const STEPS: usize = if cfg!(mainstay_loom) { 2 } else { 10 };

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

#[derive(Debug)]
pub(super) enum Counted {
    Calls(Calls),
    Time(Time),
}

impl Counted {
    /// An empty window, its steps counted from `epoch`.
    pub(super) fn new(window: Window, slow: bool, epoch: Instant) -> Self {
        match window {
            Window::Calls(size) => Self::Calls(Calls::new(size, slow)),
            Window::Time(time) => Self::Time(Time {
                slices: Slices::new(epoch, time / STEPS as u32),
                calls: Ring::new(),
                failures: Ring::new(),
                slow: slow.then(Ring::new),
                calm: AtomicU64::new(0),
            }),
        }
    }

    /// What it holds at `now`.
    pub(super) fn held(&self, now: Instant) -> Held {
        match self {
            Self::Calls(calls) => calls.held(),
            Self::Time(time) => time.held(time.slices.number(now)),
        }
    }
}

/// The last so many calls, exactly: one bit for each, in a ring.
///
/// A call takes the next place of the ring and puts its bit there; the bit that it finds has left the window. Calls that end
/// at the same instant see each other's bits or not, so each may judge by a window that others have half written; the last
/// of them judges by all. A thread that sleeps for a whole turn of the ring between taking its place and writing puts its bit
/// in a newer call's place. Both are accepted.
#[derive(Debug)]
pub(super) struct Calls {
    size: u64,
    ended: Padded<AtomicU64>,
    failures: Bits,
    slow: Option<Bits>,
}

impl Calls {
    fn new(size: u32, slow: bool) -> Self {
        Self {
            size: u64::from(size),
            ended: Padded(AtomicU64::new(0)),
            failures: Bits::new(size),
            slow: slow.then(|| Bits::new(size)),
        }
    }

    /// Counts a call.
    #[inline]
    pub(super) fn add(&self, failed: bool, slow: bool) -> Held {
        let place = self.ended.0.fetch_add(1, SeqCst) % self.size;
        self.failures.put(place, failed);
        if let Some(bits) = &self.slow {
            bits.put(place, slow);
        }
        // The order of these accesses is one for all threads, so the last that looks sees what every other has written.
        // loom knows of such an order only by fences.
        if cfg!(mainstay_loom) {
            fence(SeqCst);
        }
        self.held()
    }

    #[inline]
    fn held(&self) -> Held {
        Held {
            calls: self.ended.0.load(SeqCst).min(self.size),
            failures: self.failures.count(),
            slow: self.slow.as_ref().map_or(0, Bits::count),
        }
    }
}

/// A ring of bits, and how many are set.
#[derive(Debug)]
struct Bits {
    count: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl Bits {
    fn new(size: u32) -> Self {
        let words = (0..size.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { count: AtomicU64::new(0), words }
    }

    /// A bit may be cleared, and counted off, before the thread that has set it gets to count it.
    #[inline]
    fn count(&self) -> u64 {
        u64::try_from(self.count.load(SeqCst) as i64).unwrap_or(0)
    }

    #[inline]
    fn put(&self, place: u64, bit: bool) {
        let (word, mask) = (&self.words[(place / 64) as usize], 1 << (place % 64));
        // A good call in the place of a good call, the usual case, writes nothing.
        if (word.load(SeqCst) & mask != 0) == bit {
            return;
        }
        self.flip(word, mask, bit);
    }

    #[cold]
    fn flip(&self, word: &AtomicU64, mask: u64, bit: bool) {
        if bit {
            if word.fetch_or(mask, SeqCst) & mask == 0 {
                self.count.fetch_add(1, SeqCst);
            }
        } else if word.fetch_and(!mask, SeqCst) & mask != 0 {
            self.count.fetch_sub(1, SeqCst);
        }
    }
}

/// The calls of the last so long.
#[derive(Debug)]
pub(super) struct Time {
    slices: Slices,
    calls: Ring<STEPS>,
    failures: Ring<STEPS>,
    slow: Option<Ring<STEPS>>,
    /// The number of the step, plus one, in which the window was last found to hold enough calls and to break no rule. Within that
    /// step a call that is neither bad nor slow can only make it better, and need not look.
    calm: AtomicU64,
}

impl Time {
    /// Counts a call; what the window holds then, unless it cannot have become worse.
    #[inline]
    pub(super) fn add(&self, now: Instant, failed: bool, slow: bool) -> Option<(Held, u64)> {
        let number = self.slices.number(now);
        self.calls.add(number);
        if failed {
            self.failures.add(number);
        }
        if let (true, Some(ring)) = (slow, &self.slow) {
            ring.add(number);
        }
        if !failed && !slow && self.calm.load(Relaxed) == number + 1 {
            return None;
        }
        Some((self.held(number), number))
    }

    /// In step `number` the window held enough calls and broke no rule.
    pub(super) fn is_calm(&self, number: u64) {
        self.calm.store(number + 1, Relaxed);
    }

    fn held(&self, number: u64) -> Held {
        Held {
            calls: self.calls.sum(number),
            failures: self.failures.sum(number),
            slow: self.slow.as_ref().map_or(0, |ring| ring.sum(number)),
        }
    }
}
