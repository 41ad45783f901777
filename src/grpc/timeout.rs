//! `grpc-timeout`: what is left of a deadline, on the wire.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What fits: "a positive integer as ASCII string of at most 8 digits" (PROTOCOL-HTTP2).
const MOST: u128 = 99_999_999;

/// The units that are written, each with its length in microseconds; finer ones than a timer can keep are left out.
const WRITTEN: [(u128, u8); 4] = [(1, b'u'), (1_000, b'm'), (1_000_000, b'S'), (60_000_000, b'M')];

/// `left` in the finest unit that it fits, rounded down, so that the server gives up no later than the caller. It is at
/// least one microsecond, since nothing at all is no time that the protocol knows.
pub(crate) fn write(left: Duration) -> HeaderValue {
    let micros = left.as_micros().max(1);
    let (value, unit) = WRITTEN
        .into_iter()
        .map(|(length, unit)| (micros / length, unit))
        .find(|(value, _)| *value <= MOST)
        .unwrap_or((MOST, b'M'));
    let text = format!("{value}{}", char::from(unit));
    HeaderValue::try_from(text).expect("digits and a letter")
}

/// The time that the `grpc-timeout` among `headers` allows; `None` if there is none, or it is not one.
pub fn read_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_text(text: &str) -> Option<Duration> {
        read_timeout(&HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(text).unwrap())]))
    }

    #[test]
    fn every_unit_of_the_protocol_is_read_and_nothing_else() {
        for (text, time) in [
            ("2H", Duration::from_secs(7_200)),
            ("2M", Duration::from_secs(120)),
            ("5S", Duration::from_secs(5)),
            ("5000m", Duration::from_secs(5)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("1n", Duration::from_nanos(1)),
        ] {
            assert_eq!(read_text(text), Some(time), "{text}");
        }
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789m", "5.0S", "5 S", " 5S"] {
            assert_eq!(read_text(bad), None, "{bad:?}");
        }
        assert_eq!(read_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        assert_eq!(write(Duration::ZERO), "1u");
        assert_eq!(write(Duration::from_nanos(1_999)), "1u");
        assert_eq!(write(Duration::from_micros(99_999_999)), "99999999u");
        assert_eq!(write(Duration::from_secs(100)), "100000m");
        assert_eq!(write(Duration::from_secs(100_000)), "100000S");
        assert_eq!(write(Duration::MAX), "99999999M");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more_and_hardly_less(micros in 1_u64..u64::MAX / 1_000_000) {
            let left = Duration::from_micros(micros);
            let text = write(left);
            prop_assert!(text.len() <= 9, "{text:?}");
            let back = read_text(text.to_str().unwrap()).unwrap();
            prop_assert!(back <= left);
            if left < Duration::from_secs(60 * MOST as u64) {
                prop_assert!(left - back <= left / 100_000 + Duration::from_micros(1), "{text:?} for {left:?}");
            }
        }

        #[test]
        fn no_text_makes_reading_panic(text in "[ -~]{0,12}") {
            let _ = read_text(&text);
        }
    }
}
