//! What an answer of reqwest says about its endpoint.

use ::http::StatusCode;
use ::reqwest::Response;
use tower::BoxError;

use crate::{
    http::{self, of_error},
    outcome::{Again, Classify, Verdict},
};

/// Judges `reqwest::Response`s as [`http::Classifier`] does those of the `http` crate.
///
/// An error that is about the request itself, or about where it was redirected to, blames nobody and is not repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classifier;

impl Classify<Response> for Classifier {
    fn classify(&self, result: Result<&Response, &BoxError>) -> Verdict {
        match result {
            Ok(response) if is_plain(response.status()) => Verdict::success(),
            Ok(response) => {
                // What is judged is the head, which reqwest does not lend.
                let mut head = ::http::Response::new(());
                *head.status_mut() = response.status();
                head.headers_mut().clone_from(response.headers());
                http::Classifier.classify(Ok(&head))
            }
            Err(error) => match error.downcast_ref::<::reqwest::Error>() {
                Some(own) if own.is_builder() || own.is_redirect() => {
                    Verdict::inconclusive().again(Again::Never)
                }
                _ => of_error(error),
            },
        }
    }
}

/// Whether there is nothing to look up in the headers.
fn is_plain(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}
