//! Changes that are worth telling.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{error::Cause, health::Trip};

/// Something that changed in a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The name stands for another set of endpoints.
    Resolved {
        /// How many there are now.
        endpoints: usize,
        /// How many were added.
        added: usize,
        /// How many were removed.
        removed: usize,
    },
    /// The name stands for a single address: there is nothing to choose from.
    SingleEndpoint,
    /// A look-up failed; the last good set stays.
    ResolutionFailed {
        /// Why.
        cause: Cause,
    },
    /// The resolver has ended; the last set stays.
    ResolutionEnded,
    /// A connection stands.
    Connected {
        /// To which endpoint.
        endpoint: Arc<str>,
    },
    /// A connection could not be made, or broke.
    Disconnected {
        /// To which endpoint.
        endpoint: Arc<str>,
        /// When it will be tried again, at the earliest: redials of a client take turns.
        redial: Duration,
        /// Why.
        cause: Cause,
    },
    /// An endpoint was set aside.
    Ejected {
        /// Which.
        endpoint: Arc<str>,
        /// The rule that tripped.
        why: Trip,
        /// For how long.
        lasts: Duration,
    },
    /// An endpoint waits for a request that decides over its return.
    Probation {
        /// Which.
        endpoint: Arc<str>,
    },
    /// Another client of this process finds an endpoint dead: it waits for a request that decides.
    Suspected {
        /// Which.
        endpoint: Arc<str>,
    },
    /// An endpoint gets requests again.
    Restored {
        /// Which.
        endpoint: Arc<str>,
        /// Whether a request has proven it, or nobody came to.
        proven: bool,
    },
    /// An operation was set aside at an endpoint, which stays for the others.
    OperationEjected {
        /// At which endpoint.
        endpoint: Arc<str>,
        /// Which operation.
        operation: Arc<str>,
        /// The rule that tripped.
        why: Trip,
        /// For how long.
        lasts: Duration,
    },
    /// An endpoint waits for a request of an operation that decides over its return there.
    OperationProbation {
        /// Which endpoint.
        endpoint: Arc<str>,
        /// Of which operation.
        operation: Arc<str>,
    },
    /// An endpoint gets requests of an operation again.
    OperationRestored {
        /// Which endpoint.
        endpoint: Arc<str>,
        /// Of which operation.
        operation: Arc<str>,
        /// Whether a request has proven it, or nobody came to.
        proven: bool,
    },
    /// An endpoint asked to be left alone.
    BackingOff {
        /// Which.
        endpoint: Arc<str>,
        /// For how long.
        lasts: Duration,
    },
    /// The time an endpoint asked for is over.
    Resumed {
        /// Which.
        endpoint: Arc<str>,
    },
    /// The registry keeps an endpoint out.
    Held {
        /// Which.
        endpoint: Arc<str>,
    },
    /// The registry lets an endpoint in again.
    Released {
        /// Which.
        endpoint: Arc<str>,
    },
    /// An endpoint has no way to say whether it serves, and counts as serving.
    Unwatched {
        /// Which.
        endpoint: Arc<str>,
    },
    /// Somebody keeps an endpoint out by hand.
    Drained {
        /// Which.
        endpoint: Arc<str>,
    },
    /// Somebody put an endpoint back, whatever kept it out.
    RestoredByHand {
        /// Which.
        endpoint: Arc<str>,
    },
    /// Too few endpoints of a priority are available: ejections are set aside, or requests refused, as the panic policy
    /// says.
    PanicEntered {
        /// Of which priority.
        priority: u32,
        /// How many are available.
        available: usize,
        /// Of how many.
        endpoints: usize,
        /// Whether ejections are set aside; if not, what is not available stays out.
        fail_open: bool,
    },
    /// Enough endpoints of a priority are available again, or the others are enough without it.
    PanicLeft {
        /// Of which priority.
        priority: u32,
        /// How many are available.
        available: usize,
        /// Of how many.
        endpoints: usize,
    },
    /// The client uses another part of the endpoints.
    Subset {
        /// How many.
        used: usize,
        /// Of how many.
        of: usize,
    },
    /// A part of the traffic begins to go elsewhere than where it belongs, or all of it is back.
    Spill {
        /// The first priority, or the client's own zone.
        from: Arc<str>,
        /// How much of its traffic goes elsewhere, in percent, when it begins; 0 when all is back.
        percent: u32,
    },
    /// A circuit breaker opened: calls are refused.
    BreakerOpened {
        /// Which: the label of the client, the name of the method, the key.
        breaker: Arc<str>,
        /// The rule that was broken: a [`Trip`](crate::breaker::Trip).
        why: Cause,
        /// For how long.
        lasts: Duration,
    },
    /// The time of an open breaker is over: a few calls decide.
    BreakerHalfOpened {
        /// Which.
        breaker: Arc<str>,
    },
    /// A breaker closed: calls pass.
    BreakerClosed {
        /// Which.
        breaker: Arc<str>,
        /// Whether somebody closed it by hand; if not, its probes did.
        by_hand: bool,
    },
    /// Somebody put a breaker into a state that it does not leave by itself.
    BreakerForced {
        /// Which.
        breaker: Arc<str>,
        /// The name of the state.
        state: &'static str,
    },
    /// A breaker that only measures would have opened.
    BreakerExceeded {
        /// Which.
        breaker: Arc<str>,
        /// The rule that was broken: a [`Trip`](crate::breaker::Trip).
        why: Cause,
    },
    /// So much of the capacity is in use that nothing is sent a second time beside its first attempt.
    HedgingPaused,
    /// There is room for that again.
    HedgingResumed,
    /// The options were replaced.
    Updated,
    /// The client was closed.
    Closed,
}

