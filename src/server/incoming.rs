//! What a request says of itself.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use ::http::{HeaderMap, HeaderName, header::CONTENT_TYPE};

use super::options::ServerOptions;
use crate::{
    context::Inherited,
    describe::Criticality,
    grpc::{PREVIOUS_ATTEMPTS, read_timeout},
};

/// Whose words the request is answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
        if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) { Self::Grpc } else { Self::Http }
    }
}

/// What the work for a request with these headers inherits, on top of what is inherited already; it came at `now`. A header
/// that cannot be read says nothing.
pub(super) fn inherited(
    base: Inherited,
    headers: &HeaderMap,
    protocol: Protocol,
    options: &ServerOptions,
    now: Instant,
) -> Inherited {
    let named = |header: &Option<HeaderName>| headers.get(header.as_ref()?)?.to_str().ok();
    let mut inherited = base;
    let mut is_retry = number::<u32>(named(&options.attempt_header)).is_some_and(|attempt| attempt > 1);
    let mut left = number(named(&options.deadline_header)).map(Duration::from_millis);
    if protocol == Protocol::Grpc {
        left = left.into_iter().chain(read_timeout(headers)).min();
        let before = headers.get(PREVIOUS_ATTEMPTS).and_then(|value| value.to_str().ok());
        is_retry |= number::<u32>(before).is_some_and(|before| before > 0);
    }
    // A time beyond what the clock can tell is no limit.
    if let Some(deadline) = left.and_then(|left| now.checked_add(left)) {
        inherited = inherited.with_deadline(deadline);
    }
    if let Some(criticality) = named(&options.criticality_header).and_then(Criticality::from_name) {
        inherited = inherited.with_criticality(criticality);
    }
    if is_retry { inherited.with_retry(true) } else { inherited }
}

fn number<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.trim().parse().ok()
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn read(protocol: Protocol, headers: &[(&'static str, &str)]) -> Inherited {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let options = ServerOptions::default();
        inherited(Inherited::default(), &headers.collect(), protocol, &options, now())
    }

    /// The same for all reads of a test.
    fn now() -> Instant {
        use std::sync::OnceLock;
        static NOW: OnceLock<Instant> = OnceLock::new();
        *NOW.get_or_init(clock::now)
    }

    fn left(inherited: Inherited) -> Option<Duration> {
        inherited.deadline().map(|deadline| deadline - now())
    }

    const LEFT: &str = "x-envoy-expected-rq-timeout-ms";

    #[test]
    fn the_time_left_is_read_and_the_shorter_of_two_counts() {
        let ms = Duration::from_millis;
        assert_eq!(left(read(Protocol::Http, &[(LEFT, "250")])), Some(ms(250)));
        assert_eq!(left(read(Protocol::Grpc, &[("grpc-timeout", "200m")])), Some(ms(200)));
        assert_eq!(left(read(Protocol::Grpc, &[(LEFT, "250"), ("grpc-timeout", "200m")])), Some(ms(200)));
        assert_eq!(left(read(Protocol::Grpc, &[(LEFT, "150"), ("grpc-timeout", "200m")])), Some(ms(150)));
        assert_eq!(left(read(Protocol::Http, &[("grpc-timeout", "200m")])), None, "that is not gRPC");
        for bad in ["", "soon", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(left(read(Protocol::Http, &[(LEFT, bad)])), None, "{bad:?}");
        }
    }

    #[test]
    fn the_second_attempt_is_a_retry() {
        assert!(!read(Protocol::Http, &[("x-attempt-count", "1")]).is_retry());
        assert!(read(Protocol::Http, &[("x-attempt-count", "2")]).is_retry());
        assert!(read(Protocol::Grpc, &[("grpc-previous-rpc-attempts", "1")]).is_retry());
        assert!(!read(Protocol::Http, &[("grpc-previous-rpc-attempts", "1")]).is_retry());
    }

    #[test]
    fn how_much_it_matters_is_read() {
        let read = |word| read(Protocol::Http, &[("x-criticality", word)]).criticality();
        assert_eq!(read("sheddable"), Some(Criticality::Sheddable));
        assert_eq!(read("very"), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,24}") {
            for name in [LEFT, "x-attempt-count", "x-criticality", "grpc-timeout", "grpc-previous-rpc-attempts"] {
                for protocol in [Protocol::Http, Protocol::Grpc] {
                    let _ = read(protocol, &[(name, &text)]);
                }
            }
        }
    }
}
