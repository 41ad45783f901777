//! The endpoint that is dialled, and the name under which it is asked.

use std::sync::Arc;

use ::http::{
    HeaderValue, Method, Request, Uri, Version,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper_util::rt::TokioIo;

#[cfg(feature = "tls")]
use super::tls::Handshake;
use super::{
    dial::{dial, set_up},
    options::{ConnectorOptions, Protocol},
    stream::Stream,
};
use crate::{Endpoint, Error, Reason, error::Cause, http::Unsendable};

/// One endpoint and how it is connected.
pub(super) struct Target {
    endpoint: Arc<Endpoint>,
    name: Arc<str>,
    /// Its address, for requests that name no host.
    authority: Option<Authority>,
    pub(super) options: Arc<ConnectorOptions>,
    #[cfg(feature = "tls")]
    handshake: Option<Handshake>,
}

impl Target {
    pub(super) fn new(endpoint: Arc<Endpoint>, options: Arc<ConnectorOptions>) -> Self {
        let address = match endpoint.address().sockets().first() {
            Some(socket) => socket.to_string(),
            None => endpoint.address().to_string(),
        };
        let name = endpoint.identity().to_string().into();
        Self {
            endpoint,
            name,
            authority: address.parse().ok(),
            #[cfg(feature = "tls")]
            handshake: options.tls.as_ref().map(|tls| tls.connector(options.protocol)),
            options,
        }
    }

    /// The same target, now that it is known what it speaks: what is dialled later speaks that too, or is an error.
    pub(super) fn speaking(mut self, protocol: Protocol) -> Self {
        #[cfg(feature = "tls")]
        {
            self.handshake = self.options.tls.as_ref().map(|tls| tls.connector(protocol));
        }
        Arc::make_mut(&mut self.options).protocol = protocol;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A new connection, and what is spoken on it.
    pub(super) async fn dial(&self) -> Result<(TokioIo<Stream>, Protocol), Error> {
        let stream = dial(self.endpoint.address()).await.map_err(|error| self.failed(error))?;
        set_up(&stream, &self.options).map_err(|error| self.failed(error))?;
        #[cfg(feature = "tls")]
        if let Some(handshake) = &self.handshake {
            let shaken = handshake.shake(stream).await;
            let (stream, spoken) = shaken.map_err(|cause| self.failed_because(cause))?;
            return Ok((TokioIo::new(Stream::Tls(Box::new(stream))), spoken));
        }
        Ok((TokioIo::new(Stream::Plain(stream)), self.options.protocol))
    }

    /// The connection could not be made because of `cause`.
    pub(super) fn failed(&self, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.failed_because(Arc::new(cause))
    }

    fn failed_because(&self, cause: Cause) -> Error {
        Error::new(Reason::Connect).with_endpoint(Arc::clone(&self.name)).with_cause(cause)
    }

    fn scheme(&self) -> Scheme {
        if self.options.is_secure() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Puts the host and the URI of `request` where the protocol has them.
    ///
    /// The host is what the caller wrote: the `Host` header, else the authority of the URI, else the endpoint's address.
    pub(super) fn address<B>(&self, request: &mut Request<B>) -> Result<(), Unsendable> {
        if let Some(scheme) = request.uri().scheme()
            && *scheme != self.scheme()
        {
            return Err(Unsendable::Scheme { scheme: scheme.to_string() });
        }
        if *request.method() == Method::CONNECT {
            return Err(Unsendable::Method { method: Method::CONNECT });
        }
        match (self.options.protocol, request.version()) {
            (_, Version::HTTP_10 | Version::HTTP_11) | (Protocol::Http2, Version::HTTP_2) => {}
            (_, version) => return Err(Unsendable::Version { version }),
        }
        match self.options.protocol {
            Protocol::Http2 => self.address_http2(request),
            _ => self.address_http1(request),
        }
    }

    fn address_http1<B>(&self, request: &mut Request<B>) -> Result<(), Unsendable> {
        if !request.headers().contains_key(HOST) {
            let authority = request.uri().authority().or(self.authority.as_ref()).ok_or(Unsendable::Host)?;
            let host = HeaderValue::from_str(host(authority)).map_err(|_| Unsendable::Host)?;
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = path(request.uri()).into();
        Ok(())
    }

    fn address_http2<B>(&self, request: &mut Request<B>) -> Result<(), Unsendable> {
        let authority = match request.headers_mut().remove(HOST) {
            Some(host) => Authority::try_from(host.as_bytes()).map_err(|_| Unsendable::Host)?,
            None => {
                let authority =
                    request.uri().authority().or(self.authority.as_ref()).ok_or(Unsendable::Host)?;
                host(authority).parse().map_err(|_| Unsendable::Host)?
            }
        };
        let uri =
            Uri::builder().scheme(self.scheme()).authority(authority).path_and_query(path(request.uri()));
        *request.uri_mut() = uri.build().map_err(|_| Unsendable::Host)?;
        Ok(())
    }
}

/// Host and port without a user's name and password, which have no place on the wire.
fn host(authority: &Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    fn addressed(protocol: Protocol, mut request: Request<()>) -> Result<Request<()>, Unsendable> {
        let options = Arc::new(ConnectorOptions::default().protocol(protocol));
        Target::new(Arc::new("10.0.0.1:80".into()), options).address(&mut request).map(|()| request)
    }

    fn get(uri: &str, host: Option<&str>) -> Request<()> {
        let mut builder = Request::get(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        builder.body(()).unwrap()
    }

    /// The `Host` and the request target of HTTP/1.1, and the URI of HTTP/2.
    fn both(uri: &str, host: Option<&str>) -> (String, String, String) {
        let one = addressed(Protocol::Http1, get(uri, host)).unwrap();
        let two = addressed(Protocol::Http2, get(uri, host)).unwrap();
        assert!(!two.headers().contains_key(HOST));
        let host = one.headers()[HOST].to_str().unwrap().to_owned();
        (host, one.uri().to_string(), two.uri().to_string())
    }

    #[test]
    fn the_host_is_the_header_else_the_uri_else_the_endpoint() {
        let expect = |host: &str, path: &str| (host.into(), path.into(), format!("http://{host}{path}"));
        assert_eq!(both("http://users/a?b", None), expect("users", "/a?b"));
        assert_eq!(both("http://users:8080", None), expect("users:8080", "/"));
        assert_eq!(both("http://users/a", Some("orders:1")), expect("orders:1", "/a"));
        assert_eq!(both("/a", Some("orders")), expect("orders", "/a"));
        assert_eq!(both("/a", None), expect("10.0.0.1:80", "/a"));
    }

    #[test]
    fn a_password_in_the_uri_never_reaches_the_wire() {
        let (host, _, uri) = both("http://me:secret@users/a", None);
        assert_eq!((host.as_str(), uri.as_str()), ("users", "http://users/a"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_reason() {
        let https = addressed(Protocol::Http1, get("https://users/", None));
        assert_eq!(https.unwrap_err(), Unsendable::Scheme { scheme: "https".into() });
        let host = addressed(Protocol::Http2, get("/", Some("a b")));
        assert_eq!(host.unwrap_err(), Unsendable::Host);
        let mut two = get("/", None);
        *two.version_mut() = Version::HTTP_2;
        assert!(addressed(Protocol::Http2, two.clone()).is_ok());
        assert!(matches!(addressed(Protocol::Http1, two), Err(Unsendable::Version { .. })));
        let connect = Request::connect("users:80").body(()).unwrap();
        assert!(matches!(addressed(Protocol::Http1, connect), Err(Unsendable::Method { .. })));
    }
}
