//! What the layers may know of an HTTP request.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use http_body::Body;

use super::{
    body::Replay,
    extensions::{HashKey, Idempotent, Operation, Wanted},
};
use crate::{
    context,
    describe::{Criticality, Describe, Sending, key_of},
    invalid::{Check, Invalid},
};

/// How requests are described and stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptionOptions {
    /// The header that carries the attempt number from the second attempt on \[none\].
    pub attempt_header: Option<HeaderName>,
    /// The header that carries what is left of the total deadline, in milliseconds \[none\].
    pub deadline_header: Option<HeaderName>,
    /// The header that carries how much the request matters, by [`Criticality::name`], where somebody said so \[none\].
    pub criticality_header: Option<HeaderName>,
    /// What the hash key of a request is made of, where its extensions have no [`HashKey`] \[nothing\].
    pub hash_by: Option<HashBy>,
    /// The header in which a request names the endpoint that it wants, where its extensions have no [`Wanted`] \[none\].
    pub endpoint_header: Option<HeaderName>,
}

/// What a hash key is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashBy {
    /// The first value of a header; a request without it has no key.
    Header(HeaderName),
    /// The path, without the query.
    Path,
    /// The path and the query.
    PathAndQuery,
}

impl HashBy {
    fn key(&self, headers: &HeaderMap, path: &str, query: Option<&str>) -> Option<u64> {
        match (self, query) {
            (Self::Header(header), _) => headers.get(header).map(|value| key_of(value.as_bytes())),
            (Self::PathAndQuery, Some(query)) => Some(key_of(format!("{path}?{query}").as_bytes())),
            (Self::Path | Self::PathAndQuery, _) => Some(key_of(path.as_bytes())),
        }
    }
}

/// These say where a message goes and where it ends: a number in one of them would break the request.
pub(crate) const FRAMING: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

impl DescriptionOptions {
    /// Writes the attempt number into `header`, from the second attempt on.
    #[must_use]
    pub fn attempt_header(mut self, header: HeaderName) -> Self {
        self.attempt_header = Some(header);
        self
    }

    /// Writes what is left of the total deadline into `header`, in whole milliseconds.
    #[must_use]
    pub fn deadline_header(mut self, header: HeaderName) -> Self {
        self.deadline_header = Some(header);
        self
    }

    /// Writes how much the request matters into `header`: by its own word, or by what it inherits.
    #[must_use]
    pub fn criticality_header(mut self, header: HeaderName) -> Self {
        self.criticality_header = Some(header);
        self
    }

    /// Makes the hash key of a request of this.
    #[must_use]
    pub fn hash_by(mut self, by: HashBy) -> Self {
        self.hash_by = Some(by);
        self
    }

