//! The one timer of a request.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use pin_project::pin_project;
use tokio::time::Sleep;

use super::frame::Frame;

/// A timer that is registered only when a request is suspended, by the outermost layer, for the nearest time that any
/// layer asked for.
#[pin_project]
#[derive(Debug, Default)]
pub(crate) struct Timer {
    #[pin]
    sleep: Option<Sleep>,
    armed: Option<Instant>,
}

impl Timer {
    /// Polls `work`, which may ask for another poll with [`wake_at`](super::wake_at), and sees to it that it gets one.
    #[inline]
    pub(crate) fn poll<T>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        loop {
            let frame = Frame::enter(cx.waker());
            if let Poll::Ready(done) = work(cx) {
                return Poll::Ready(done);
            }
            if !frame.is_outermost() {
                return Poll::Pending;
            }
            let Some(at) = frame.wanted() else { return Poll::Pending };
            drop(frame);
            if self.as_mut().arm(at, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when `at` has come. A timer that is armed for an earlier time stays: it costs one needless poll, where
    /// moving it would cost the runtime's timer lock for every attempt that goes well.
    fn arm(self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        match this.armed {
            // Outside of any runtime nobody can keep time: the request goes on without.
            None if tokio::runtime::Handle::try_current().is_err() => return Poll::Pending,
            None => this.sleep.set(Some(tokio::time::sleep_until(at.into()))),
            Some(armed) if at < *armed => {
                if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                    sleep.reset(at.into());
                }
            }
            Some(_) => {}
        }
        if this.armed.is_none_or(|armed| at < armed) {
            *this.armed = Some(at);
        }
        let Some(sleep) = this.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
        if sleep.poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.sleep.set(None);
        *this.armed = None;
        Poll::Ready(())
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use super::*;
    use crate::{clock, context};

    /// Waits until `at` by asking whoever holds the timer.
    fn until(at: Instant) -> impl Future<Output = Duration> {
        let start = clock::now();
        let mut timer = Box::pin(Timer::default());
        poll_fn(move |cx| {
            timer.as_mut().poll(cx, |_| {
                if context::now() >= at {
                    return Poll::Ready(context::now().saturating_duration_since(start));
                }
                context::wake_at(at);
                Poll::Pending
            })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_that_is_alone_times_itself() {
        assert_eq!(until(clock::now() + Duration::from_millis(70)).await, Duration::from_millis(70));
    }

    #[tokio::test(start_paused = true)]
    async fn the_outermost_layer_wakes_the_inner_ones_at_their_time() {
        let outer = clock::now() + Duration::from_secs(9);
        let mut inner = pin!(until(clock::now() + Duration::from_millis(30)));
        let mut timer = pin!(Timer::default());
        let waited = poll_fn(|cx| {
            timer.as_mut().poll(cx, |cx| {
                context::wake_at(outer);
                inner.as_mut().poll(cx)
            })
        })
        .await;
        assert_eq!(waited, Duration::from_millis(30));
        assert!(timer.armed.is_some(), "the timer is the outer layer's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_waker_in_between_does_not_lose_the_inner_timer() {
        use futures::{StreamExt as _, stream::FuturesUnordered};
        let mut crowd = FuturesUnordered::new();
        crowd.push(until(clock::now() + Duration::from_millis(30)));
        let mut timer = pin!(Timer::default());
        let outer = clock::now() + Duration::from_secs(9);
        let waited = poll_fn(|cx| {
            timer.as_mut().poll(cx, |cx| {
                context::wake_at(outer);
                crowd.poll_next_unpin(cx)
            })
        })
        .await;
        assert_eq!(waited, Some(Duration::from_millis(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_poll_until_somebody_asks_anew() {
        let mut timer = pin!(Timer::default());
        let (first, second) = poll_fn(|cx| {
            timer.as_mut().poll(cx, |_| {
                let first = context::now();
                Poll::Ready((first, context::now()))
            })
        })
        .await;
        assert_eq!(first, second);
    }
}
