//! What resolutions mean for requests: a flap of the registry is no outage.

use std::time::{Duration, Instant};

use super::{Endpoints, Resolution};
use crate::error::Cause;

/// What requests go by.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Effective {
    /// Nothing is known yet: requests wait.
    #[default]
    Pending,
    /// These endpoints; an empty set refuses at once.
    Bound(Endpoints),
    /// The name does not exist: requests are refused at once.
    Absent,
}

/// Holds on to the last good set.
///
/// A set with endpoints takes effect at once. `Pending` and `Failed` change nothing once there was a set. `Absent` and
/// an empty set take effect at once where there was nothing to lose, else after a grace period during which nothing
/// better came.
#[derive(Debug)]
pub struct Steady {
    grace: Duration,
    effective: Effective,
    /// What takes effect when the grace period is over.
    loss: Option<(Instant, Effective)>,
    failure: Option<Cause>,
}

impl Steady {
    /// Nothing is known; losses take effect after `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { grace, effective: Effective::Pending, loss: None, failure: None }
    }

    /// Losses take effect after `grace` from now on; one that has begun already does so when it would have.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Takes a resolution in, and says whether what requests go by has changed.
    pub fn take(&mut self, now: Instant, resolution: Resolution) -> bool {
        let lost = match resolution {
            Resolution::Pending => return false,
            Resolution::Failed(cause) => {
                self.failure = Some(cause);
                return false;
            }
            Resolution::Bound(set) if !set.is_empty() => {
                self.failure = None;
                self.loss = None;
                self.effective = Effective::Bound(set);
                return true;
            }
            Resolution::Bound(set) => Effective::Bound(set),
            Resolution::Absent => Effective::Absent,
        };
        self.failure = None;
        if matches!(&self.effective, Effective::Bound(set) if !set.is_empty()) {
            let until = self.loss.take().map_or(now + self.grace, |(until, _)| until);
            self.loss = Some((until, lost));
            return false;
        }
        self.effective = lost;
        true
    }

    /// Does what time has brought, and says whether what requests go by has changed.
    pub fn due(&mut self, now: Instant) -> bool {
        match self.loss.take_if(|(until, _)| *until <= now) {
            Some((_, lost)) => {
                self.effective = lost;
                true
            }
            None => false,
        }
    }

    /// When [`due`](Self::due) will have something to do.
    pub fn next(&self) -> Option<Instant> {
        self.loss.as_ref().map(|(until, _)| *until)
    }

    /// What requests go by.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Why the last look-up failed, if it did.
    pub fn failure(&self) -> Option<&Cause> {
        self.failure.as_ref()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Error, Reason, clock};

    const GRACE: Duration = Duration::from_secs(30);

    fn size(steady: &Steady) -> Option<usize> {
        match steady.effective() {
            Effective::Bound(set) => Some(set.len()),
            _ => None,
        }
    }

    #[test]
    fn a_good_set_survives_silence_failure_and_a_flap() {
        let (now, mut steady) = (clock::now(), Steady::new(GRACE));
        assert!(steady.take(now, Resolution::bound(["a:1", "b:1"])));
        assert!(!steady.take(now, Resolution::Pending));
        assert!(!steady.take(now, Resolution::Failed(Arc::new(Error::new(Reason::Connect)))));
        assert!(steady.failure().is_some());
        assert!(!steady.take(now, Resolution::Absent));
        assert!(!steady.take(now, Resolution::bound([""; 0])));
        assert_eq!(size(&steady), Some(2));
        assert!(steady.take(now + GRACE / 2, Resolution::bound(["a:1"])));
        assert_eq!(steady.next(), None, "the loss is forgotten");
    }

    #[test]
    fn a_loss_that_lasts_takes_effect_counted_from_its_beginning() {
        let (now, mut steady) = (clock::now(), Steady::new(GRACE));
        steady.take(now, Resolution::bound(["a:1"]));
        steady.take(now, Resolution::bound([""; 0]));
        steady.take(now + GRACE / 2, Resolution::Absent);
        assert!(!steady.due(now + GRACE - Duration::from_millis(1)));
        assert!(steady.due(now + GRACE));
        assert!(matches!(steady.effective(), Effective::Absent));
    }

    #[test]
    fn with_nothing_to_lose_absence_takes_effect_at_once() {
        let (now, mut steady) = (clock::now(), Steady::new(GRACE));
        assert!(steady.take(now, Resolution::Absent));
        assert!(matches!(steady.effective(), Effective::Absent));
        assert!(steady.take(now, Resolution::bound(["a:1"])));
    }
}
