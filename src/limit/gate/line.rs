//! Who waits, in which order, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::{Duration, Instant},
};

use crate::{describe::Criticality, limit::Queue};

/// Those who wait.
pub(super) struct Line {
    pub(super) max: u32,
    pub(super) next: u64,
    /// By the number of the ticket, those of the highest class first. A ticket that is neither here nor evicted has got its
    /// turn.
    pub(super) wakers: BTreeMap<u64, Waker>,
    /// Those who had to leave for somebody who matters more, and do not know it yet.
    pub(super) evicted: BTreeSet<u64>,
    pub(super) queue: Queue,
    pub(super) target: Duration,
    pub(super) interval: Duration,
    /// Since when it has not been empty, as far as those who came said the time, and how many turns it gave since.
    pub(super) busy: Option<Instant>,
    pub(super) turns: u32,
    /// Whether it was not empty for an interval when the last one came.
    pub(super) pressed: bool,
}

/// The bits of a ticket's number that number it; above them is its class.
pub(super) const NUMBER: u64 = (1 << 60) - 1;

/// The place in line of one of `class`: before everybody who matters less.
pub(super) const fn key(class: Criticality, number: u64) -> u64 {
    ((Criticality::CriticalPlus as u64 - class as u64) << 60) | number
}

/// So many turns say how fast it moves.
const ENOUGH: u32 = 8;

impl Line {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            next: 0,
            wakers: BTreeMap::new(),
            evicted: BTreeSet::new(),
            queue: Queue::Fifo,
            target: Duration::MAX,
            interval: Duration::MAX,
            busy: None,
            turns: 0,
            pressed: false,
        }
    }

    /// Nobody waits any more.
    pub(super) fn is_over(&mut self) {
        (self.busy, self.turns, self.pressed) = (None, 0, false);
    }

    /// Somebody comes at `now`.
    pub(super) fn note(&mut self, now: Instant) {
        let busy = *self.busy.get_or_insert(now);
        self.pressed = now.saturating_duration_since(busy) >= self.interval;
    }

    /// How long one that comes at `now` may wait at most, by the queue's own rule.
    pub(super) fn longest(&self) -> Option<Duration> {
        match self.queue {
            Queue::CoDel if self.pressed => Some(self.target),
            Queue::CoDel => Some(self.interval),
            _ => None,
        }
    }

    /// How long one of `class` that comes at `now` will wait, if it goes on as it went.
    pub(super) fn expected(&self, now: Instant, class: Criticality) -> Option<Duration> {
        let busy = now.saturating_duration_since(self.busy?);
        if self.turns < ENOUGH || (self.queue == Queue::Lifo && self.pressed) {
            return None;
        }
        // Those who matter less are behind it.
        let last = self.wakers.last_key_value().map_or(0, |(last, _)| last & !NUMBER);
        let ahead = if last <= key(class, 0) {
            self.wakers.len()
        } else {
            self.wakers.range(..=key(class, NUMBER)).count()
        };
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
        Some((busy / self.turns).saturating_mul(ahead))
    }

    /// The next of the highest class.
    pub(super) fn pop(&mut self) -> Option<Waker> {
        self.turns = self.turns.saturating_add(1);
        if self.queue == Queue::Lifo && self.pressed {
            let first = *self.wakers.first_key_value()?.0;
            let newest = *self.wakers.range(..=first | NUMBER).next_back()?.0;
            return self.wakers.remove(&newest);
        }
        self.wakers.pop_first().map(|(_, waker)| waker)
    }

    /// Makes room for one of `class`, if somebody in line matters less: the newest of those who matter least.
    pub(super) fn evict(&mut self, class: Criticality) -> Option<Waker> {
        let last = *self.wakers.last_key_value()?.0;
        if last & !NUMBER <= key(class, 0) {
            return None;
        }
        self.evicted.insert(last);
        self.wakers.remove(&last)
    }
}
