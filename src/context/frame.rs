//! One poll of a request: the time it happens at, and when it wants to be polled again.
//!
//! However many layers a request has, the outermost of them that is polled by the same waker holds the only timer. The
//! ones inside tell it by [`wake_at`] when they must be polled again. Something foreign in between that polls with a
//! waker of its own (a `FuturesUnordered`, another task) is noticed by that waker, and what is inside of it times itself.

use std::{cell::Cell, task::Waker, time::Instant};

use crate::clock;

struct State {
    /// The waker's identity; zeros outside of any poll.
    waker: Cell<(usize, usize)>,
    wake_at: Cell<Option<Instant>>,
    now: Cell<Option<Instant>>,
}

thread_local!(static STATE: State = const {
    State { waker: Cell::new((0, 0)), wake_at: Cell::new(None), now: Cell::new(None) }
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

#[inline]
fn read(state: &State) -> Instant {
    let now = clock::now();
    if state.waker.get() != (0, 0) {
        state.now.set(Some(now));
    }
    now
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
