//! What `grpc-status` says about an endpoint, wherever it stands.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};

use crate::{
    clock, context,
    http::is_unprocessed,
    outcome::{Again, Sent, Verdict},
};

/// The header, or trailer, that says how a call ended.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The one that says, in milliseconds, when another attempt is welcome; negative for never (gRFC A6).
pub const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// So short a time before its own deadline a caller takes the server's DEADLINE_EXCEEDED for that deadline: servers keep
/// time in milliseconds, and count from when the call came.
const NEAR: Duration = Duration::from_millis(5);

/// The verdict of the status among `headers`, or trailers; `None` if there is none.
pub(crate) fn judge(headers: &HeaderMap) -> Option<Verdict> {
    let status = headers.get(STATUS)?;
    let code = status.to_str().ok().and_then(|text| text.parse::<u8>().ok());
    if code == Some(0) {
        return Some(Verdict::success());
    }
    Some(of_failure(code, headers))
}

#[cold]
fn of_failure(code: Option<u8>, headers: &HeaderMap) -> Verdict {
    let unprocessed = is_unprocessed(headers);
    let verdict = match code {
        // CANCELLED, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED,
        // OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED: the caller's.
        Some(1 | 3 | 5 | 6 | 7 | 9 | 10 | 11 | 12 | 16) => return Verdict::success(),
        // DEADLINE_EXCEEDED
        Some(4) if unprocessed || is_own_deadline() => Verdict::inconclusive(),
        // RESOURCE_EXHAUSTED
        Some(8) => match pushback(headers) {
            Pushback::Missing => Verdict::back_off(None),
            Pushback::Wait(wait) => Verdict::back_off(Some(wait)),
            Pushback::Never => Verdict::back_off(None).again(Again::Never),
        },
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS, and what is no code at all.
        _ => match pushback(headers) {
            Pushback::Missing => Verdict::failure(),
            Pushback::Wait(wait) => Verdict::back_off(Some(wait)),
            Pushback::Never => Verdict::failure().again(Again::Never),
        },
    };
    if unprocessed { verdict.sent(Sent::Refused) } else { verdict }
}

fn is_own_deadline() -> bool {
    context::deadline().is_some_and(|deadline| deadline.saturating_duration_since(clock::now()) <= NEAR)
}

/// What a server says about when it wants to be asked again.
enum Pushback {
    Missing,
    Wait(Duration),
    /// Negative, or not a number: no retry.
    Never,
}

fn pushback(headers: &HeaderMap) -> Pushback {
    let Some(value) = headers.get(PUSHBACK) else { return Pushback::Missing };
    match value.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
        Some(millis) => Pushback::Wait(Duration::from_millis(millis.into())),
        None => Pushback::Never,
    }
}

/// What the pushback among `headers` says of another attempt, if there is one.
#[cfg(feature = "tonic")]
pub(crate) fn pushed_back(headers: &HeaderMap) -> Option<Again> {
    match pushback(headers) {
        Pushback::Missing => None,
        Pushback::Wait(wait) => Some(Again::After(wait)),
        Pushback::Never => Some(Again::Never),
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use ::http::HeaderValue;

    use super::*;
    use crate::outcome::Class;

    fn headers(status: &str, pushback: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from_str(status).unwrap());
        pushback.map(|text| headers.insert(PUSHBACK, HeaderValue::from_str(text).unwrap()));
        headers
    }

    fn verdict(code: u8, pushback: Option<&str>) -> Verdict {
        judge(&headers(&code.to_string(), pushback)).unwrap()
    }

    #[test]
    fn five_codes_blame_the_endpoint_one_asks_for_time_and_the_others_are_the_callers() {
        for code in 0..=16 {
            let expected = match code {
                2 | 4 | 13 | 14 | 15 => Class::Failure,
                8 => Class::BackOff,
                _ => Class::Success,
            };
            assert_eq!(verdict(code, None).class(), expected, "{code}");
        }
    }

    #[test]
    fn what_is_no_code_is_a_failure_and_no_status_is_no_verdict() {
        for text in ["", "ok", "-1", "17", "256"] {
            assert_eq!(judge(&headers(text, None)).unwrap().class(), Class::Failure, "{text:?}");
        }
        assert_eq!(judge(&HeaderMap::new()), None);
    }

    #[test]
    fn pushback_is_a_back_off_and_a_negative_or_malformed_one_stops_retries() {
        let wait = Duration::from_millis(250);
        for code in [8, 14] {
            assert_eq!(verdict(code, Some("250")), Verdict::back_off(Some(wait)));
            for bad in ["-1", "soon", "", "1.5"] {
                assert_eq!(verdict(code, Some(bad)).may_repeat(), Again::Never, "{bad:?}");
            }
        }
        assert_eq!(verdict(14, Some("-1")).class(), Class::Failure);
    }

    #[test]
    fn what_the_server_did_not_begin_was_refused() {
        let mut refused = headers("8", Some("250"));
        refused.insert(crate::http::UNPROCESSED, HeaderValue::from_static("1"));
        let wait = Duration::from_millis(250);
        assert_eq!(judge(&refused), Some(Verdict::back_off(Some(wait)).sent(Sent::Refused)));
    }

    #[test]
    fn a_deadline_that_was_the_callers_blames_nobody() {
        let own = |left| {
            let inherited = context::Inherited::default().with_deadline(clock::now() + left);
            let _inherited = context::EnterInherited::new(inherited);
            verdict(4, None).class()
        };
        assert_eq!(own(Duration::ZERO), Class::Inconclusive);
        assert_eq!(own(Duration::from_secs(60)), Class::Failure);
    }
}
