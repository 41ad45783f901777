//! Asking again and again: the machinery of every resolver that must ask.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, Id};

use super::{PollOptions, Resolution};
use crate::{
    Invalid,
    alarm::Alarm,
    clock,
    random::{Entropy, Random, unit},
};

/// One look-up under way.
pub(super) type Answer = Pin<Box<dyn Future<Output = Told> + Send>>;

/// What was told, and how long it holds, where that is known.
pub(super) struct Told {
    pub(super) resolution: Resolution,
    pub(super) holds: Option<Duration>,
    /// What could not be found out of it, which is told after it.
    pub(super) trouble: Option<Resolution>,
}

impl From<Resolution> for Told {
    fn from(resolution: Resolution) -> Self {
        Self { resolution, holds: None, trouble: None }
    }
}

/// Asks, rests, and asks again.
///
/// After an answer it rests for as long as it holds, or for the interval, spread by its jitter; after a failure it backs off. An answer that does
/// not come in time is a failure. Dropping it ends the look-up under way.
pub(super) struct Periodic {
    options: PollOptions,
    random: Arc<dyn Random>,
    ask: Box<dyn FnMut() -> Answer + Send>,
    phase: Phase,
    alarm: Alarm,
    /// The runtime that a look-up belongs to.
    runtime: Option<Id>,
    /// Told next.
    trouble: Option<Resolution>,
    waker: Option<Waker>,
    failures: u32,
    /// The rest before, which a decorrelated back-off goes by.
    rest: Duration,
}

enum Phase {
    New,
    Due,
    Asking { answer: Answer, limit: Instant },
    Resting { since: Instant, until: Instant },
    Over,
}

impl Periodic {
    pub(super) fn new(options: PollOptions, ask: impl FnMut() -> Answer + Send + 'static) -> Self {
        Self {
            options,
            random: Arc::new(Entropy),
            ask: Box::new(ask),
            phase: Phase::New,
            alarm: Alarm::default(),
            runtime: None,
            trouble: None,
            waker: None,
            failures: 0,
            rest: Duration::ZERO,
        }
    }

    pub(super) fn options(&self) -> &PollOptions {
        &self.options
    }

    pub(super) fn set_options(&mut self, options: PollOptions) {
        self.options = options;
    }

    /// Replaces what asks.
    #[cfg(feature = "dns")]
    pub(super) fn set_ask(&mut self, ask: impl FnMut() -> Answer + Send + 'static) {
        self.ask = Box::new(ask);
    }

    pub(super) fn set_random(&mut self, random: Arc<dyn Random>) {
        self.random = random;
    }

    /// Whether nothing was asked yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.phase, Phase::New)
    }

    /// Never asks, because of mistakes that no look-up can mend.
    pub(super) fn refuse(&mut self, invalid: Invalid) -> Poll<Option<Resolution>> {
        self.phase = Phase::Over;
        Poll::Ready(Some(Resolution::Failed(Arc::new(invalid))))
    }

    /// The next answer. It ends only when it was refused.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.move_to_current_runtime();
        self.waker = Some(cx.waker().clone());
        if let Some(trouble) = self.trouble.take() {
            return Poll::Ready(Some(trouble));
        }
        loop {
            match &mut self.phase {
                Phase::Resting { until, .. } => {
                    if !self.alarm.poll(cx, Some(*until)) {
                        return Poll::Pending;
                    }
                    self.phase = Phase::Due;
                }
                Phase::New | Phase::Due => {
                    let limit = clock::now() + self.options.timeout;
                    self.phase = Phase::Asking { answer: (self.ask)(), limit };
                }
                Phase::Over => return Poll::Ready(None),
                Phase::Asking { answer, limit } => {
                    let told = match answer.as_mut().poll(cx) {
                        Poll::Ready(told) => told,
                        Poll::Pending => {
                            if !self.alarm.poll(cx, Some(*limit)) {
                                return Poll::Pending;
                            }
                            Resolution::Failed(Arc::new(TooSlow(self.options.timeout))).into()
                        }
                    };
                    self.rest_after(&told);
                    self.trouble = told.trouble;
                    return Poll::Ready(Some(told.resolution));
                }
            }
        }
    }

    /// Ends the rest early, but not before the floor has passed since the last answer. A back-off is not cut short: who
    /// could not answer is not asked more often because the answer is missed.
    pub(super) fn refresh(&mut self) {
        let Phase::Resting { since, until, .. } = self.phase else { return };
        let early = since + self.options.floor;
        if self.failures > 0 || early >= until {
            return;
        }
        self.phase = Phase::Resting { since, until: early };
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn rest_after(&mut self, told: &Told) {
        self.rest = if matches!(told.resolution, Resolution::Failed(_)) {
            self.failures = self.failures.saturating_add(1);
            self.options.backoff.delay(self.failures, self.rest, &*self.random)
        } else {
            self.failures = 0;
            let spread = self.options.jitter.get() * (2.0 * unit(self.random.next()) - 1.0);
            told.holds.unwrap_or(self.options.interval).mul_f64(1.0 + spread)
        };
        let now = clock::now();
        self.phase = Phase::Resting { since: now, until: now + self.rest };
    }

    /// A look-up dies with its runtime; a resolver may outlive it and be polled on another one.
    fn move_to_current_runtime(&mut self) {
        let current = Handle::try_current().ok().map(|handle| handle.id());
        if self.runtime != current {
            self.runtime = current;
            if matches!(self.phase, Phase::Asking { .. }) {
                self.phase = Phase::Due;
            }
        }
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Phase::New => "new",
            Phase::Due => "due",
            Phase::Over => "over",
            Phase::Resting { .. } => "resting",
            Phase::Asking { .. } => "asking",
        };
        f.debug_struct("Periodic")
            .field("options", &self.options)
            .field("phase", &phase)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// The answer did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the look-up took longer than {0:?}")]
struct TooSlow(Duration);
