//! Requests that wait for an endpoint.

use std::task::{Context, Waker};

use crate::sync::{AtomicUsize, Mutex, Ordering::SeqCst, fence, lock};

/// The wakers of everybody who waits for a change.
///
/// The order that loses no wake-up: who waits registers, then looks again; who changes something publishes it, then
/// wakes. Between the two steps of either stands a fence, whatever the thing itself is made of: of a waiter and a
/// publisher at once, one sees the other. A waiter that goes away takes its waker with it and leaves the others theirs.
#[derive(Debug)]
pub(crate) struct WakeSet {
    slots: Mutex<Slots>,
    /// How many wait: whoever publishes looks here first.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A place in a [`WakeSet`]; give it back with [`WakeSet::leave`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Place(usize);

impl WakeSet {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::new(Slots::default()), count: AtomicUsize::new(0) }
    }

    /// Takes a place, unless `most` are taken already.
    pub(crate) fn join(&self, most: usize, cx: &Context<'_>) -> Option<Place> {
        let mut slots = lock(&self.slots);
        if slots.wakers.len() - slots.free.len() >= most {
            return None;
        }
        let waker = Some(cx.waker().clone());
        let index = match slots.free.pop() {
            Some(index) => {
                slots.wakers[index] = waker;
                index
            }
            None => {
                slots.wakers.push(waker);
                slots.wakers.len() - 1
            }
        };
        self.count.fetch_add(1, SeqCst);
        drop(slots);
        fence(SeqCst);
        Some(Place(index))
    }

    /// Registers the waker of the current poll in `place`. Look again at what you wait for after this.
    pub(crate) fn register(&self, place: &Place, cx: &Context<'_>) {
        let mut slots = lock(&self.slots);
        match &mut slots.wakers[place.0] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        drop(slots);
        fence(SeqCst);
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, place: Place) {
        let mut slots = lock(&self.slots);
        slots.wakers[place.0] = None;
        slots.free.push(place.0);
        self.count.fetch_sub(1, SeqCst);
    }

    /// Wakes everybody. Call it after the change is there to be seen.
    pub(crate) fn wake_all(&self) {
        fence(SeqCst);
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let woken: Vec<Waker> = lock(&self.slots).wakers.iter_mut().filter_map(Option::take).collect();
        for waker in woken {
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
