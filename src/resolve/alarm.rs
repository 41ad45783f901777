//! A timer that survives the runtime it was set on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    runtime::{Handle, Id},
    time::Sleep,
};

/// Wakes a resolver at a time that may change between polls.
///
/// A timer dies with its runtime; a resolver may outlive it and be polled on another one.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    set: Option<(Instant, Option<Id>, Pin<Box<Sleep>>)>,
}

impl Alarm {
    /// Whether `at` has come. If not, the task of `cx` is woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> bool {
        let Some(at) = at else {
            self.set = None;
            return false;
        };
        let runtime = Handle::try_current().ok().map(|handle| handle.id());
        if !self.set.as_ref().is_some_and(|(until, on, _)| *until == at && *on == runtime) {
            self.set = Some((at, runtime, Box::pin(tokio::time::sleep_until(at.into()))));
        }
        match &mut self.set {
            Some((_, _, sleep)) => matches!(sleep.as_mut().poll(cx), Poll::Ready(())),
            None => false,
        }
    }
}
