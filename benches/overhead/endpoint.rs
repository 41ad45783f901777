//! The services at the bottom of every row: one answers at once, one suspends exactly once.

use std::{
    future::{self, Future},
    pin::Pin,
    task::{Context, Poll},
};

use tower::Service;

use crate::case::Case;

/// Nothing but the service: the floor.
pub(crate) fn bare() -> Case {
    Case::shared("bare", request, |_| AtOnce)
}

/// The request of every row that is not about a protocol.
pub(crate) fn request(call: u64) -> u64 {
    call
}

/// The error no call ever has; the layers cannot know.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the endpoint failed")]
pub(crate) struct Failed;

/// Answers at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce;

impl Service<u64> for AtOnce {
    type Response = u64;
    type Error = Failed;
    type Future = future::Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        future::ready(Ok(request))
    }
}

/// Wakes itself and is pending on the first poll; answers on the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SuspendOnce;

impl Service<u64> for SuspendOnce {
    type Response = u64;
    type Error = Failed;
    type Future = Suspended;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Suspended {
        Suspended { request, polled: false }
    }
}

/// The future of [`SuspendOnce`].
#[derive(Debug)]
pub(crate) struct Suspended {
    request: u64,
    polled: bool,
}

impl Future for Suspended {
    type Output = Result<u64, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polled {
            return Poll::Ready(Ok(self.request));
        }
        self.polled = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
