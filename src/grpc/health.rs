//! A question after the health of an endpoint, in gRPC's own words.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tower::{BoxError, Service, ServiceExt as _};

use super::{
    protobuf::{Field, Wire, put_bytes},
    status::STATUS,
};
use crate::invalid::{self, Invalid};

const PATH: &str = "/grpc.health.v1.Health/Check";

/// More than an answer can have: it is a number.
pub(super) const LONGEST: usize = 1_024;

/// An active check by gRPC's health protocol: `grpc.health.v1.Health/Check`.
///
/// | answer | the endpoint |
/// |---|---|
/// | SERVING | is well |
/// | the status UNIMPLEMENTED | is well: a server without the protocol says nothing, as in gRPC's own clients |
/// | NOT_SERVING, SERVICE_UNKNOWN, UNKNOWN | is not |
/// | any other status (NOT_FOUND for a service that it does not know), an error, no answer in time | is not |
///
/// ```
/// use mainstay::grpc::HealthCheck;
///
/// let server = HealthCheck::of("http://users.internal")?; // the server as a whole
/// let users = HealthCheck::of("http://users.internal")?.service("users.Users");
/// # Ok::<_, mainstay::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    uri: Uri,
    service: String,
}

impl HealthCheck {
    /// Asks after the server as a whole, under the scheme and authority of `origin`, whichever endpoint is asked.
    ///
    /// # Errors
    /// [`Invalid`] if `origin` is no URI, or has no authority.
    pub fn of(origin: &str) -> Result<Self, Invalid> {
        Ok(Self { uri: under(origin, PATH, "check.uri")?, service: String::new() })
    }

    /// Asks after this service \[the server as a whole\].
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Asks over `service`; `body` makes a body of its kind.
    ///
    /// # Errors
    /// That of the service, or what was answered that was not SERVING.
    pub fn ask<S, B, R, F>(
        &self,
        service: S,
        body: F,
    ) -> impl Future<Output = Result<(), BoxError>> + Send + use<S, B, R, F>
    where
        S: Service<Request<B>, Response = Response<R>> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Send + 'static,
        F: FnOnce(Question) -> B,
        R: Body + Send,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        let request = asking(&self.uri, body(Question::of(&self.service)));
        async move {
            let response = service.oneshot(request).await.map_err(Into::into)?;
            let (head, body) = response.into_parts();
            if let Some(code) = code(&head.headers) {
                return of_code(code);
            }
            if head.status != StatusCode::OK {
                return Err(format!("HTTP status {}", head.status.as_u16()).into());
            }
            let (answer, trailers) = read(body).await?;
            match code(&trailers) {
                Some(0) => of_answer(&answer),
                Some(code) => of_code(code),
                None => Err("no grpc-status".into()),
            }
        }
    }
}

/// A method at `path`, under the scheme and authority of `origin`.
pub(super) fn under(origin: &str, path: &'static str, field: &'static str) -> Result<Uri, Invalid> {
    let parsed = origin.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    let uri = parsed.and_then(|uri| {
        let mut parts = uri.into_parts();
        parts.scheme.get_or_insert(::http::uri::Scheme::HTTP);
        parts.path_and_query = Some(::http::uri::PathAndQuery::from_static(path));
        Uri::from_parts(parts).ok()
    });
    let mut check = invalid::Check::default();
    check.rule(uri.is_some(), field, origin, "a URI with an authority");
    check.finish()?;
    Ok(uri.unwrap_or_default())
}

/// The call of a method with one message.
pub(super) fn asking<B>(method: &Uri, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = ::http::Method::POST;
    *request.uri_mut() = method.clone();
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

pub(super) fn code(headers: &HeaderMap) -> Option<u8> {
    let code = headers.get(STATUS)?;
    // What is no code is UNKNOWN.
    Some(code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(2))
}

/// An end without an answer.
fn of_code(code: u8) -> Result<(), BoxError> {
    match code {
        12 => Ok(()),
        0 => Err("no answer".into()),
        code => Err(format!("grpc-status {code}").into()),
    }
}

/// `HealthCheckResponse`, framed: the last `status`, field 1, counts; one that is not there is 0.
fn of_answer(framed: &[u8]) -> Result<(), BoxError> {
    match status(framed) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".into()),
        Some(2) => Err("NOT_SERVING".into()),
        Some(3) => Err("SERVICE_UNKNOWN".into()),
        Some(other) => Err(format!("serving status {other}").into()),
        None => Err("not a health answer".into()),
    }
}

pub(super) fn status(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    // Nobody was told that compressed answers are understood.
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        if let Field { number: 1, value: Wire::Varint(value) } = Field::read(&mut rest)? {
            status = value;
        }
    }
    Some(status)
}

