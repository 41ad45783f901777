//! What somebody may do to an endpoint by hand.

use std::time::{Duration, Instant};

use super::{Health, HealthOptions, Ledger, Sentence, Transition, Trip, state::Phase};
use crate::{random::Random, sync::lock};

impl Health {
    /// Keeps the endpoint out until it is [restored](Self::restore_by_hand), whatever else happens to it. What it has in
    /// flight goes on.
    pub fn drain(&self, now: Instant, ledger: &Ledger) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if detail.aside().drained.is_some() {
            return None;
        }
        detail.change_aside(|aside| aside.drained = Some(now));
        self.publish(&mut detail, ledger);
        Some(Transition::Drained)
    }

    /// Ejects the endpoint, or ejects it anew, for `lasts` or for what the options say. That is no judgement: neither the cap
    /// nor the last endpoint stands in the way. It comes back as others do.
    pub fn eject_by_hand(
        &self,
        lasts: Option<Duration>,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if std::mem::take(&mut detail.judged) {
            ledger.unjudge(&detail);
        }
        self.eject(&mut detail, now, Sentence { why: Trip::ByHand, lasts }, options, ledger, random)
    }

    /// Puts the endpoint back, whatever kept it out but its registry or its connection: what it did is forgotten, and what it
    /// asked for is not heeded.
    pub fn restore_by_hand(&self, now: Instant, ledger: &Ledger) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        let aside = detail.aside();
        if detail.phase == Phase::In && aside.drained.is_none() && aside.backing_off.is_none() {
            return None;
        }
        detail.change_aside(|aside| (aside.drained, aside.backing_off) = (None, None));
        (detail.ejections, detail.lasted) = (0, Duration::ZERO);
        // As a new state: what was sent before says nothing about it.
        self.restore(&mut detail, now, false, ledger);
        Some(Transition::RestoredByHand)
    }
}
