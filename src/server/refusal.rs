//! The answer to a request that was not begun with.

use std::time::Duration;

use ::http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::incoming::Protocol;
use crate::{
    grpc::{PUSHBACK, STATUS},
    http::UNPROCESSED,
};

/// Why a request was not begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody waits for it any more.
    Late,
    /// There is no place for it; it may come back after this time.
    Full(Duration),
}

impl Refusal {
    pub(super) fn answer<B: Default>(self, protocol: Protocol) -> Response<B> {
        let mut response = Response::new(B::default());
        match protocol {
            Protocol::Http => self.in_http(&mut response),
            Protocol::Grpc => self.in_grpc(&mut response),
        }
        response.headers_mut().insert(UNPROCESSED, HeaderValue::from_static("1"));
        response
    }

    fn in_http<B>(self, response: &mut Response<B>) {
        *response.status_mut() = match self {
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        if let Self::Full(after) = self {
            let seconds = u64::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    }

    /// Headers only: such a call ends with them.
    fn in_grpc<B>(self, response: &mut Response<B>) {
        let (code, message) = match self {
            Self::Late => ("4", "its time was over before it was begun with"),
            Self::Full(_) => ("8", "too many calls at a time"),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(STATUS, HeaderValue::from_static(code));
        headers.insert("grpc-message", HeaderValue::from_static(message));
        if let Self::Full(after) = self {
            let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
            headers.insert(PUSHBACK, millis.into());
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::{Classify as _, Verdict, grpc, http, outcome::Sent};

    #[test]
    fn our_clients_understand_that_it_was_not_begun_with_and_when_to_come_back() {
        let wait = Duration::from_millis(1_500);
        let (late, full) = (Verdict::inconclusive(), |wait| Verdict::back_off(Some(wait)));
        let http = |refusal: Refusal| http::Classifier.classify(Ok(&refusal.answer::<()>(Protocol::Http)));
        assert_eq!(http(Refusal::Late), late.sent(Sent::Refused));
        assert_eq!(http(Refusal::Full(wait)), full(Duration::from_secs(2)).sent(Sent::Refused));
        let grpc = |refusal: Refusal| grpc::Classifier.classify(Ok(&refusal.answer::<()>(Protocol::Grpc)));
        assert_eq!(grpc(Refusal::Late), late.sent(Sent::Refused));
        assert_eq!(grpc(Refusal::Full(wait)), full(wait).sent(Sent::Refused));
    }
}
