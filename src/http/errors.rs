//! What an error of an HTTP transport says about its endpoint, and about whether the request was sent.

use std::error::Error as StdError;

use tower::BoxError;

use super::{body::ReplayError, unsendable::Unsendable};
use crate::outcome::{Again, Sent, Verdict};

/// The verdict on an error, from what stands in its chain.
///
/// - An [`Error`](crate::Error) of this crate speaks for itself.
/// - A request that could not be sent ([`Unsendable`]) or whose own body failed ([`ReplayError`]) is the caller's: no
///   endpoint is blamed and nothing is repeated.
/// - With one of the features `hyper`, `tonic` and `reqwest`: a connection that could not be made, and a request that hyper dropped before a byte of it
///   was written, were not sent; a stream that the server refused (`REFUSED_STREAM`, or an id above the one in its
///   `GOAWAY`) was not processed.
/// - Everything else is a failure that may have been processed.
pub fn of_error(error: &BoxError) -> Verdict {
    let mut link: Option<&(dyn StdError + 'static)> = Some(&**error);
    while let Some(error) = link {
        if let Some(verdict) = of_link(error) {
            return verdict;
        }
        link = error.source();
    }
    Verdict::failure()
}

fn of_link(error: &(dyn StdError + 'static)) -> Option<Verdict> {
    if let Some(ours) = error.downcast_ref::<crate::Error>() {
        return Some(ours.verdict());
    }
    if error.is::<Unsendable>() {
        return Some(Verdict::inconclusive().sent(Sent::No).again(Again::Never));
    }
    if error.is::<ReplayError>() {
        return Some(Verdict::inconclusive().again(Again::Never));
    }
    #[cfg(feature = "wire")]
    return of_hyper(error);
    #[cfg(not(feature = "wire"))]
    None
}

#[cfg(feature = "wire")]
fn of_hyper(error: &(dyn StdError + 'static)) -> Option<Verdict> {
    if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return match client.source() {
            // The request never came as far as a connection.
            Some(_) if client.is_connect() || client.connect_info().is_none() => {
                Some(Verdict::failure().sent(Sent::No))
            }
            Some(_) => None,
            // Only what the client finds wrong with the request has no source.
            None => Some(Verdict::inconclusive().sent(Sent::No).again(Again::Never)),
        };
    }
    if let Some(hyper) = error.downcast_ref::<::hyper::Error>() {
        // hyper's word for a request that it still held whole when its connection ended.
        if hyper.is_canceled() {
            return Some(Verdict::failure().sent(Sent::No));
        }
        // The caller's body broke, or the runtime went away under the connection. A cause of ours below says more.
        if hyper.is_user() && !in_chain::<ReplayError>(hyper) {
            return Some(Verdict::inconclusive());
        }
    }
    let h2 = error.downcast_ref::<h2::Error>()?;
    let refused = h2.is_remote()
        && (h2.is_go_away() || (h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM)));
    // h2 gives the server's GOAWAY only to the streams above its last id; those below it end by themselves.
    refused.then(|| Verdict::failure().sent(Sent::Refused))
}

#[cfg(feature = "wire")]
fn in_chain<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if error.is::<E>() {
            return true;
        }
        link = error.source();
    }
    false
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::{Error, Reason, outcome::Class};

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] BoxError);

    #[test]
    fn ours_and_unknown_ones_get_the_verdict_that_every_service_gets() {
        let ours: BoxError = Box::new(Outer(Box::new(Error::new(Reason::Connect))));
        let other: BoxError = "broken".into();
        for error in [ours, other] {
            assert_eq!(of_error(&error), crate::error::of_error(&error));
        }
    }

    #[test]
    fn a_request_that_can_never_be_sent_blames_nobody_and_is_not_repeated() {
        let error: BoxError = Box::new(Outer(Box::new(Unsendable::Host)));
        let verdict = of_error(&error);
        assert_eq!(verdict.class(), Class::Inconclusive);
        assert_eq!((verdict.was_sent(), verdict.may_repeat()), (Sent::No, Again::Never));
    }

    #[test]
    fn a_copy_that_came_too_late_blames_nobody_and_is_not_repeated() {
        let error: BoxError = Box::new(Outer(Box::new(ReplayError::Outgrown)));
        let verdict = of_error(&error);
        assert_eq!(verdict.class(), Class::Inconclusive);
        assert_eq!((verdict.was_sent(), verdict.may_repeat()), (Sent::Maybe, Again::Never));
    }

    #[cfg(feature = "wire")]
    mod of_the_pooled_client {
        use bytes::Bytes;
        use http_body_util::Empty;
        use hyper_util::{client::legacy::Client, rt::TokioExecutor};

        use super::*;

        async fn verdict(uri: &str) -> Verdict {
            let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
            let error = client.get(uri.parse().unwrap()).await.unwrap_err();
            of_error(&Outer(error.into()).into())
        }

        #[tokio::test]
        async fn a_connection_that_cannot_be_made_sent_nothing() {
            let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            assert_eq!(verdict(&format!("http://{socket}/")).await, Verdict::failure().sent(Sent::No));
        }

        #[tokio::test]
        async fn a_request_that_makes_no_sense_blames_nobody_and_is_not_repeated() {
            let expected = Verdict::inconclusive().sent(Sent::No).again(Again::Never);
            assert_eq!(verdict("/without-a-host").await, expected);
        }
    }
}