/// All data and the trailers of a body, if it is no longer than an answer can be.
async fn read<R>(body: R) -> Result<(BytesMut, HeaderMap), BoxError>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    let (mut body, mut answer, mut trailers) = (pin!(body), BytesMut::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(Into::into)?.into_data() {
            Ok(data) if answer.len() + data.remaining() > LONGEST => return Err("too long an answer".into()),
            Ok(data) => answer.put(data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((answer, trailers))
}

/// The body of the question: one message in one frame.
pub struct Question(Option<Bytes>);

impl Question {
    /// `HealthCheckRequest`, whose field 1 is the service, framed.
    pub(super) fn of(service: &str) -> Self {
        let mut message = Vec::new();
        if !service.is_empty() {
            put_bytes(&mut message, 1, service.as_bytes());
        }
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("a name is shorter than 4 GiB"));
        framed.put_slice(&message);
        Self(Some(framed.freeze()))
    }

    /// The whole of it, for bodies that are made of bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0.unwrap_or_default()
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use proptest::prelude::*;
    use tower::service_fn;

    use super::*;

    /// What is made of an answer of these bytes with this status in its trailers, or in its head if there is no answer.
    async fn asked(answer: Option<&'static [u8]>, code: &'static str) -> Result<(), String> {
        let check = HealthCheck::of("http://users.internal").unwrap().service("a.A");
        let service = service_fn(move |request: Request<Question>| async move {
            assert_eq!(request.uri(), "http://users.internal/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let question = request.into_body().collect().await?.to_bytes();
            assert_eq!(&question[..], b"\0\0\0\0\x05\x0a\x03a.A");
            let status = HeaderMap::from_iter([(STATUS, HeaderValue::from_static(code))]);
            let mut response = Response::new(());
            let frames: Vec<_> = match answer {
                Some(answer) => vec![Frame::data(Bytes::from_static(answer)), Frame::trailers(status)],
                None => {
                    *response.headers_mut() = status;
                    vec![]
                }
            };
            let frames = futures::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
            Ok::<_, BoxError>(response.map(|()| StreamBody::new(frames)))
        });
        check.ask(service, |question| question).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn serving_is_well_and_so_is_a_server_without_the_protocol() {
        assert_eq!(asked(Some(b"\0\0\0\0\x02\x08\x01"), "0").await, Ok(()));
        // Fields that are not known are passed over.
        assert!(asked(Some(b"\0\0\0\0\x09\x12\x01x\x1d1234\x08\x01"), "0").await.is_err());
        assert_eq!(asked(Some(b"\0\0\0\0\x0a\x12\x01x\x1d1234\x08\x01"), "0").await, Ok(()));
        assert_eq!(asked(None, "12").await, Ok(()));
        assert_eq!(asked(Some(b""), "12").await, Ok(()));
    }

    #[tokio::test]
    async fn whatever_else_is_answered_is_told() {
        for (answer, code, told) in [
            (Some(&b"\0\0\0\0\x00"[..]), "0", "UNKNOWN"),
            (Some(b"\0\0\0\0\x02\x08\x02"), "0", "NOT_SERVING"),
            (Some(b"\0\0\0\0\x02\x08\x03"), "0", "SERVICE_UNKNOWN"),
            (Some(b"\0\0\0\0\x02\x08\x07"), "0", "serving status 7"),
            (Some(b"\0\0\0\0\x02\x08"), "0", "not a health answer"),
            (Some(b"\x01\0\0\0\x02\x08\x01"), "0", "not a health answer"),
            (Some(b""), "0", "not a health answer"),
            (Some(b"\0\0\0\0\x02\x08\x01"), "14", "grpc-status 14"),
            (None, "5", "grpc-status 5"),
            (None, "0", "no answer"),
            (None, "what", "grpc-status 2"),
        ] {
            assert_eq!(asked(answer, code).await, Err(told.to_owned()), "{answer:?} {code}");
        }
    }

    #[tokio::test]
    async fn what_does_not_speak_grpc_is_not_well() {
        let check = HealthCheck::of("http://users.internal").unwrap();
        for (status, told) in [(503, "HTTP status 503"), (200, "no grpc-status")] {
            let service = service_fn(move |_: Request<Question>| async move {
                Ok::<_, BoxError>(Response::builder().status(status).body(Full::new(Bytes::new()))?)
            });
            assert_eq!(check.ask(service, |question| question).await.unwrap_err().to_string(), told);
        }
        let long = service_fn(|_: Request<Question>| async {
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(vec![0; LONGEST + 1]))))
        });
        let told = check.ask(long, |question| question).await.unwrap_err().to_string();
        assert_eq!(told, "too long an answer");
    }

    #[test]
    fn the_whole_server_has_no_name_and_a_long_name_has_a_long_length() {
        assert_eq!(&Question::of("").into_bytes()[..], b"\0\0\0\0\0");
        let long = Question::of(&"x".repeat(300)).into_bytes();
        assert_eq!(&long[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn what_is_no_origin_is_refused_when_it_is_written() {
        for origin in ["", "/", "not a uri", "http://"] {
            assert!(HealthCheck::of(origin).is_err(), "{origin:?}");
        }
        assert!(HealthCheck::of("users.internal:80").is_ok());
    }

    proptest! {
        #[test]
        fn no_answer_makes_reading_panic(answer in prop::collection::vec(any::<u8>(), 0..40), framed in any::<bool>()) {
            let mut bytes = answer.clone();
            if framed {
                bytes = vec![0, 0, 0, 0, answer.len() as u8];
                bytes.extend(answer);
            }
            let _ = of_answer(&bytes);
        }
    }
}
