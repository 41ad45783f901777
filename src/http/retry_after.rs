//! `Retry-After` (RFC 9110, 10.2.3) without a clock of our own.

use std::time::Duration;

use ::http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

use crate::invalid::FOREVER;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// There is no such header.
    Missing,
    /// To come back after this time.
    Wait(Duration),
    /// To come back at a time of day, in an answer that does not say which time it is now.
    Unknown,
    /// Something that is neither a number of seconds nor a date, or a negative number.
    Malformed,
}

/// Reads the header.
///
/// A date is measured against the answer's own `Date`: both come from the server's clock, so ours, which may be wrong or
/// jump, is not asked. RFC 9110 (6.6.1) has every server with a clock send `Date`. A date that is already over means
/// now.
pub(super) fn read(headers: &HeaderMap) -> RetryAfter {
    let Some(value) = headers.get(RETRY_AFTER) else { return RetryAfter::Missing };
    let Ok(text) = value.to_str().map(str::trim) else { return RetryAfter::Malformed };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are still a number: longer than anybody waits.
        let wait = text.parse().map_or(FOREVER, Duration::from_secs);
        return RetryAfter::Wait(wait.min(FOREVER));
    }
    let Ok(at) = httpdate::parse_http_date(text) else { return RetryAfter::Malformed };
    let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    match date {
        // The difference of two dates that the server wrote; no clock is read.
        Some(date) => RetryAfter::Wait(at.duration_since(date).unwrap_or_default().min(FOREVER)),
        None => RetryAfter::Unknown,
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(after: &str, date: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(after).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        }
        headers
    }

    #[test]
    fn seconds_are_read() {
        assert_eq!(read(&headers("120", None)), RetryAfter::Wait(Duration::from_secs(120)));
        assert_eq!(read(&headers(" 0 ", None)), RetryAfter::Wait(Duration::ZERO));
        assert_eq!(read(&HeaderMap::new()), RetryAfter::Missing);
    }

    #[test]
    fn more_seconds_than_a_word_holds_are_a_long_time_and_no_mistake() {
        assert_eq!(read(&headers("99999999999999999999999", None)), RetryAfter::Wait(FOREVER));
    }

    #[test]
    fn a_negative_or_malformed_value_is_told_apart() {
        for bad in ["-1", "", "1.5", "soon", "+3", "Fri, 99 Dec 1999 23:59:59 GMT"] {
            assert_eq!(read(&headers(bad, None)), RetryAfter::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn a_date_is_measured_against_the_servers_own_date() {
        let now = Some("Fri, 31 Dec 1999 23:59:00 GMT");
        let after = |text| read(&headers(text, now));
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), RetryAfter::Wait(Duration::from_secs(59)));
        assert_eq!(after("Friday, 31-Dec-99 23:59:59 GMT"), RetryAfter::Wait(Duration::from_secs(59)));
        assert_eq!(after("Fri, 31 Dec 1999 23:58:00 GMT"), RetryAfter::Wait(Duration::ZERO));
    }

    #[test]
    fn a_date_without_a_date_to_measure_it_by_leaves_the_time_open() {
        assert_eq!(read(&headers("Fri, 31 Dec 1999 23:59:59 GMT", None)), RetryAfter::Unknown);
        assert_eq!(read(&headers("Fri, 31 Dec 1999 23:59:59 GMT", Some("today"))), RetryAfter::Unknown);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_wait_for_ever(after in "[ -~]{0,40}", date in "[ -~]{0,40}") {
            if let RetryAfter::Wait(wait) = read(&headers(&after, Some(&date))) {
                prop_assert!(wait <= FOREVER);
            }
        }
    }
}
