//! One poll of a request: the time it happens at, and when it wants to be polled again.
//!
//! However many layers a request has, the outermost of them that is polled by the same waker holds the only timer. The
//! ones inside tell it by [`wake_at`] when they must be polled again. Something foreign in between that polls with a
//! waker of its own (a `FuturesUnordered`, another task) is noticed by that waker, and what is inside of it times itself.

use std::{cell::Cell, task::Waker, time::Instant};

use crate::{clock, estimate::slices};

struct State {
    /// The waker's identity; zeros outside of any poll.
    waker: Cell<(usize, usize)>,
    wake_at: Cell<Option<Instant>>,
    now: Cell<Option<Instant>>,
    /// An epoch, and how many nanoseconds after it `now` is: the difference of two `Instant`s costs more than most of what
    /// is done with it, and one client has one epoch.
    passed: Cell<Option<(Instant, u64)>>,
}

thread_local!(static STATE: State = const {
    State {
        waker: Cell::new((0, 0)),
        wake_at: Cell::new(None),
        now: Cell::new(None),
        passed: Cell::new(None),
    }
});

/// Marks the current poll as one of ours until dropped.
pub(crate) struct Frame {
    /// What to put back, if this frame is the outermost of its waker.
    before: Option<Before>,
}

struct Before {
    waker: (usize, usize),
    wake_at: Option<Instant>,
    now: Option<Instant>,
}

impl Frame {
    #[inline]
    pub(crate) fn enter(waker: &Waker) -> Self {
        let identity = (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize);
        STATE.with(|state| {
            let before = state.waker.get();
            if before == identity {
                return Self { before: None };
            }
            state.waker.set(identity);
            state.passed.set(None);
            Self {
                before: Some(Before { waker: before, wake_at: state.wake_at.take(), now: state.now.take() }),
            }
        })
    }

    /// Whether this is the outermost frame of its waker, which must hold the timer.
    #[inline]
    pub(crate) fn is_outermost(&self) -> bool {
        self.before.is_some()
    }

    /// When something inside wants to be polled again.
    #[inline]
    pub(crate) fn wanted(&self) -> Option<Instant> {
        STATE.with(|state| state.wake_at.get())
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            STATE.with(|state| {
                state.waker.set(before.waker);
                state.wake_at.set(before.wake_at);
                state.now.set(before.now);
                state.passed.set(None);
            });
        }
    }
}

/// The time of this poll: read once, by the first that asks.
#[inline]
pub(crate) fn now() -> Instant {
    STATE.with(|state| match state.now.get() {
        Some(now) => now,
        None => read(state),
    })
}

/// Reads the clock again, because something slow may have happened since this poll began.
#[inline]
pub(crate) fn fresh_now() -> Instant {
    STATE.with(read)
}

/// Has the next that asks for the time read the clock again, because something slow may have happened since this poll began.
#[inline]
pub(crate) fn forget_now() {
    STATE.with(|state| {
        state.now.set(None);
        state.passed.set(None);
    });
}

#[inline]
fn read(state: &State) -> Instant {
    let now = clock::now();
    if state.waker.get() != (0, 0) {
        state.now.set(Some(now));
    }
    state.passed.set(None);
    now
}

/// Nanoseconds from `epoch` to [`now`], computed once for each time and epoch.
#[inline]
pub(crate) fn nanos_since(epoch: Instant) -> u64 {
    STATE.with(|state| match state.passed.get() {
        Some((of, nanos)) if of == epoch => nanos,
        _ => measure(state, epoch),
    })
}

#[inline(never)]
fn measure(state: &State, epoch: Instant) -> u64 {
    let now = state.now.get();
    let nanos = slices::nanos_since(epoch, now.unwrap_or_else(|| read(state)));
    // Outside of a poll time goes on between two looks.
    if now.is_some() || state.now.get().is_some() {
        state.passed.set(Some((epoch, nanos)));
    }
    nanos
}

/// Asks the layer that holds the timer to poll this task at `at`, or earlier.
#[inline]
pub(crate) fn wake_at(at: Instant) {
    STATE.with(|state| {
        let earlier = state.wake_at.get().is_some_and(|earlier| earlier <= at);
        if !earlier {
            state.wake_at.set(Some(at));
        }
    });
}
