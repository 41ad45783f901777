//! What the layers may know of a call.

use std::{collections::BTreeSet, sync::Arc};

use ::http::{HeaderName, HeaderValue, Request};
use http_body::Body;
use tower::BoxError;

use super::timeout;
use crate::{
    describe::{Criticality, Describe, Sending},
    http::{HashKey, Idempotent, Operation, Replay, Wanted, stamp_criticality, with_body},
    invalid::{Check, Invalid},
};

/// The number of attempts before this one, from the second attempt on (gRFC A6).
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// How calls are described and stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptionOptions {
    /// The methods that may be processed twice, as `package.Service/Method`, or `package.Service/*` for all of a service
    /// \[none\].
    pub idempotent: BTreeSet<String>,
    /// The header that carries how much the call matters, by [`Criticality::name`], where somebody said so \[none\].
    pub criticality_header: Option<HeaderName>,
}

impl DescriptionOptions {
    /// Adds methods that may be processed twice.
    #[must_use]
    pub fn idempotent<T: Into<String>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.idempotent.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Writes how much the call matters into `header`.
    #[must_use]
    pub fn criticality_header(mut self, header: HeaderName) -> Self {
        self.criticality_header = Some(header);
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Invalid`] if a method is not a service and a method, or the header is one of gRPC's own.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for method in &self.idempotent {
            let whole = method.split_once('/').is_some_and(|(service, name)| {
                !service.is_empty() && !name.is_empty() && !name.contains('/')
            });
            check.rule(whole, "idempotent", method, "package.Service/Method or package.Service/*");
        }
        if let Some(header) = &self.criticality_header {
            let own = header.as_str().starts_with("grpc-") || header.as_str().ends_with("-bin");
            check.rule(!own, "criticality_header", header, "a header that does not belong to gRPC");
        }
        check.finish()
    }
}

/// Describes gRPC calls whose body is a [`Replay`] or can be cloned.
///
/// A call is idempotent if its method is listed in the options; the caller's [`Idempotent`] in the extensions of the
/// request overrides that. Its operation is the path, `package.Service/Method`, unless an [`Operation`] in the extensions
/// says otherwise. What is left of the deadline goes into `grpc-timeout`, and from the second attempt on the number of
/// those before it into `grpc-previous-rpc-attempts`.
#[derive(Clone, Debug, Default)]
pub struct Description {
    options: Arc<DescriptionOptions>,
}

impl Description {
    /// A description with `options`.
    ///
    /// # Errors
    /// [`Invalid`] as [`DescriptionOptions::check`] says.
    pub fn new(options: DescriptionOptions) -> Result<Self, Invalid> {
        options.check()?;
        Ok(Self { options: Arc::new(options) })
    }

    fn lists(&self, method: &str) -> bool {
        let methods = &self.options.idempotent;
        !methods.is_empty()
            && (methods.contains(method)
                || method
                    .rsplit_once('/')
                    .is_some_and(|(service, _)| methods.contains(&format!("{service}/*"))))
    }

    fn says_idempotent<B>(&self, request: &Request<B>) -> bool {
        match request.extensions().get() {
            Some(Idempotent(word)) => *word,
            None => self.lists(method(request)),
        }
    }

    fn stamp_headers<B>(&self, request: &mut Request<B>, sending: &Sending) {
        if let Some(left) = sending.remaining() {
            request.headers_mut().insert(timeout::TIMEOUT, timeout::write(left));
        }
        if sending.attempt > 1 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(sending.attempt - 1));
        }
        if let Some(header) = &self.options.criticality_header {
            let own = request.extensions().get().copied();
            stamp_criticality(request.headers_mut(), own, header);
        }
    }
}

/// `package.Service/Method`.
pub(crate) fn method<B>(request: &Request<B>) -> &str {
    request.uri().path().trim_start_matches('/')
}

/// Everything but the copy, which depends on the body.
macro_rules! without_the_body {
    ($body:ty) => {
        fn is_idempotent(&self, request: &Request<$body>) -> bool {
            self.says_idempotent(request)
        }

        fn operation<'a>(&self, request: &'a Request<$body>) -> Option<&'a str> {
            Some(request.extensions().get().map_or_else(|| method(request), Operation::as_str))
        }

        fn hash_key(&self, request: &Request<$body>) -> Option<u64> {
            request.extensions().get().map(|HashKey(key)| *key)
        }

        fn endpoint<'a>(&self, request: &'a Request<$body>) -> Option<&'a str> {
            request.extensions().get().map(Wanted::as_str)
        }

        fn criticality(&self, request: &Request<$body>) -> Option<Criticality> {
            request.extensions().get().copied()
        }

        fn stamp(&self, request: &mut Request<$body>, sending: &Sending) {
            self.stamp_headers(request, sending);
        }
    };
}

impl<B> Describe<Request<Replay<B>>> for Description
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn copy(&self, request: &mut Request<Replay<B>>) -> Option<Request<Replay<B>>> {
        let body = request.body_mut().copy()?;
        Some(with_body(request, body))
    }

    without_the_body!(Replay<B>);
}

impl<B: Clone> Describe<Request<B>> for Description {
    fn copy(&self, request: &mut Request<B>) -> Option<Request<B>> {
        Some(with_body(request, request.body().clone()))
    }

    without_the_body!(B);
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn call() -> Request<&'static str> {
        Request::post("http://users/users.Users/Get").body("").unwrap()
    }

    #[test]
    fn idempotent_is_what_the_options_list_or_the_caller_says() {
        let says = |methods: &[&str], word: Option<bool>| {
            let options = DescriptionOptions::default().idempotent(methods.iter().copied());
            let mut call = call();
            word.map(|word| call.extensions_mut().insert(Idempotent(word)));
            Description::new(options).unwrap().is_idempotent(&call)
        };
        assert!(!says(&[], None));
        assert!(!says(&["users.Users/Put", "orders.Orders/*"], None));
        assert!(says(&["users.Users/Get"], None));
        assert!(says(&["users.Users/*"], None));
        assert!(says(&[], Some(true)));
        assert!(!says(&["users.Users/Get"], Some(false)));
    }

    #[test]
    fn the_operation_is_the_method_unless_the_caller_names_another() {
        let mut call = call();
        assert_eq!(Description::default().operation(&call), Some("users.Users/Get"));
        call.extensions_mut().insert(Operation::from("get"));
        assert_eq!(Description::default().operation(&call), Some("get"));
    }

    #[test]
    fn the_time_left_goes_with_every_attempt_and_the_number_before_it_from_the_second_on() {
        let (mut call, now) = (call(), clock::now());
        let left = Some(now + Duration::from_millis(1_500));
        Description::default().stamp(&mut call, &Sending::new(1, now, left));
        assert_eq!(call.headers()["grpc-timeout"], "1500000u");
        assert!(!call.headers().contains_key(PREVIOUS_ATTEMPTS));
        Description::default().stamp(&mut call, &Sending::new(3, now, left));
        assert_eq!(call.headers()["grpc-previous-rpc-attempts"], "2");
    }

    #[test]
    fn methods_that_are_none_and_headers_of_grpc_are_refused() {
        let options = DescriptionOptions::default()
            .idempotent(["Get", "/Get", "users.Users/", "a/b/c", "users.Users/*"])
            .criticality_header(HeaderName::from_static("grpc-criticality"));
        assert_eq!(options.check().unwrap_err().problems().len(), 5);
    }
}
