//! Who may enter, and who is next.

mod line;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use self::line::{Line, NUMBER, key};
use super::Queue;
use crate::{
    describe::Criticality,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock},
};

/// The largest limit: the counts of a gate share one word.
pub(super) const MAX_LIMIT: u32 = u32::MAX >> 1;

/// Set while somebody waits, which closes the fast path.
const WAITING: u64 = 1 << 63;

/// At most so many at a time; the others wait in line, or are turned away when the line is full.
///
/// A clone is a handle to the same gate. As long as nobody waits, entering and leaving are one atomic operation each.
/// Turns are first come, first served unless [`set_queue`](Self::set_queue) says otherwise: while somebody waits nobody
/// overtakes.
///
/// A turn belongs to the [`Ticket`] that it was given to until that is polled or dropped. Whoever keeps a ticket without
/// doing either holds up a place, as with any permit that is held.
#[derive(Clone)]
pub struct Gate(Arc<State>);

struct State {
    /// From the lowest bit: 31 bits in flight, 31 bits limit, one bit unused, `WAITING`.
    ///
    /// `WAITING` is set exactly while the line is not empty, whenever the line is not locked. While it is set only the
    /// holder of the lock lets somebody in, and whoever leaves takes the lock to see who is next.
    word: AtomicU64,
    line: Mutex<Line>,
}

/// What came of trying to enter.
#[derive(Debug)]
#[must_use]
pub enum Entry {
    /// In.
    Permit(Permit),
    /// In line.
    Wait(Ticket),
    /// The line is full, or longer than there is time for.
    Full,
}

const fn in_flight(word: u64) -> u32 {
    (word & MAX_LIMIT as u64) as u32
}

const fn limit(word: u64) -> u32 {
    ((word >> 31) & MAX_LIMIT as u64) as u32
}

const fn with_limit(word: u64, limit: u32) -> u64 {
    (word & !((MAX_LIMIT as u64) << 31)) | ((limit as u64) << 31)
}

const fn is_open(word: u64) -> bool {
    word & WAITING == 0 && in_flight(word) < limit(word)
}

impl Gate {
    /// A gate for `limit` at a time, with a line of at most `max_waiting`.
    ///
    /// A limit above 2^31 - 1 counts as that. A limit of 0 lets nobody in until it is changed.
    pub fn new(limit: u32, max_waiting: u32) -> Self {
        let line = Line::new(max_waiting);
        let word = AtomicU64::new(with_limit(0, limit.min(MAX_LIMIT)));
        Self(Arc::new(State { word, line: Mutex::new(line) }))
    }

    /// Enters if there is room and nobody waits.
    #[inline]
    pub fn try_acquire(&self) -> Option<Permit> {
        self.0.try_enter(is_open).then(|| Permit { gate: self.clone() })
    }

    /// Enters if there is room and nobody waits, else gets in line; `cx` is woken when the turn has come.
    pub fn acquire(&self, cx: &mut Context<'_>) -> Entry {
        match self.try_acquire() {
            Some(permit) => Entry::Permit(permit),
            None => self.enqueue(cx, None, None, Criticality::default()),
        }
    }

    /// The same by one who says how much it matters, the time, which a [`Queue`] but the plain one needs, and how much of it
    /// there is: who cannot expect a turn within `left` gets none. Who matters more is served first, and takes the place of
    /// one who matters less in a line that is full.
    pub fn acquire_at(
        &self,
        cx: &mut Context<'_>,
        now: Instant,
        left: Option<Duration>,
        class: Criticality,
    ) -> Entry {
        match self.try_acquire() {
            Some(permit) => Entry::Permit(permit),
            None => self.enqueue(cx, Some(now), left, class),
        }
    }

    fn enqueue(
        &self,
        cx: &mut Context<'_>,
        now: Option<Instant>,
        left: Option<Duration>,
        class: Criticality,
    ) -> Entry {
        let waker = cx.waker().clone();
        let mut line = self.0.line();
        // Before anybody has to leave for one that would not stay.
        if let (Some(now), Some(left)) = (now, left)
            && line.expected(now, class).is_some_and(|expected| expected > left)
        {
            return Entry::Full;
        }
        let mut evicted = None;
        if line.wakers.len() >= line.max as usize {
            evicted = line.evict(class);
            if evicted.is_none() {
                return Entry::Full;
            }
        }
        let entry = self.enqueue_in(&mut line, waker, now, class);
        drop(line);
        if let Some(evicted) = evicted {
            evicted.wake();
        }
        entry
    }