    /// Takes the endpoint that a request wants from `header`.
    #[must_use]
    pub fn endpoint_header(mut self, header: HeaderName) -> Self {
        self.endpoint_header = Some(header);
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Invalid`] if a header is one that frames the message, or two are the same.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (field, header) in [
            ("attempt_header", &self.attempt_header),
            ("deadline_header", &self.deadline_header),
            ("criticality_header", &self.criticality_header),
        ] {
            if let Some(header) = header {
                check.rule(!FRAMING.contains(header), field, header, "not a header that frames the message");
            }
        }
        check.rule(
            self.attempt_header.is_none() || self.attempt_header != self.deadline_header,
            "deadline_header",
            &self.deadline_header,
            "another header than attempt_header",
        );
        check.rule(
            self.criticality_header.is_none()
                || ![&self.attempt_header, &self.deadline_header].contains(&&self.criticality_header),
            "criticality_header",
            &self.criticality_header,
            "another header than attempt_header and deadline_header",
        );
        check.finish()
    }
}

/// Describes `http::Request`s whose body is a [`Replay`] or can be cloned.
///
/// Idempotent by method are GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, 9.2.2); an `Idempotency-Key` header
/// makes any request so. The caller's [`Idempotent`] in the request's extensions overrides both.
///
/// Whoever keeps a copy for another attempt asks for a copy of that copy before sending it: when a [`Replay`] has
/// outgrown what it keeps there is none, and then the kept one cannot be sent to its end either.
#[derive(Clone, Debug, Default)]
pub struct Description {
    options: DescriptionOptions,
}

impl Description {
    /// A description with `options`.
    ///
    /// # Errors
    /// [`Invalid`] as [`DescriptionOptions::check`] says.
    pub fn new(options: DescriptionOptions) -> Result<Self, Invalid> {
        options.check()?;
        Ok(Self { options })
    }

    /// The key of a request with these headers and this path, where the options say what it is made of.
    pub(crate) fn key_by(&self, headers: &HeaderMap, path: &str, query: Option<&str>) -> Option<u64> {
        self.options.hash_by.as_ref()?.key(headers, path, query)
    }

    /// The endpoint that a request with these headers wants, where the options say which header tells.
    pub(crate) fn endpoint_by<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        headers.get(self.options.endpoint_header.as_ref()?)?.to_str().ok()
    }

    /// Writes what the other side should know into `headers`; `own` is the request's word on how much it matters.
    pub(crate) fn stamp_headers(&self, headers: &mut HeaderMap, own: Option<Criticality>, sending: &Sending) {
        if let Some(header) = &self.options.attempt_header
            && sending.attempt > 1
        {
            headers.insert(header.clone(), HeaderValue::from(sending.attempt));
        }
        if let (Some(header), Some(remaining)) = (&self.options.deadline_header, sending.remaining()) {
            // Rounded down, so that the server gives up no later than the caller; but 0 would read as no time at all.
            let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1);
            headers.insert(header.clone(), HeaderValue::from(millis));
        }
        if let Some(header) = &self.options.criticality_header {
            stamp_criticality(headers, own, header);
        }
    }
}

/// Writes how much the request matters, by its own word or by what it inherits, where either says so.
pub(crate) fn stamp_criticality(headers: &mut HeaderMap, own: Option<Criticality>, header: &HeaderName) {
    if let Some(criticality) = own.or_else(|| context::inherited().criticality()) {
        headers.insert(header.clone(), HeaderValue::from_static(criticality.name()));
    }
}

/// The caller's word, or what the method and an `Idempotency-Key` say.
fn is_idempotent<B>(request: &Request<B>) -> bool {
    if let Some(Idempotent(word)) = request.extensions().get() {
        return *word;
    }
    is_idempotent_by(request.method(), request.headers())
}

/// What the method and an `Idempotency-Key` say.
pub(crate) fn is_idempotent_by(method: &Method, headers: &HeaderMap) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || headers.contains_key("idempotency-key")
}

pub(crate) fn with_body<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

/// Everything but the copy, which depends on the body.
macro_rules! without_the_body {
    ($body:ty) => {
        fn is_idempotent(&self, request: &Request<$body>) -> bool {
            is_idempotent(request)
        }

        fn operation<'a>(&self, request: &'a Request<$body>) -> Option<&'a str> {
            request.extensions().get().map(Operation::as_str)
        }

        fn hash_key(&self, request: &Request<$body>) -> Option<u64> {
            let own = request.extensions().get().map(|HashKey(key)| *key);
            own.or_else(|| self.key_by(request.headers(), request.uri().path(), request.uri().query()))
        }

        fn endpoint<'a>(&self, request: &'a Request<$body>) -> Option<&'a str> {
            let own = request.extensions().get().map(Wanted::as_str);
            own.or_else(|| self.endpoint_by(request.headers()))
        }

        fn criticality(&self, request: &Request<$body>) -> Option<Criticality> {
            request.extensions().get().copied()
        }

        fn stamp(&self, request: &mut Request<$body>, sending: &Sending) {
            let own = request.extensions().get().copied();
            self.stamp_headers(request.headers_mut(), own, sending);
        }
    };
}

impl<B> Describe<Request<Replay<B>>> for Description
where
    B: Body,
    B::Error: Into<tower::BoxError>,
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
    use std::{sync::Arc, time::Duration};

    use http_body_util::Full;

    use super::*;

    fn request(method: Method) -> Request<&'static str> {
        Request::builder().method(method).uri("/").body("").unwrap()
    }

    #[test]
    fn idempotent_are_the_methods_that_rfc_9110_names() {
        let description = Description::default();
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        {
            assert!(description.is_idempotent(&request(method.clone())), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT] {
            assert!(!description.is_idempotent(&request(method.clone())), "{method}");
        }
    }

    #[test]
    fn an_idempotency_key_makes_a_post_idempotent() {
        let mut post = request(Method::POST);
        post.headers_mut().insert("Idempotency-Key", HeaderValue::from_static("7"));
        assert!(Description::default().is_idempotent(&post));
    }

    #[test]
    fn the_callers_word_overrides_method_and_key() {
        let mut get = request(Method::GET);
        get.headers_mut().insert("Idempotency-Key", HeaderValue::from_static("7"));
        get.extensions_mut().insert(Idempotent(false));
        assert!(!Description::default().is_idempotent(&get));
    }

    #[test]
    fn operation_key_and_criticality_come_from_the_extensions() {
        let description = Description::default();
        let mut get = request(Method::GET);
        assert_eq!(description.operation(&get), None);
        assert_eq!(description.criticality(&get), None);
        get.extensions_mut().insert(Operation::from(Arc::from("users.get")));
        get.extensions_mut().insert(HashKey(7));
        get.extensions_mut().insert(Criticality::Sheddable);
        assert_eq!(description.operation(&get), Some("users.get"));
        assert_eq!(description.hash_key(&get), Some(7));
        assert_eq!(description.criticality(&get), Some(Criticality::Sheddable));
    }

    #[test]
    fn a_key_is_made_of_a_header_or_the_path_unless_the_caller_says_otherwise() {
        let by = |by| Description::new(DescriptionOptions::default().hash_by(by)).unwrap();
        let user = HeaderName::from_static("x-user");
        let mut get = Request::get("http://users/1?a=b").header("x-user", "7").body("").unwrap();
        assert_eq!(by(HashBy::Header(user.clone())).hash_key(&get), Some(key_of(b"7")));
        assert_eq!(by(HashBy::Path).hash_key(&get), Some(key_of(b"/1")));
        assert_eq!(by(HashBy::PathAndQuery).hash_key(&get), Some(key_of(b"/1?a=b")));
        assert_eq!(Description::default().hash_key(&get), None);
        get.extensions_mut().insert(HashKey(3));
        assert_eq!(by(HashBy::Path).hash_key(&get), Some(3));
        assert_eq!(by(HashBy::Header(user)).hash_key(&request(Method::GET)), None);
    }

    #[test]
    fn an_endpoint_is_named_in_a_header_or_in_the_extensions() {
        let header = HeaderName::from_static("x-endpoint");
        let description = Description::new(DescriptionOptions::default().endpoint_header(header)).unwrap();
        let mut get = request(Method::GET);
        assert_eq!(description.endpoint(&get), None);
        get.headers_mut().insert("x-endpoint", HeaderValue::from_static("10.0.0.1:80"));
        assert_eq!(description.endpoint(&get), Some("10.0.0.1:80"));
        assert_eq!(Description::default().endpoint(&get), None);
        get.extensions_mut().insert(Wanted::from(Arc::from("10.0.0.2:80")));
        assert_eq!(Description::default().endpoint(&get), Some("10.0.0.2:80"));
    }

    #[test]
    fn a_copy_has_everything_the_request_has() {
        let mut put = Request::put("http://users/1")
            .version(::http::Version::HTTP_2)
            .header("x-a", "1")
            .header("x-a", "2")
            .extension(HashKey(3))
            .body(Replay::new(Full::<bytes::Bytes>::from("body")))
            .unwrap();
        let copy = Description::default().copy(&mut put).unwrap();
        assert_eq!(copy.method(), put.method());
        assert_eq!(copy.uri(), put.uri());
        assert_eq!(copy.version(), put.version());
        assert_eq!(copy.headers(), put.headers());
        assert_eq!(copy.extensions().get(), Some(&HashKey(3)));
    }

    #[test]
    fn the_attempt_is_written_from_the_second_on_and_the_deadline_always() {
        let options = DescriptionOptions::default()
            .attempt_header(HeaderName::from_static("x-attempt"))
            .deadline_header(HeaderName::from_static("x-left-ms"));
        let description = Description::new(options).unwrap();
        let mut get = request(Method::GET);
        let now = crate::clock::now();
        let left = |micros| Some(now + Duration::from_micros(micros));
        description.stamp(&mut get, &Sending::new(1, now, left(1_500)));
        assert!(!get.headers().contains_key("x-attempt"));
        assert_eq!(get.headers()["x-left-ms"], "1");
        description.stamp(&mut get, &Sending::new(2, now, left(3)));
        assert_eq!(get.headers()["x-attempt"], "2");
        assert_eq!(get.headers()["x-left-ms"], "1", "some time is left");
    }

    #[test]
    fn how_much_a_request_matters_is_written_by_its_own_word_or_by_what_it_inherits() {
        let options =
            DescriptionOptions::default().criticality_header(HeaderName::from_static("x-criticality"));
        let description = Description::new(options).unwrap();
        let stamped = |own: Option<Criticality>| {
            let mut get = request(Method::GET);
            own.map(|own| get.extensions_mut().insert(own));
            description.stamp(&mut get, &Sending::new(1, crate::clock::now(), None));
            get.headers().get("x-criticality").cloned()
        };
        assert_eq!(stamped(None), None);
        assert_eq!(stamped(Some(Criticality::Sheddable)).unwrap(), "sheddable");
        let inherited = context::Inherited::default().with_criticality(Criticality::CriticalPlus);
        let _inherited = context::EnterInherited::new(inherited);
        assert_eq!(stamped(None).unwrap(), "critical_plus");
        assert_eq!(stamped(Some(Criticality::Sheddable)).unwrap(), "sheddable");
    }

    #[test]
    fn nothing_is_written_unless_asked_for() {
        let mut get = request(Method::GET);
        let now = crate::clock::now();
        let sending = Sending::new(3, now, Some(now + Duration::from_secs(1)));
        Description::default().stamp(&mut get, &sending);
        assert!(get.headers().is_empty());
    }

    #[test]
    fn headers_that_frame_a_message_and_one_header_for_two_things_are_refused() {
        let framing = DescriptionOptions::default().attempt_header(CONTENT_LENGTH).deadline_header(HOST);
        assert_eq!(framing.check().unwrap_err().problems().len(), 2);
        let name = HeaderName::from_static("x-both");
        let twice = DescriptionOptions::default().attempt_header(name.clone()).deadline_header(name);
        assert!(Description::new(twice).is_err());
    }
}