impl Event {
    /// A word for metrics and for counting by kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resolved { .. } => "resolved",
            Self::SingleEndpoint => "single_endpoint",
            Self::ResolutionFailed { .. } => "resolution_failed",
            Self::ResolutionEnded => "resolution_ended",
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Ejected { .. } => "ejected",
            Self::Probation { .. } => "probation",
            Self::Suspected { .. } => "suspected",
            Self::Restored { .. } => "restored",
            Self::OperationEjected { .. } => "operation_ejected",
            Self::OperationProbation { .. } => "operation_probation",
            Self::OperationRestored { .. } => "operation_restored",
            Self::Held { .. } => "held",
            Self::Released { .. } => "released",
            Self::Unwatched { .. } => "unwatched",
            Self::Drained { .. } => "drained",
            Self::RestoredByHand { .. } => "restored_by_hand",
            Self::BackingOff { .. } => "backing_off",
            Self::Resumed { .. } => "resumed",
            Self::PanicEntered { .. } => "panic_entered",
            Self::PanicLeft { .. } => "panic_left",
            Self::Subset { .. } => "subset",
            Self::Spill { .. } => "spill",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::BreakerHalfOpened { .. } => "breaker_half_opened",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::BreakerForced { .. } => "breaker_forced",
            Self::BreakerExceeded { .. } => "breaker_exceeded",
            Self::HedgingPaused => "hedging_paused",
            Self::HedgingResumed => "hedging_resumed",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }

    /// Whether somebody should look: an endpoint or the whole fleet is in trouble.
    fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Spill { percent: 1.., .. }
                | Self::SingleEndpoint
                | Self::ResolutionFailed { .. }
                | Self::Disconnected { .. }
                | Self::Ejected { .. }
                | Self::Suspected { .. }
                | Self::OperationEjected { .. }
                | Self::PanicEntered { .. }
                | Self::BreakerHalfOpened { .. }
                | Self::BreakerForced { .. }
                | Self::BreakerExceeded { .. }
        )
    }

    /// Whether somebody should be woken: callers are being turned away.
    fn is_alarm(&self) -> bool {
        matches!(self, Self::BreakerOpened { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { endpoints, added, removed } => {
                write!(f, "resolved to {endpoints} endpoints ({added} added, {removed} removed)")
            }
            Self::SingleEndpoint => f.write_str("resolved to a single address: nothing to balance over"),
            Self::ResolutionFailed { cause } => write!(f, "resolution failed, the last set stays: {cause}"),
            Self::ResolutionEnded => f.write_str("the resolver has ended, the last set stays"),
            Self::Connected { endpoint } => write!(f, "{endpoint}: connected"),
            Self::Disconnected { endpoint, redial, cause } => {
                write!(f, "{endpoint}: not connected, next try in {redial:?} at the earliest: {cause}")
            }
            Self::Ejected { endpoint, why, lasts } => {
                write!(f, "{endpoint}: ejected for {lasts:?}: {why}")
            }
            Self::Probation { endpoint } => write!(f, "{endpoint}: waits for a request that proves it"),
            Self::Suspected { endpoint } => {
                write!(f, "{endpoint}: another client finds it dead, waits for a request that proves it")
            }
            Self::Restored { endpoint, proven: true } => write!(f, "{endpoint}: back, proven"),
            Self::Restored { endpoint, proven: false } => write!(f, "{endpoint}: back, unproven"),
            Self::OperationEjected { endpoint, operation, why, lasts } => {
                write!(f, "{endpoint}: {operation} is kept from it for {lasts:?}: {why}")
            }
            Self::OperationProbation { endpoint, operation } => {
                write!(f, "{endpoint}: waits for a request of {operation} that proves it")
            }
            Self::OperationRestored { endpoint, operation, proven } => {
                let proven = if *proven { "proven" } else { "unproven" };
                write!(f, "{endpoint}: {operation} is back, {proven}")
            }
            Self::BackingOff { endpoint, lasts } => {
                write!(f, "{endpoint}: asks to be left alone for {lasts:?}")
            }
            Self::Resumed { endpoint } => write!(f, "{endpoint}: may be asked again"),
            Self::Held { endpoint } => write!(f, "{endpoint}: kept out by its registry"),
            Self::Released { endpoint } => write!(f, "{endpoint}: let in by its registry"),
            Self::Unwatched { endpoint } => {
                write!(f, "{endpoint}: does not say whether it serves, counts as serving")
            }
            Self::Drained { endpoint } => write!(f, "{endpoint}: drained by hand"),
            Self::RestoredByHand { endpoint } => write!(f, "{endpoint}: put back by hand"),
            Self::PanicEntered { priority, available, endpoints, fail_open } => {
                let policy = if *fail_open { "ejections are set aside" } else { "ejections stand" };
                write!(
                    f,
                    "panic: only {available} of {endpoints} endpoints of priority {priority} are available, {policy}"
                )
            }
            Self::PanicLeft { priority, available, endpoints } => {
                write!(
                    f,
                    "panic over: {available} of {endpoints} endpoints of priority {priority} are available"
                )
            }
            Self::Subset { used, of } => write!(f, "a subset of {used} of {of} endpoints is used"),
            Self::Spill { from, percent: 0 } => write!(f, "{from}: all of its traffic is back"),
            Self::Spill { from, percent } => write!(f, "{from}: {percent} % of its traffic goes elsewhere"),
            Self::BreakerOpened { breaker, why, lasts } => {
                write!(f, "breaker {breaker}: open for {lasts:?}: {why}")
            }
            Self::BreakerHalfOpened { breaker } => write!(f, "breaker {breaker}: half-open"),
            Self::BreakerClosed { breaker, by_hand: false } => write!(f, "breaker {breaker}: closed"),
            Self::BreakerClosed { breaker, by_hand: true } => {
                write!(f, "breaker {breaker}: closed by hand")
            }
            Self::BreakerForced { breaker, state } => write!(f, "breaker {breaker}: {state} by hand"),
            Self::BreakerExceeded { breaker, why } => write!(f, "breaker {breaker}: would be open: {why}"),
            Self::HedgingPaused => f.write_str("no hedges: too much of the capacity is in use"),
            Self::HedgingResumed => f.write_str("there is room for hedges again"),
            Self::Updated => f.write_str("options replaced"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// Is told the events of clients.
pub trait Observer: Send + Sync + 'static {
    /// `event` has just happened in the client with this label. Called outside of any lock, by whichever task noticed;
    /// it must not block.
    fn event(&self, client: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync + 'static> Observer for F {
    fn event(&self, client: &str, event: &Event) {
        self(client, event);
    }
}

/// The observers of one client.
#[derive(Default)]
pub(crate) struct Observers(Mutex<Vec<Arc<dyn Observer>>>);

impl Observers {
    pub(crate) fn add(&self, observer: Arc<dyn Observer>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    pub(crate) fn tell(&self, client: &str, event: &Event) {
        let kind = event.kind();
        if event.is_alarm() {
            tracing::error!(target: "mainstay", client, kind, "{event}");
        } else if event.is_warning() {
            tracing::warn!(target: "mainstay", client, kind, "{event}");
        } else {
            tracing::info!(target: "mainstay", client, kind, "{event}");
        }
        let observers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers {
            if catch_unwind(AssertUnwindSafe(|| observer.event(client, event))).is_err() {
                tracing::error!(target: "mainstay", client, kind, "an observer panicked");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}
