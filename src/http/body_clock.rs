//! How long a body may take.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    alarm::Alarm,
    clock, context,
    error::{Error, Reason},
    outcome::Sent,
    track::{BodyLimits, Guard},
};
use http_body::Frame;

/// Whether the body of this clock was cut off.
pub(crate) fn is_over(clock: &Option<Box<BodyClock>>) -> bool {
    clock.as_ref().is_some_and(|clock| clock.is_over)
}

/// Holds a body to its limits.
#[derive(Debug)]
pub(crate) struct BodyClock {
    limits: BodyLimits,
    endpoint: Option<Arc<str>>,
    began: Instant,
    /// Since when its reader waits for more of it.
    waits: Option<Instant>,
    alarm: Alarm,
    is_over: bool,
}

impl BodyClock {
    /// That of the body that `guard` is hung in, if it has limits.
    pub(crate) fn of(guard: &Guard) -> Option<Box<Self>> {
        if guard.limits().is_none() {
            return None;
        }
        Some(Box::new(Self {
            limits: guard.limits(),
            endpoint: guard.endpoint().cloned(),
            began: context::now(),
            waits: None,
            alarm: Alarm::default(),
            is_over: false,
        }))
    }

    /// After the body was polled: the limit that is reached, once; the body is over then. The end of the body, or what
    /// broke it, wins over a limit that is reached in the same poll.
    pub(crate) fn check<D, E>(
        &mut self,
        polled: &Poll<Option<Result<Frame<D>, E>>>,
        is_end: bool,
        cx: &mut Context<'_>,
    ) -> Option<Error> {
        match polled {
            Poll::Ready(None | Some(Err(_))) => return None,
            Poll::Ready(Some(Ok(frame))) if is_end || frame.is_trailers() => return None,
            Poll::Ready(_) | Poll::Pending => {}
        }
        let error = self.reached(polled.is_pending(), cx)?;
        self.is_over = true;
        Some(error)
    }

    /// The limit that is reached. If none is, the reader, if it waits, is woken when one is.
    fn reached(&mut self, waits: bool, cx: &mut Context<'_>) -> Option<Error> {
        if !waits {
            self.waits = None;
            let until = self.limits.until?;
            return (clock::now() >= until).then(|| self.error(Reason::Deadline, until - self.began));
        }
        let now = clock::now();
        let since = *self.waits.get_or_insert(now);
        let stalled = self.limits.idle.and_then(|idle| Some((since.checked_add(idle)?, idle)));
        let until = self.limits.until;
        if until.is_some_and(|until| until <= now) {
            return Some(self.error(Reason::Deadline, now.saturating_duration_since(self.began)));
        }
        if let Some((at, idle)) = stalled
            && at <= now
        {
            return Some(self.error(Reason::Stalled, idle));
        }
        let at = stalled.map(|(at, _)| at).into_iter().chain(until).min()?;
        if self.alarm.poll(cx, Some(at)) {
            // It has come since the clock was read.
            cx.waker().wake_by_ref();
        }
        None
    }

    fn error(&self, reason: Reason, lasted: Duration) -> Error {
        let error = Error::new(reason).with_sent(Sent::Maybe).with_lasted(lasted);
        match &self.endpoint {
            Some(endpoint) => error.with_endpoint(endpoint.clone()),
            None => error,
        }
    }
}
