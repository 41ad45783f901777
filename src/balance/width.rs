//! How many requests may be in flight at one endpoint, where that is found out.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::member::Member;
use crate::{
    context,
    limit::{Algorithm, Meter, Shown},
    outcome::{Class, Verdict},
    sync::{AtomicU32, Ordering::Relaxed},
    track::{Ends, Guard},
};

/// The limit of one endpoint, and what decides it.
pub(crate) struct Width {
    meter: Meter,
    most: AtomicU32,
}

impl Width {
    /// `None` for an algorithm that decides nothing.
    pub(crate) fn new(algorithm: &Algorithm) -> Option<Box<Self>> {
        let controller = algorithm.controller()?;
        let most = AtomicU32::new(controller.limit());
        Some(Box::new(Self { meter: Meter::new(Some(controller)), most }))
    }

    #[inline]
    pub(crate) fn most(&self) -> u32 {
        self.most.load(Relaxed)
    }

    /// An attempt at `member` has come to its head after so long, at so many nanoseconds.
    #[cold]
    pub(crate) fn head(&self, member: &Member, class: Class, lasted: Duration, nanos: u64) {
        let shown = match class {
            Class::Success => Shown::Took(lasted),
            Class::BackOff => Shown::Dropped,
            Class::Failure | Class::Inconclusive => Shown::Nothing,
        };
        self.meter.held(lasted);
        self.tell(member, shown, nanos);
    }

    /// The place was held for so long after the head, for the body.
    #[cold]
    fn body(&self, lasted: Duration) {
        self.meter.held(lasted);
    }

    /// The limit of attempts cut one off.
    #[cold]
    pub(crate) fn timed_out(&self, member: &Member, nanos: u64) {
        self.tell(member, Shown::Dropped, nanos);
    }

    /// An attempt was given up after so long.
    #[cold]
    pub(crate) fn given_up(&self, member: &Member, lasted: Duration, nanos: u64) {
        self.meter.held(lasted);
        let shown = if self.meter.is_long(lasted) { Shown::GivenUp(lasted) } else { Shown::Nothing };
        self.tell(member, shown, nanos);
    }

    fn tell(&self, member: &Member, shown: Shown, nanos: u64) {
        let in_flight = member.in_flight.load(Relaxed);
        self.meter.count(shown, in_flight, nanos, |limit| {
            if self.most.swap(limit, Relaxed) < limit {
                // Each of those who find a place wakes the next.
                member.fleet.waiters.wake_next();
            }
        });
    }
}

/// A body that is being read, and since when.
pub(crate) struct Reading {
    member: Arc<Member>,
    since: Instant,
}

impl Reading {
    /// What to hang on the response of `member`, if its limit is found out.
    pub(crate) fn guard(member: &Arc<Member>, since: Instant, verdict: Verdict) -> Option<Guard> {
        member.width.as_ref()?;
        Some(Guard::new(Arc::new(Self { member: member.clone(), since }), verdict))
    }
}

impl Ends for Reading {
    fn ended(self: Arc<Self>, _: Verdict, _: Option<Verdict>) {
        if let Some(width) = &self.member.width {
            width.body(context::now().saturating_duration_since(self.since));
        }
    }
}

impl fmt::Debug for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Width").field("most", &self.most()).finish_non_exhaustive()
    }
}
