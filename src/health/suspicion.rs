//! What is only heard of an endpoint.

use std::time::{Duration, Instant};

use super::{Health, HealthOptions, Ledger, Transition, Trip, state::Phase};
use crate::sync::lock;

impl Health {
    /// Somebody else finds the endpoint dead: the next request decides, and without one it returns after `lasts`, at most
    /// [`probe_wait`](HealthOptions::probe_wait). That is a judgement, and nothing comes of it where a request has just succeeded,
    /// or the endpoint is not available anyway.
    pub fn suspect(
        &self,
        lasts: Duration,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
    ) -> Option<Transition> {
        if !options.enabled || self.has_just_succeeded(now) {
            return None;
        }
        let mut detail = lock(&self.detail);
        // What is out anyway is suspected of nothing, and takes no room of the cap.
        if !self.is_available() || !ledger.permit(&mut detail, true, options.max_ejected.get()) {
            return None;
        }
        (detail.judged, detail.why) = (true, Trip::Hearsay);
        // Its time of health ends here, whatever the request shows.
        detail.ejections = self.remembered(&detail, now);
        detail.until = Some(now + lasts.min(options.probe_wait));
        self.enter(&mut detail, Phase::Probation, now, ledger);
        Some(Transition::Suspected)
    }

    /// Somebody else was asked to leave the endpoint alone for `lasts`: it is, for at most
    /// [`back_off`](HealthOptions::back_off), unless a request has just succeeded. Nothing comes of it where the endpoint is not
    /// available anyway, and where as many are out as [`max_ejected`](HealthOptions::max_ejected) allows, or no other would be left.
    pub fn heed(
        &self,
        lasts: Duration,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
    ) -> Option<Transition> {
        let lasts = lasts.min(options.back_off).min(options.back_off_cap);
        if lasts.is_zero() || self.has_just_succeeded(now) {
            return None;
        }
        let mut detail = lock(&self.detail);
        if !ledger.spare(&mut detail, options.max_ejected.get()) {
            return None;
        }
        self.leave_alone(&mut detail, lasts, now, ledger)
    }
}
