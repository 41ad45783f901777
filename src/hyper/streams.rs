//! How much of an HTTP/2 connection is in use.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use pin_project::pin_project;

use crate::{
    outcome::Verdict,
    sync::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    track::Ends,
};

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    open: AtomicUsize,
    /// How many the server allows at a time.
    most: AtomicUsize,
    /// How many there were in all.
    served: AtomicU64,
    /// The connection's task.
    driver: AtomicWaker,
}

/// What a connection goes by until its server has said how many streams it allows: a number that no server says.
pub(super) const UNTOLD: usize = 97;

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(UNTOLD),
            served: AtomicU64::new(0),
            driver: AtomicWaker::new(),
        }
    }

    /// Whether the server has said how many it allows, as far as the connection's task has seen.
    pub(super) fn is_told(&self) -> bool {
        self.most.load(Relaxed) != UNTOLD
    }

    /// The connection's task looks whether the server has said how many it allows: it has, once it has answered.
    pub(super) fn look(&self) {
        if !self.is_told() {
            self.driver.wake();
        }
    }

    fn numbers(&self) -> (usize, usize) {
        (self.open.load(Relaxed), self.most.load(Relaxed))
    }

    /// Whether less than four fifths are open.
    pub(super) fn is_roomy(&self) -> bool {
        let (open, most) = self.numbers();
        open < most - most / 5
    }

    /// Whether one more would have to wait.
    pub(super) fn is_full(&self) -> bool {
        let (open, most) = self.numbers();
        open >= most
    }

    /// How full it is beside others.
    pub(super) fn share(&self) -> f64 {
        let (open, most) = self.numbers();
        open as f64 / most.max(1) as f64
    }

    /// How many there were, if none is open.
    pub(super) fn idle(&self) -> Option<u64> {
        (self.open.load(Relaxed) == 0).then(|| self.served.load(Relaxed))
    }

    /// Notes how many the server allows.
    fn allow(&self, most: usize) {
        if self.most.load(Relaxed) != most {
            self.most.store(most, Relaxed);
        }
    }
}

/// One stream, from before its request is sent until its answer has been read, or nobody wants it any more.
#[derive(Debug)]
pub(super) struct InUse(Arc<Streams>);

impl InUse {
    pub(super) fn of(streams: &Arc<Streams>) -> Arc<Self> {
        streams.open.fetch_add(1, Relaxed);
        streams.served.fetch_add(1, Relaxed);
        Arc::new(Self(Arc::clone(streams)))
    }
}

impl InUse {
    pub(super) fn streams(&self) -> &Streams {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// It ends by being dropped.
impl Ends for InUse {
    fn ended(self: Arc<Self>, _: Verdict, _: Option<Verdict>) {}
}

/// A connection, which looks what its server allows whenever its task runs: when a request is sent, or somebody has it look. hyper
/// does not wake it for that.
#[pin_project]
pub(super) struct Driven<C> {
    #[pin]
    connection: C,
    streams: Arc<Streams>,
    allowed: fn(&C) -> usize,
}

impl<C> Driven<C> {
    pub(super) fn new(connection: C, streams: Arc<Streams>, allowed: fn(&C) -> usize) -> Self {
        Self { connection, streams, allowed }
    }
}

impl<C: Future> Future for Driven<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let mut this = self.project();
        let polled = this.connection.as_mut().poll(cx);
        if polled.is_pending() {
            if !this.streams.is_told() {
                this.streams.driver.register(cx.waker());
            }
            this.streams.allow((this.allowed)(&this.connection));
        }
        polled
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_is_where_the_room_ends_whatever_the_server_allows() {
        for (most, roomy) in [(1, 1), (2, 2), (5, 4), (100, 80), (usize::MAX, 1_000)] {
            let streams = Arc::new(Streams::new());
            streams.allow(most);
            let mut open = Vec::new();
            while streams.is_roomy() && open.len() < 1_000 {
                open.push(InUse::of(&streams));
            }
            assert_eq!(open.len(), roomy, "of {most}");
            assert_eq!(streams.is_full(), roomy == most);
            assert_eq!(streams.idle(), None);
            drop(open);
            assert_eq!(streams.idle(), Some(roomy as u64));
        }
    }
}
