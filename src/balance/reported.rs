//! Weights from what servers say of themselves.

use std::time::{Duration, Instant};

use crate::{
    invalid::{Check, FOREVER, Invalid},
    report::Utilisation,
};

/// gRPC computes weights no more often than this.
const OFTENEST: Duration = Duration::from_millis(100);

/// How reports become weights; the defaults are those of gRPC.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportedOptions {
    /// How long an endpoint must have reported before it goes by that \[10 s\].
    pub blackout: Duration,
    /// How long a report counts \[3 min\].
    pub expiration: Duration,
    /// How much errors count against an endpoint, as a multiple of their share of its requests \[1.0\].
    pub error_penalty: f64,
    /// How often weights are computed anew \[1 s, at least 100 ms\].
    pub every: Duration,
}

impl Default for ReportedOptions {
    fn default() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            error_penalty: 1.0,
            every: Duration::from_secs(1),
        }
    }
}

impl ReportedOptions {
    /// An endpoint must have reported for so long.
    #[must_use]
    pub fn blackout(mut self, blackout: Duration) -> Self {
        self.blackout = blackout;
        self
    }

    /// A report counts for so long.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = expiration;
        self
    }

    /// Errors count so much.
    #[must_use]
    pub fn error_penalty(mut self, penalty: f64) -> Self {
        self.error_penalty = penalty;
        self
    }

    /// Weights are computed anew so often.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(super) fn check(&self, check: &mut Check) {
        let penalty = self.error_penalty;
        check
            .rule(self.blackout <= FOREVER, "blackout", self.blackout, "at most 10 years")
            .duration("expiration", self.expiration)
            .rule(penalty.is_finite() && penalty >= 0.0, "error_penalty", penalty, "finite, from 0 up")
            .rule((OFTENEST..=FOREVER).contains(&self.every), "every", self.every, "100 ms to 10 years");
    }
}

/// The weight of one endpoint by its reports.
///
/// It has none before it has reported for the blackout, and after the expiration, from which on the blackout counts anew. One
/// without a weight is treated as the mean of the others: see [`Stride`](super::Stride).
///
/// ```
/// use std::time::Duration;
/// use mainstay::{balance::{ReportedOptions, ReportedWeight}, clock, report::Utilisation};
///
/// let (now, options) = (clock::now(), ReportedOptions::default().blackout(Duration::ZERO));
/// let mut weight = ReportedWeight::default();
/// weight.report(now, Utilisation::new(100.0, 0.5), &options);
/// assert_eq!(weight.at(now, &options), Some(200.0));
/// ```
///
/// Source: gRFC A58, weighted round robin, which Envoy's client-side weighted round robin has too.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportedWeight {
    weight: f64,
    /// Of the reports that count: the first and the last.
    since: Option<(Instant, Instant)>,
}

impl ReportedWeight {
    /// Takes a report in. One that says nothing of use changes nothing.
    pub fn report(&mut self, now: Instant, utilisation: Utilisation, options: &ReportedOptions) {
        if let Some(weight) = utilisation.weight(options.error_penalty) {
            self.weight = weight;
            let first = self.since.filter(|(_, last)| !expired(now, *last, options)).map(|(first, _)| first);
            self.since = Some((first.unwrap_or(now), now));
        }
    }

    /// The endpoint was connected anew: its blackout begins again.
    pub fn reconnected(&mut self) {
        self.since = None;
    }

    /// The weight at `now`, if there is one.
    pub fn at(&self, now: Instant, options: &ReportedOptions) -> Option<f64> {
        let (first, last) = self.since?;
        let young = now.saturating_duration_since(first) < options.blackout;
        (!young && !expired(now, last, options)).then_some(self.weight)
    }
}

fn expired(now: Instant, last: Instant, options: &ReportedOptions) -> bool {
    now.saturating_duration_since(last) >= options.expiration
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_weight_counts_after_the_blackout_and_up_to_the_expiration() {
        let (start, options) = (crate::clock::now(), ReportedOptions::default());
        let mut weight = ReportedWeight::default();
        assert_eq!(weight.at(start, &options), None);
        weight.report(start, Utilisation::new(100.0, 0.5), &options);
        assert_eq!(weight.at(start + SECOND * 9, &options), None);
        assert_eq!(weight.at(start + SECOND * 10, &options), Some(200.0));
        assert_eq!(weight.at(start + SECOND * 179, &options), Some(200.0));
        assert_eq!(weight.at(start + SECOND * 180, &options), None);
        // Who has been silent for that long begins anew.
        weight.report(start + SECOND * 200, Utilisation::new(100.0, 1.0), &options);
        assert_eq!(weight.at(start + SECOND * 209, &options), None);
        assert_eq!(weight.at(start + SECOND * 210, &options), Some(100.0));
    }

    #[test]
    fn a_reconnection_begins_the_blackout_anew_and_a_useless_report_changes_nothing() {
        let (start, options) = (crate::clock::now(), ReportedOptions::default());
        let mut weight = ReportedWeight::default();
        weight.report(start, Utilisation::new(100.0, 0.5), &options);
        weight.report(start + SECOND * 20, Utilisation::new(0.0, 0.0), &options);
        assert_eq!(weight.at(start + SECOND * 20, &options), Some(200.0));
        weight.reconnected();
        assert_eq!(weight.at(start + SECOND * 20, &options), None);
        weight.report(start + SECOND * 21, Utilisation::new(100.0, 0.5), &options);
        assert_eq!(weight.at(start + SECOND * 30, &options), None);
        assert_eq!(weight.at(start + SECOND * 31, &options), Some(200.0));
    }

    #[test]
    fn options_that_make_no_sense_are_told() {
        let broken = ReportedOptions::default().expiration(Duration::ZERO).error_penalty(-1.0);
        assert_eq!(broken.validate().unwrap_err().problems().len(), 2);
        let hasty = ReportedOptions::default().every(Duration::from_millis(99));
        assert_eq!(hasty.validate().unwrap_err().problems()[0].field, "every");
    }
}
