//! Requests that no endpoint could ever be sent.

/// The request itself is at fault: nothing was sent, no endpoint is to blame, and another attempt cannot end better.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// The scheme of the URI is not one that the transport speaks.
    #[error("the scheme {scheme} of the URI is not what this transport speaks: https with TLS, http without")]
    Scheme {
        /// The scheme as the request has it.
        scheme: String,
    },
    /// The `Host` header is not a host with an optional port.
    #[error("the Host header is not a host with an optional port")]
    Host,
    /// The request wants another version of HTTP than its connection speaks.
    #[error("the request wants {version:?}, which this transport was not configured for")]
    Version {
        /// The version that the request asks for.
        version: ::http::Version,
    },
    /// `CONNECT` and other requests that turn the connection into something else.
    #[error("{method} requests are not supported by this transport")]
    Method {
        /// The method of the request.
        method: ::http::Method,
    },
    /// The request is for another host than the one whose instances the client knows.
    #[error("the request is for {host}, and this client knows the instances of {served}")]
    OtherHost {
        /// The host that the request asks for.
        host: String,
        /// The host that the client serves.
        served: String,
    },
}
