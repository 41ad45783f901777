//! A request that asks whether an endpoint is well.

use std::{future::Future, ops::RangeInclusive};

use ::http::{Request, Response, Uri};
use tower::{BoxError, Service, ServiceExt as _};

use crate::invalid::{self, Invalid};

/// An active check over HTTP: a `GET` whose status must lie in a range.
///
/// Where several clients share an endpoint each asks for itself. The body of the answer is dropped.
///
/// ```
/// use http::{Request, Response};
/// use mainstay::{Endpoint, balance::Balance, http::HttpCheck, resolve};
/// use tower::{BoxError, service_fn};
///
/// let check = HttpCheck::get("http://users.internal/healthz")?.expect(200..=204);
/// let balance = Balance::builder(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
///     .connect(|_: &Endpoint| {
///         service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(())) })
///     })
///     .check(move |service, _| check.ask(service))
///     .build()?;
/// # Ok::<_, mainstay::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    uri: Uri,
    expected: RangeInclusive<u16>,
}

impl HttpCheck {
    /// Asks for `uri`, whose authority becomes the `Host`, whichever endpoint is asked, and expects a status of 200 to 299.
    ///
    /// # Errors
    /// [`Invalid`] if `uri` is none, or has no authority.
    pub fn get(uri: &str) -> Result<Self, Invalid> {
        let parsed = uri.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
        let mut check = invalid::Check::default();
        check.rule(parsed.is_some(), "check.uri", uri, "a URI with an authority");
        check.finish()?;
        Ok(Self { uri: parsed.unwrap_or_default(), expected: 200..=299 })
    }

    /// The statuses that are well \[200 to 299\].
    #[must_use]
    pub fn expect(mut self, statuses: RangeInclusive<u16>) -> Self {
        self.expected = statuses;
        self
    }

    /// Asks over `service`.
    ///
    /// # Errors
    /// That of the service, or which status came that was not expected.
    pub fn ask<S, B, R>(&self, service: S) -> impl Future<Output = Result<(), BoxError>> + Send + use<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Default + Send + 'static,
    {
        let (mut request, expected) = (Request::new(B::default()), self.expected.clone());
        *request.uri_mut() = self.uri.clone();
        async move {
            let response = service.oneshot(request).await.map_err(Into::into)?;
            let status = response.status().as_u16();
            if expected.contains(&status) { Ok(()) } else { Err(format!("status {status}").into()) }
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use tower::service_fn;

    use super::*;

    async fn ask(check: &HttpCheck, status: u16) -> Result<(), BoxError> {
        let service = service_fn(move |request: Request<String>| async move {
            assert_eq!(request.uri(), "http://users.internal/healthz");
            Ok::<_, BoxError>(Response::builder().status(status).body(())?)
        });
        check.ask(service).await
    }

    #[tokio::test]
    async fn the_status_decides() {
        let check = HttpCheck::get("http://users.internal/healthz").unwrap();
        assert!(ask(&check, 204).await.is_ok());
        assert_eq!(ask(&check, 503).await.unwrap_err().to_string(), "status 503");
        assert!(ask(&check.expect(500..=503), 503).await.is_ok());
    }

    #[test]
    fn what_is_no_uri_with_an_authority_is_refused_when_it_is_written() {
        for uri in ["/healthz", "", "http://", "not a uri"] {
            assert!(HttpCheck::get(uri).is_err(), "{uri:?}");
        }
    }
}
