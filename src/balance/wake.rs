//! Requests that wait for an endpoint.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
};

use crate::sync::{AtomicUsize, Mutex, Ordering::SeqCst, fence, lock};

/// The wakers of everybody who waits for a change.
///
/// The order that loses no wake-up: who waits registers, then looks again; who changes something publishes it, then
/// wakes. Between the two steps of either stands a fence, whatever the thing itself is made of: of a waiter and a
/// publisher at once, one sees the other. A waiter that goes away takes its waker with it and leaves the others theirs.
#[derive(Debug)]
pub(crate) struct WakeSet {
    line: Mutex<Line>,
    /// How many wait: whoever publishes looks here first.
    count: AtomicUsize,
}

/// Who waits, in the order in which they came. A waker is taken when it is woken, and comes back with the next poll.
#[derive(Debug, Default)]
struct Line {
    wakers: Wakers,
    /// Those who wait for somebody in particular, and stand in nobody's way.
    particular: Wakers,
    next: u64,
}

type Wakers = BTreeMap<u64, Option<Waker>>;

impl Line {
    fn of(&mut self, is_particular: bool) -> &mut Wakers {
        if is_particular { &mut self.particular } else { &mut self.wakers }
    }
}

/// A place in a [`WakeSet`]; give it back with [`WakeSet::leave`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    number: u64,
    is_particular: bool,
}

impl WakeSet {
    pub(crate) fn new() -> Self {
        Self { line: Mutex::new(Line::default()), count: AtomicUsize::new(0) }
    }

    /// Takes a place, unless `most` are taken already.
    pub(crate) fn join(&self, most: usize, cx: &Context<'_>) -> Option<Place> {
        self.join_as(false, most, cx)
    }

    /// The same; one who waits for somebody in particular takes a place beside the line.
    pub(crate) fn join_as(&self, is_particular: bool, most: usize, cx: &Context<'_>) -> Option<Place> {
        let mut line = lock(&self.line);
        if line.wakers.len() + line.particular.len() >= most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.of(is_particular).insert(number, Some(cx.waker().clone()));
        self.count.fetch_add(1, SeqCst);
        drop(line);
        fence(SeqCst);
        Some(Place { number, is_particular })
    }

    /// Registers the waker of the current poll in `place`. Look again at what you wait for after this.
    pub(crate) fn register(&self, place: &Place, cx: &Context<'_>) {
        let waker = Some(cx.waker().clone());
        let before = lock(&self.line).of(place.is_particular).insert(place.number, waker);
        // A waker may be the last that holds a task, and do anything when it is dropped: not under the lock.
        drop(before);
        fence(SeqCst);
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, place: Place) {
        let waker = lock(&self.line).of(place.is_particular).remove(&place.number);
        self.count.fetch_sub(1, SeqCst);
        drop(waker);
    }

    /// Whether it is the turn of who has this place: nobody in the line has waited longer, or it is beside the line.
    pub(crate) fn has_turn(&self, place: &Place) -> bool {
        let is_first =
            |line: &Line| line.wakers.first_key_value().is_none_or(|(first, _)| *first == place.number);
        place.is_particular || is_first(&lock(&self.line))
    }

    /// Whether somebody is in the line, and not beside it.
    pub(crate) fn has_line(&self) -> bool {
        self.waiting() > 0 && !lock(&self.line).wakers.is_empty()
    }

    /// Wakes everybody. Call it after the change is there to be seen.
    pub(crate) fn wake_all(&self) {
        fence(SeqCst);
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let woken: Vec<Waker> = {
            let Line { wakers, particular, .. } = &mut *lock(&self.line);
            particular.values_mut().chain(wakers.values_mut()).filter_map(Option::take).collect()
        };
        for waker in woken {
            waker.wake();
        }
    }

    /// Wakes those whose turn it is: all beside the line, who have the least choice, then who has waited longest in it.
    /// Call it after the change is there to be seen.
    pub(crate) fn wake_next(&self) {
        fence(SeqCst);
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let (beside, first) = {
            let Line { wakers, particular, .. } = &mut *lock(&self.line);
            let beside: Vec<Waker> = particular.values_mut().filter_map(Option::take).collect();
            (beside, wakers.first_entry().and_then(|mut first| first.get_mut().take()))
        };
        for waker in beside.into_iter().chain(first) {
            waker.wake();
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.count.load(SeqCst)
    }
}

/// Somebody who waits for a change, at most once registered, and never longer than it lives.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    set: &'a WakeSet,
    place: Option<Place>,
}

impl<'a> Waiter<'a> {
    pub(crate) fn new(set: &'a WakeSet) -> Self {
        Self { set, place: None }
    }

    /// Registers the waker of the current poll. Look at what you wait for after this.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        match &self.place {
            Some(place) => self.set.register(place, cx),
            None => self.place = self.set.join(usize::MAX, cx),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.set.leave(place);
        }
    }
}
