//! What a server says of its own load, beside an answer.
//!
//! A client among many sees little of a server: what the others have in flight there it does not know. Some servers tell, in a
//! header or a trailer. [`Classify::report`](crate::Classify::report) reads it, and the balancer goes by it where
//! [`BalanceOptions::reports`](crate::balance::BalanceOptions::reports) or
//! [`Distribution::ByReports`](crate::balance::Distribution::ByReports) says so.
//!
//! ```
//! use mainstay::{Classify, Verdict, report::Report};
//! use tower::BoxError;
//!
//! struct Answer { queued: u32 }
//!
//! struct Judge;
//! impl Classify<Answer> for Judge {
//!     fn classify(&self, result: Result<&Answer, &BoxError>) -> Verdict {
//!         result.map_or(Verdict::failure(), |_| Verdict::success())
//!     }
//!     fn report(&self, answer: &Answer) -> Option<Report> {
//!         Some(Report::default().in_flight(answer.queued))
//!     }
//! }
//! assert_eq!(Judge.report(&Answer { queued: 7 }).and_then(|report| report.in_flight), Some(7));
//! ```

use crate::Ratio;

/// What a server says of itself. What it does not say is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Requests that are in flight there, of all its clients, without the one that is being answered.
    pub in_flight: Option<u32>,
    /// How much it serves, and how busy it is with that.
    pub utilisation: Option<Utilisation>,
}

impl Report {
    /// Sets [`in_flight`](Self::in_flight).
    #[must_use]
    pub fn in_flight(mut self, in_flight: impl Into<Option<u32>>) -> Self {
        self.in_flight = in_flight.into();
        self
    }

    /// Sets [`utilisation`](Self::utilisation).
    #[must_use]
    pub fn utilisation(mut self, utilisation: impl Into<Option<Utilisation>>) -> Self {
        self.utilisation = utilisation.into();
        self
    }
}

/// What a server says of itself at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Utilisation {
    /// Requests a second.
    pub rate: f64,
    /// Failed requests a second.
    pub errors: f64,
    /// How busy it is by the measure of its application: 1.0 is full, more is possible. 0 where it does not say.
    pub application: f64,
    /// How busy its processors are, from 0 up. It counts where the application does not say.
    pub cpu: f64,
}

impl Utilisation {
    /// A server that serves so many requests a second, and is so busy by the measure of its application.
    pub fn new(rate: f64, application: f64) -> Self {
        Self { rate, application, ..Self::default() }
    }

    /// Of which so many fail.
    #[must_use]
    pub fn errors(mut self, rate: f64) -> Self {
        self.errors = rate;
        self
    }

    /// With its processors so busy.
    #[must_use]
    pub fn cpu(mut self, cpu: Ratio) -> Self {
        self.cpu = cpu.get();
        self
    }

    /// What it could serve at most, by what it serves and how busy it is: `rate / (utilisation + errors / rate * penalty)`.
    /// `None` for a report that says nothing of use.
    pub fn weight(&self, error_penalty: f64) -> Option<f64> {
        let busy = if self.application > 0.0 { self.application } else { self.cpu };
        let penalty =
            if self.errors > 0.0 && self.rate > 0.0 { self.errors / self.rate * error_penalty } else { 0.0 };
        let weight = self.rate / (busy + penalty);
        (self.rate > 0.0 && busy > 0.0 && weight.is_finite() && weight > 0.0).then_some(weight)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_grfc() {
        for (report, owed) in [
            (Utilisation::new(100.0, 0.5), Some(200.0)),
            (Utilisation::new(100.0, 1.0), Some(100.0)),
            (Utilisation::new(100.0, 0.0).cpu(Ratio::percent::<50>()), Some(200.0)),
            (Utilisation::new(100.0, 0.8).cpu(Ratio::percent::<50>()), Some(125.0)),
            // A tenth of the requests fail.
            (Utilisation::new(100.0, 0.4).errors(10.0), Some(200.0)),
            (Utilisation::new(0.0, 0.5), None),
            (Utilisation::new(100.0, 0.0), None),
            (Utilisation::new(f64::NAN, 0.5), None),
        ] {
            assert_eq!(report.weight(1.0), owed, "{report:?}");
        }
        assert_eq!(Utilisation::new(100.0, 0.5).errors(10.0).weight(0.0), Some(200.0), "no penalty");
    }
}
