//! A timer that survives the runtime it was set on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    runtime::{Handle, Id},
    time::{Sleep, sleep_until},
};

use crate::clock;

/// Wakes whoever polls it at a time that may change between polls.
///
/// A timer dies with its runtime; what holds one may outlive that, and be polled on another one, or on none, where nobody
/// can keep time and it is looked at with each poll.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<(Id, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Whether `at` has come. If not, the task of `cx` is woken then.
    ///
    /// A timer that is set too early is left as it is: it is cheaper to be woken once than to move it with each poll.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> bool {
        let Some(at) = at else {
            self.0 = None;
            return false;
        };
        if clock::now() >= at {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        if self.0.as_ref().is_none_or(|(on, _)| *on != runtime.id()) {
            self.0 = Some((runtime.id(), Box::pin(sleep_until(at.into()))));
        }
        let Some((_, sleep)) = &mut self.0 else { return false };
        if sleep.is_elapsed() || sleep.deadline().into_std() > at {
            sleep.as_mut().reset(at.into());
        }
        if sleep.as_mut().poll(cx).is_ready() {
            // It was set for an earlier time, or the clock has gone on since it was looked at.
            sleep.as_mut().reset(at.into());
            return sleep.as_mut().poll(cx) == Poll::Ready(());
        }
        false
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn rings(alarm: &mut Alarm, at: Instant) {
        poll_fn(|cx| if alarm.poll(cx, Some(at)) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn is_silent(alarm: &mut Alarm, at: Option<Instant>) -> bool {
        !alarm.poll(&mut Context::from_waker(std::task::Waker::noop()), at)
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_its_time_whether_that_was_moved_forth_or_back() {
        let (mut alarm, start) = (Alarm::default(), clock::now());
        for (first, then) in [(5, 9), (40, 20), (30, 30)] {
            assert!(is_silent(&mut alarm, Some(start + first * SECOND)));
            rings(&mut alarm, start + then * SECOND).await;
            assert_eq!(clock::now() - start, then * SECOND);
        }
        assert!(is_silent(&mut alarm, None));
    }

    #[test]
    fn it_goes_on_where_its_runtime_has_ended_and_where_there_is_none() {
        let (mut alarm, at) = (Alarm::default(), clock::now() + Duration::from_millis(50));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime().block_on(async { assert!(is_silent(&mut alarm, Some(at))) });
        assert!(is_silent(&mut alarm, Some(at)));
        runtime().block_on(rings(&mut alarm, at));
        assert!(clock::now() >= at);
    }
}
