//! A breaker at work: it tells its changes, and has time kept for it.

use std::{
    cell::Cell,
    fmt,
    sync::{Arc, Weak},
};

use tokio::task::AbortHandle;

use super::{Admission, BreakerOptions, Change, CircuitBreaker, Moved, Refusal, teller::Teller};
use crate::{
    clock, context,
    error::{Error, Reason},
    invalid::Invalid,
    outcome::Verdict,
    random::Random,
    sync::{Mutex, lock},
    telemetry::{Event, Observers},
};

/// What breakers of one owner share.
#[derive(Clone)]
pub(crate) struct Owner {
    /// The label in errors and events.
    pub(crate) client: Arc<str>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) random: Arc<dyn Random>,
}

/// One breaker with all that it needs around it.
pub(super) struct Live {
    pub(super) circuit: CircuitBreaker,
    /// What it guards.
    pub(super) name: Arc<str>,
    pub(super) owner: Owner,
    teller: Teller,
    /// The task that keeps time while there is a time to keep.
    clock: Mutex<Option<AbortHandle>>,
}

impl Live {
    pub(super) fn new(name: Arc<str>, options: BreakerOptions, owner: Owner) -> Result<Self, Invalid> {
        let circuit = CircuitBreaker::new(options, clock::now())?;
        Ok(Self { circuit, name, owner, teller: Teller::default(), clock: Mutex::new(None) })
    }

    /// Lets a call pass, or says why not.
    #[inline]
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, Error> {
        match self.circuit.pass(context::now) {
            Some(admission) => Ok(admission),
            None => self.admit_slowly(),
        }
    }

    #[cold]
    fn admit_slowly(self: &Arc<Self>) -> Result<Admission, Error> {
        let (admission, change) = self.circuit.admit_slowly(context::now());
        self.changed(change);
        if admission.as_ref().is_ok_and(Admission::is_probe) {
            self.keep_time(false);
        }
        admission.map_err(|refusal| self.error(&refusal))
    }

    /// Replaces the options.
    pub(super) fn update(self: &Arc<Self>, options: BreakerOptions) -> Result<(), Invalid> {
        let change = self.circuit.update(options, clock::now(), &*self.owner.random)?;
        self.changed(change);
        Ok(())
    }

    fn error(&self, refusal: &Refusal) -> Error {
        let mut error = Error::new(Reason::Breaker)
            .with_client(self.owner.client.clone())
            .with_lasted(refusal.lasted)
            .with_cause(Arc::new(refusal.why));
        // A key may well be called as the client is; what has no name of its own shares the client's.
        if !Arc::ptr_eq(&self.name, &self.owner.client) {
            error = error.with_key(self.name.clone());
        }
        match refusal.remaining {
            Some(remaining) => error.with_retry_after(remaining),
            None => error,
        }
    }

    /// A call has ended; `unread` if nobody has read the clock since its answer came.
    #[inline]
    pub(super) fn end(self: &Arc<Self>, admission: Admission, verdict: Verdict, unread: bool) {
        let unread = Cell::new(unread);
        let now = || {
            if unread.take() {
                context::forget_now();
            }
            context::now()
        };
        let change = self.circuit.end(admission, verdict, now, &*self.owner.random);
        if change.is_some() {
            self.changed(change);
        }
    }

    #[cold]
    pub(super) fn changed(self: &Arc<Self>, change: Option<Change>) {
        let Some(change) = change else { return };
        if matches!(change.what, Moved::Opened { .. }) {
            self.keep_time(true);
        }
        self.tell(change);
    }

    fn tell(&self, change: Change) {
        self.teller.hand_in(change, |change| {
            let breaker = self.name.clone();
            let event = match change.what {
                Moved::Opened { why, lasts } => Event::BreakerOpened { breaker, why: Arc::new(why), lasts },
                Moved::HalfOpened => Event::BreakerHalfOpened { breaker },
                Moved::Closed { by_hand } => Event::BreakerClosed { breaker, by_hand },
                Moved::Forced(state) => Event::BreakerForced { breaker, state: state.name() },
                Moved::Exceeded(why) => Event::BreakerExceeded { breaker, why: Arc::new(why) },
            };
            self.owner.observers.tell(&self.owner.client, &event);
        });
    }

    /// Has the next time kept; `anew` if it may be earlier than the one that is kept already. Without a runtime calls move
    /// the state on when they come.
    fn keep_time(self: &Arc<Self>, anew: bool) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut clock = lock(&self.clock);
        if let Some(running) = &*clock {
            if !anew && !running.is_finished() {
                return;
            }
            running.abort();
        }
        *clock = Some(runtime.spawn(keep_time(Arc::downgrade(self))).abort_handle());
    }
}

async fn keep_time(live: Weak<Live>) {
    loop {
        let Some(this) = live.upgrade() else { return };
        let (change, next) = this.circuit.due(clock::now());
        if let Some(change) = change {
            this.tell(change);
        }
        let next = match next {
            Some(next) => next,
            None => {
                // Whoever sets a time from here on finds that nobody keeps it.
                let mut clock = lock(&this.clock);
                match this.circuit.due(clock::now()) {
                    (None, None) => {
                        *clock = None;
                        return;
                    }
                    (None, Some(next)) => next,
                    (Some(change), next) => {
                        drop(clock);
                        this.tell(change);
                        next.unwrap_or_else(clock::now)
                    }
                }
            }
        };
        drop(this);
        tokio::time::sleep_until(next.into()).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(clock) = lock(&self.clock).take() {
            clock.abort();
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.name).field("state", &self.circuit.state()).finish()
    }
}

/// A call that a breaker has let pass. Dropping it means that it was not made, or says nothing.
pub(crate) struct Pass {
    live: Arc<Live>,
    admission: Option<Admission>,
}

impl Pass {
    pub(super) fn new(live: Arc<Live>, admission: Admission) -> Self {
        Self { live, admission: Some(admission) }
    }

    /// The call has ended.
    #[inline]
    pub(crate) fn end(mut self, verdict: Verdict, unread: bool) {
        if let Some(admission) = self.admission.take() {
            self.live.end(admission, verdict, unread);
        }
    }

    /// The head is there, and the call goes on.
    pub(crate) fn head(&mut self, unread: bool) {
        if unread {
            context::forget_now();
        }
        if let Some(admission) = &mut self.admission {
            self.live.circuit.head(admission, context::now());
        }
    }
}

impl Drop for Pass {
    #[inline]
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.live.circuit.forgo(admission);
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("breaker", &self.live).finish_non_exhaustive()
    }
}