    fn enqueue_in(&self, line: &mut Line, waker: Waker, now: Option<Instant>, class: Criticality) -> Entry {
        // Either there is room after all, or whoever leaves from here on sees that somebody waits.
        let mut word = self.0.word.load(Ordering::Acquire);
        while word & WAITING == 0 {
            let (wanted, enters) = if is_open(word) { (word + 1, true) } else { (word | WAITING, false) };
            match self.0.word.compare_exchange_weak(word, wanted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if enters => return Entry::Permit(Permit { gate: self.clone() }),
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if let Some(now) = now {
            line.note(now);
        }
        let number = key(class, line.next & NUMBER);
        line.next += 1;
        line.wakers.insert(number, waker);
        Entry::Wait(Ticket { gate: Some(self.clone()), number, longest: line.longest() })
    }

    /// Changes the limit. A higher one lets the next in line in; a lower one turns nobody out, but lets nobody in until
    /// enough have left.
    pub fn set_limit(&self, limit: u32) {
        let limit = limit.min(MAX_LIMIT);
        let mut word = self.0.word.load(Ordering::Relaxed);
        while let Err(now) = self.0.word.compare_exchange_weak(
            word,
            with_limit(word, limit),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            word = now;
        }
        self.0.call_next();
    }

    /// Changes who is next, and what is pressure; see [`Queue`].
    pub fn set_queue(&self, queue: Queue, target: Duration, interval: Duration) {
        let mut line = self.0.line();
        (line.queue, line.target, line.interval) = (queue, target, interval);
    }

    /// Changes how many may wait. Those who wait already stay.
    pub fn set_max_waiting(&self, max_waiting: u32) {
        self.0.line().max = max_waiting;
    }

    /// How many may be in at a time.
    pub fn limit(&self) -> u32 {
        limit(self.0.word.load(Ordering::Relaxed))
    }

    /// How many are in, with those who have got their turn and do not know it yet.
    pub fn in_flight(&self) -> u32 {
        in_flight(self.0.word.load(Ordering::Relaxed))
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.0.line().wakers.len()).unwrap_or(u32::MAX)
    }
}

impl State {
    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }

    #[inline]
    fn try_enter(&self, may: impl Fn(u64) -> bool) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while may(word) {
            match self.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if before & WAITING != 0 {
            self.call_next();
        }
    }

    /// Gives the turn to those in line for whom there is room. Their wakers run outside of the lock: they may be anything.
    #[cold]
    fn call_next(&self) {
        while let Some(waker) = self.next_waker() {
            waker.wake();
        }
    }

    fn next_waker(&self) -> Option<Waker> {
        let mut line = self.line();
        if line.wakers.is_empty() || !self.try_enter(|word| in_flight(word) < limit(word)) {
            return None;
        }
        let next = line.pop();
        self.open_if_empty(&mut line);
        next
    }

    /// Opens the fast path when the line, which the caller has locked, is empty.
    fn open_if_empty(&self, line: &mut Line) {
        if line.wakers.is_empty() {
            line.is_over();
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// The right to be in. Dropping it is leaving: the next in line gets its turn.
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    gate: Gate,
}

impl Permit {
    /// The gate that it is a permit of.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.gate.0.leave();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// A place in line. Dropping it gives it up; if its turn had come, the turn passes on.
#[must_use = "a ticket that is dropped has left the line"]
pub struct Ticket {
    /// `None` when its turn was taken.
    gate: Option<Gate>,
    number: u64,
    longest: Option<Duration>,
}

impl Ticket {
    /// How long it may wait at most, where the queue has a rule for that.
    pub fn longest(&self) -> Option<Duration> {
        self.longest
    }

    /// Whether it had to leave for somebody who matters more: its turn never comes.
    pub fn is_evicted(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.0.line().evicted.contains(&self.number))
    }

    /// Takes the turn if it has come.
    ///
    /// # Panics
    /// If its turn was taken already.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(gate) = &self.gate else { panic!("polled after its turn was taken") };
        let before = {
            let mut line = gate.0.line();
            if line.evicted.contains(&self.number) {
                return Poll::Pending;
            }
            match line.wakers.get_mut(&self.number) {
                Some(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
                Some(waker) => Some(std::mem::replace(waker, cx.waker().clone())),
                None => None,
            }
        };
        // A waker may own a task, and with it a permit of this gate: it must not be dropped under the lock.
        if before.is_some() {
            return Poll::Pending;
        }
        match self.gate.take() {
            Some(gate) => Poll::Ready(Permit { gate }),
            None => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        let waited = {
            let mut line = gate.0.line();
            if line.evicted.remove(&self.number) {
                return;
            }
            let waker = line.wakers.remove(&self.number);
            if waker.is_some() {
                gate.0.open_if_empty(&mut line);
            }
            waker
        };
        if waited.is_none() {
            gate.0.leave();
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("number", &self.number).finish_non_exhaustive()
    }
}
