//! What an HTTP answer says about its endpoint.

use ::http::{Response, StatusCode};
use tower::BoxError;

use super::{
    errors::of_error,
    retry_after::{self, RetryAfter},
    unprocessed::is_unprocessed,
};
use crate::outcome::{Again, Classify, Sent, Verdict};

/// Judges `http::Response`s of any body.
///
/// | answer | verdict |
/// |---|---|
/// | an error | [`of_error`] |
/// | 429, and 503 with `Retry-After` | back-off, for the time asked |
/// | 501, 505 | failure, never to be repeated |
/// | 503 without `Retry-After`, any other 5xx | failure |
/// | anything else, 4xx too | success: the caller's fault is not the endpoint's |
///
/// A 5xx or 429 that carries [`UNPROCESSED`](super::UNPROCESSED), or Finagle's `finagle-http-nack`, was not processed, and
/// goes elsewhere whatever it is. A 504 among them says that its time was over, and blames nobody.
///
/// A `Retry-After` that is malformed or negative stops retries. One that is a date is measured against the answer's own
/// `Date`, and leaves the time open where there is none.
///
/// 501 (Not Implemented) and 505 (HTTP Version Not Supported) are answers to what the request *is*, so that asking again
/// cannot end differently: hashicorp's go-retryablehttp and failsafe-go leave 501 out too, and the AWS SDKs repeat 500,
/// 502, 503 and 504 only. Envoy's `5xx` and reqwest-retry repeat both; they spend budget on it. The class stays a
/// failure, as of every 5xx: an instance that is alone in not implementing something should be noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classifier;

impl<B> Classify<Response<B>> for Classifier {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        let response = match result {
            Ok(response) => response,
            Err(error) => return of_error(error),
        };
        let verdict = of_status(response);
        // The headers of answers that are no success are looked at once more.
        if !verdict.is_success() && is_unprocessed(response.headers()) {
            let late = response.status() == StatusCode::GATEWAY_TIMEOUT;
            return if late { Verdict::inconclusive() } else { verdict }.sent(Sent::Refused);
        }
        verdict
    }
}

fn of_status<B>(response: &Response<B>) -> Verdict {
    let status = response.status();
    // The headers are looked at for these two only: most answers are neither.
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        return match retry_after::read(response.headers()) {
            RetryAfter::Wait(wait) => Verdict::back_off(Some(wait)),
            RetryAfter::Unknown => Verdict::back_off(None),
            RetryAfter::Malformed => Verdict::back_off(None).again(Again::Never),
            RetryAfter::Missing if status == StatusCode::TOO_MANY_REQUESTS => Verdict::back_off(None),
            RetryAfter::Missing => Verdict::failure(),
        };
    }
    match status {
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            Verdict::failure().again(Again::Never)
        }
        status if status.is_server_error() => Verdict::failure(),
        _ => Verdict::success(),
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{http::UNPROCESSED, outcome::Class};

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut builder = Response::builder().status(status);
        if let Some(value) = retry_after {
            builder = builder.header("retry-after", value);
        }
        Classifier.classify(Ok(&builder.body(()).unwrap()))
    }

    #[test]
    fn every_5xx_fails_and_every_other_status_but_429_succeeds() {
        for status in (200..600).filter(|status| *status != 429) {
            let expected = if status >= 500 { Class::Failure } else { Class::Success };
            assert_eq!(verdict(status, None).class(), expected, "{status}");
        }
    }

    #[test]
    fn what_cannot_end_differently_is_not_repeated() {
        for status in (500..600).filter(|status| ![501, 505].contains(status)) {
            assert_eq!(verdict(status, None).may_repeat(), Again::Policy, "{status}");
        }
        assert_eq!(verdict(501, None).may_repeat(), Again::Never);
        assert_eq!(verdict(505, None).may_repeat(), Again::Never);
    }

    #[test]
    fn a_429_and_a_503_that_says_when_are_back_off() {
        let wait = Duration::from_secs(7);
        assert_eq!(verdict(429, Some("7")), Verdict::back_off(Some(wait)));
        assert_eq!(verdict(503, Some("7")), Verdict::back_off(Some(wait)));
        assert_eq!(verdict(429, None), Verdict::back_off(None));
    }

    #[test]
    fn retry_after_on_another_status_changes_nothing() {
        assert_eq!(verdict(500, Some("7")), Verdict::failure());
        assert_eq!(verdict(301, Some("7")), Verdict::success());
    }

    #[test]
    fn a_malformed_or_negative_time_stops_retries() {
        for status in [429, 503] {
            for bad in ["-1", "later"] {
                let verdict = verdict(status, Some(bad));
                assert_eq!((verdict.class(), verdict.may_repeat()), (Class::BackOff, Again::Never));
            }
        }
    }

    #[test]
    fn what_a_server_says_it_did_not_process_was_refused_and_is_no_less_a_back_off() {
        for header in [UNPROCESSED.as_str(), "finagle-http-nack"] {
            let answer = |status: u16| {
                let answer =
                    Response::builder().status(status).header("retry-after", "7").header(header, "1");
                Classifier.classify(Ok(&answer.body(()).unwrap()))
            };
            let wait = Some(Duration::from_secs(7));
            assert_eq!(answer(503), Verdict::back_off(wait).sent(Sent::Refused));
            assert_eq!(answer(429), Verdict::back_off(wait).sent(Sent::Refused));
            assert_eq!(answer(500), Verdict::failure().sent(Sent::Refused));
            assert_eq!(answer(504), Verdict::inconclusive().sent(Sent::Refused));
            assert_eq!(answer(200), Verdict::success());
        }
    }

    #[test]
    fn an_error_that_nothing_is_known_about_is_a_failure_that_may_have_been_sent() {
        let error: BoxError = "broken".into();
        let verdict = Classify::<Response<()>>::classify(&Classifier, Err(&error));
        assert_eq!((verdict.class(), verdict.was_sent()), (Class::Failure, Sent::Maybe));
    }
}
