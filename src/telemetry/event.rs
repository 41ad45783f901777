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
    /// An endpoint gets requests again.
    Restored {
        /// Which.
        endpoint: Arc<str>,
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
    /// Too few endpoints are available: ejections are set aside, or requests refused, as the panic policy says.
    PanicEntered {
        /// How many are available.
        available: usize,
        /// Of how many.
        endpoints: usize,
        /// Whether ejections are set aside; if not, what is not available stays out.
        fail_open: bool,
    },
    /// Enough endpoints are available again.
    PanicLeft {
        /// How many are available.
        available: usize,
        /// Of how many.
        endpoints: usize,
    },
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
            Self::Restored { .. } => "restored",
            Self::BackingOff { .. } => "backing_off",
            Self::Resumed { .. } => "resumed",
            Self::PanicEntered { .. } => "panic_entered",
            Self::PanicLeft { .. } => "panic_left",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }

    /// Whether somebody should look: an endpoint or the whole fleet is in trouble.
    fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::SingleEndpoint
                | Self::ResolutionFailed { .. }
                | Self::Disconnected { .. }
                | Self::Ejected { .. }
                | Self::PanicEntered { .. }
        )
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
                write!(f, "{endpoint}: ejected ({why:?}) for {lasts:?}")
            }
            Self::Probation { endpoint } => write!(f, "{endpoint}: waits for a request that proves it"),
            Self::Restored { endpoint, proven: true } => write!(f, "{endpoint}: back, proven by a request"),
            Self::Restored { endpoint, proven: false } => write!(f, "{endpoint}: back, unproven"),
            Self::BackingOff { endpoint, lasts } => {
                write!(f, "{endpoint}: asks to be left alone for {lasts:?}")
            }
            Self::Resumed { endpoint } => write!(f, "{endpoint}: may be asked again"),
            Self::PanicEntered { available, endpoints, fail_open } => {
                let policy = if *fail_open { "ejections are set aside" } else { "ejections stand" };
                write!(f, "panic: only {available} of {endpoints} endpoints are available, {policy}")
            }
            Self::PanicLeft { available, endpoints } => {
                write!(f, "panic over: {available} of {endpoints} endpoints are available")
            }
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
        if event.is_warning() {
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
