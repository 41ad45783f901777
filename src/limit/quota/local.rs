//! A quota of this process alone.

use std::{
    future::ready,
    time::{Duration, Instant},
};

use super::{Granted, Quota, Taking};
use crate::{
    Invalid, clock,
    describe::Criticality,
    limit::rate::{Gcra, NotYet, RateLimitOptions},
};

/// A quota that lives in this process: for tests, and for what must hold while a shared one is away.
///
/// Of its options it takes rate and burst; how long a request may wait is said by [`QuotaOptions`](super::QuotaOptions), and
/// all classes of criticality are alike to it.
#[derive(Debug)]
pub struct Local(Gcra);

impl Local {
    /// A quota of this rate and burst, that nothing was taken from.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: RateLimitOptions) -> Result<Self, Invalid> {
        options.validate()?;
        Ok(Self(Gcra::new(&options, clock::now())))
    }

    pub(super) fn set(&self, options: &RateLimitOptions) {
        self.0.set(options, clock::now());
    }

    pub(super) fn ask(&self, now: Instant, weight: u32, patience: Duration) -> Granted {
        match self.0.reserve(now, weight, patience, Criticality::CriticalPlus) {
            Ok(reservation) => Granted::After(reservation.wait),
            Err(NotYet(wait)) => Granted::NotYet(wait),
        }
    }
}

impl Quota for Local {
    fn take(&self, weight: u32, patience: Duration) -> Taking<'_> {
        Box::pin(ready(Ok(self.ask(clock::now(), weight, patience))))
    }
}
