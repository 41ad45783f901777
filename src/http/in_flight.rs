//! What servers say they have in flight, in a header of their answers.

use ::http::{HeaderMap, HeaderName, Response};
use tower::BoxError;

use super::classify::Classifier;
use crate::{
    outcome::{Classify, Verdict},
    report::Report,
};

/// Reads from a header how many requests the server has in flight: a plain decimal number, without the request that is
/// answered. The verdict is that of another [`Classify`]. What is no number says nothing.
///
/// ```
/// use http::{HeaderName, Response};
/// use mainstay::{Classify, http::InFlightHeader};
///
/// let classify = InFlightHeader::new(HeaderName::from_static("x-in-flight"));
/// let answer = Response::builder().header("x-in-flight", "12").body(())?;
/// assert_eq!(classify.report(&answer).and_then(|report| report.in_flight), Some(12));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct InFlightHeader<C = Classifier> {
    name: HeaderName,
    classify: C,
}

impl InFlightHeader {
    /// In this header, beside [`Classifier`]'s verdict.
    pub fn new(name: HeaderName) -> Self {
        Self { name, classify: Classifier }
    }

    /// The same beside the verdict of `classify`.
    pub fn beside<C>(self, classify: C) -> InFlightHeader<C> {
        InFlightHeader { name: self.name, classify }
    }
}

impl<C> InFlightHeader<C> {
    /// What `headers` say, and what `other` says of the rest.
    fn read(&self, headers: &HeaderMap, other: Option<Report>) -> Option<Report> {
        let own = || headers.get(&self.name)?.to_str().ok()?.trim().parse::<u32>().ok();
        match own() {
            None => other,
            in_flight => Some(other.unwrap_or_default().in_flight(in_flight)),
        }
    }
}

impl<B, C: Classify<Response<B>>> Classify<Response<B>> for InFlightHeader<C> {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        self.classify.classify(result)
    }

    fn report(&self, response: &Response<B>) -> Option<Report> {
        self.read(response.headers(), self.classify.report(response))
    }
}

/// Beside the verdict of [`reqwest::Classifier`](crate::reqwest::Classifier), say.
#[cfg(feature = "reqwest")]
impl<C: Classify<reqwest::Response>> Classify<reqwest::Response> for InFlightHeader<C> {
    fn classify(&self, result: Result<&reqwest::Response, &BoxError>) -> Verdict {
        self.classify.classify(result)
    }

    fn report(&self, response: &reqwest::Response) -> Option<Report> {
        self.read(response.headers(), self.classify.report(response))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_says_nothing_and_the_verdict_is_the_other_ones() {
        let classify = InFlightHeader::new(HeaderName::from_static("load")).beside(Classifier);
        for (value, owed) in
            [("0", Some(0)), (" 7", Some(7)), ("-1", None), ("4294967296", None), ("many", None), ("", None)]
        {
            let answer = Response::builder().status(500).header("load", value).body(()).unwrap();
            assert_eq!(classify.report(&answer).and_then(|report| report.in_flight), owed, "{value}");
            assert_eq!(classify.classify(Ok(&answer)), Verdict::failure());
        }
        assert_eq!(classify.report(&Response::new(())), None);
    }
}
