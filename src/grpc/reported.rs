//! Load reports as the balancer goes by them.

use ::http::{HeaderMap, Response};
use tower::BoxError;

use super::load_report::LoadReport;
use crate::{
    http::Classifier,
    outcome::{Classify, Verdict},
    report::{Report, Utilisation},
};

/// The named metric in which a server says how many requests it has in flight: ORCA has no field for it.
pub const IN_FLIGHT: &str = "in_flight";

impl LoadReport {
    /// What the balancer goes by: requests in flight, where the metric [`IN_FLIGHT`] says so, and rates and use by gRFC A58.
    pub fn summary(&self) -> Report {
        let in_flight = self.named.get(IN_FLIGHT).map(|in_flight| *in_flight as u32);
        let mut used = Utilisation::new(self.rps, self.application).errors(self.eps);
        used.cpu = self.cpu;
        let used = (used != Utilisation::default()).then_some(used);
        Report::default().in_flight(in_flight).utilisation(used)
    }
}

/// Reads [`LoadReport`]s from the headers of HTTP answers, beside the verdict of another [`Classify`].
/// [`grpc::Classifier`](super::Classifier) reads them by itself, and [`grpc::BodyTrack`](super::BodyTrack) those in trailers.
///
/// ```
/// use http::Response;
/// use mainstay::{Classify, grpc::LoadReports};
///
/// let answer = Response::builder()
///     .header("endpoint-load-metrics", "TEXT named_metrics.in_flight=12,rps_fractional=80,cpu_utilization=0.4")
///     .body(())?;
/// let report = LoadReports::new().report(&answer).expect("there is one");
/// assert_eq!(report.in_flight, Some(12));
/// assert_eq!(report.utilisation.and_then(|used| used.weight(1.0)), Some(200.0));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LoadReports<C = Classifier> {
    classify: C,
}

impl LoadReports {
    /// Beside the verdict of [`http::Classifier`](Classifier).
    pub fn new() -> Self {
        Self { classify: Classifier }
    }

    /// The same beside the verdict of `classify`.
    pub fn beside<C>(self, classify: C) -> LoadReports<C> {
        LoadReports { classify }
    }
}

impl Default for LoadReports {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, C: Classify<Response<B>>> Classify<Response<B>> for LoadReports<C> {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        self.classify.classify(result)
    }

    fn report(&self, response: &Response<B>) -> Option<Report> {
        beside(response.headers(), self.classify.report(response))
    }
}

/// What `headers` say, and what `other` says of the rest.
fn beside(headers: &HeaderMap, other: Option<Report>) -> Option<Report> {
    let Some(own) = LoadReport::read(headers).map(|report| report.summary()) else { return other };
    let other = other.unwrap_or_default();
    let in_flight = own.in_flight.or(other.in_flight);
    Some(own.in_flight(in_flight).utilisation(own.utilisation.or(other.utilisation)))
}

/// Beside the verdict of [`reqwest::Classifier`](crate::reqwest::Classifier), say.
#[cfg(feature = "reqwest")]
impl<C: Classify<reqwest::Response>> Classify<reqwest::Response> for LoadReports<C> {
    fn classify(&self, result: Result<&reqwest::Response, &BoxError>) -> Verdict {
        self.classify.classify(result)
    }

    fn report(&self, response: &reqwest::Response) -> Option<Report> {
        beside(response.headers(), self.classify.report(response))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use ::http::HeaderName;

    use super::*;
    use crate::http::InFlightHeader;

    #[test]
    fn what_one_does_not_say_the_other_may_whichever_is_asked_first() {
        let in_flight = InFlightHeader::new(HeaderName::from_static("x-in-flight"));
        let read = |metrics: &str| {
            let answer =
                Response::builder().header("x-in-flight", "12").header("endpoint-load-metrics", metrics);
            let answer = answer.body(()).unwrap();
            let within = LoadReports::new().beside(in_flight.clone()).report(&answer).unwrap();
            let around = in_flight.clone().beside(LoadReports::new()).report(&answer).unwrap();
            assert_eq!(around.in_flight, Some(12));
            assert_eq!(within.utilisation, around.utilisation);
            (within.in_flight, within.utilisation.and_then(|used| used.weight(1.0)))
        };
        assert_eq!(read("TEXT rps_fractional=80,cpu_utilization=0.4"), (Some(12), Some(200.0)));
        assert_eq!(read("TEXT named_metrics.in_flight=3"), (Some(3), None));
        assert_eq!(read("TEXT cpu_utilization=-1"), (Some(12), None));
    }
}
