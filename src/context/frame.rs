//! One poll of a request: the time it happens at, and when it wants to be polled again.
//!
//! However many layers a request has, the outermost of them that is polled by the same waker holds the only timer. The
//! ones inside tell it by [`wake_at`] when they must be polled again. Something foreign in between that polls with a
//! waker of its own (a `FuturesUnordered`, another task) is noticed by that waker, and what is inside of it times itself.

use std::{cell::Cell, task::Waker, time::Instant};

use crate::clock;

#[derive(Clone, Copy)]
struct State {
    /// The waker's identity; zeros outside of any poll.
    waker: (usize, usize),
    wake_at: Option<Instant>,
    now: Option<Instant>,
}

const OUTSIDE: State = State { waker: (0, 0), wake_at: None, now: None };

thread_local!(static STATE: Cell<State> = const { Cell::new(OUTSIDE) });

/// Marks the current poll as one of ours until dropped.
pub(crate) struct Frame {
    /// What to put back, if this frame is the outermost of its waker.
    before: Option<State>,
}

impl Frame {
    #[inline]
    pub(crate) fn enter(waker: &Waker) -> Self {
        let identity = (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize);
        STATE.with(|state| {
            let before = state.get();
            if before.waker == identity {
                return Self { before: None };
            }
            state.set(State { waker: identity, wake_at: None, now: None });
            Self { before: Some(before) }
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
        STATE.with(|state| state.get().wake_at)
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            STATE.with(|state| state.set(before));
        }
    }
}

/// The time of this poll: read once, by the first that asks.
#[inline]
pub(crate) fn now() -> Instant {
    STATE.with(|state| {
        let mut current = state.get();
        match current.now {
            Some(now) => now,
            None => {
                let now = clock::now();
                if current.waker != (0, 0) {
                    current.now = Some(now);
                    state.set(current);
                }
                now
            }
        }
    })
}

/// Reads the clock again, because something slow may have happened since this poll began.
#[inline]
pub(crate) fn fresh_now() -> Instant {
    let now = clock::now();
    STATE.with(|state| {
        let mut current = state.get();
        if current.waker != (0, 0) {
            current.now = Some(now);
            state.set(current);
        }
    });
    now
}

/// Asks the layer that holds the timer to poll this task at `at`, or earlier.
#[inline]
pub(crate) fn wake_at(at: Instant) {
    STATE.with(|state| {
        let mut current = state.get();
        current.wake_at = Some(current.wake_at.map_or(at, |earlier| earlier.min(at)));
        state.set(current);
    });
}
