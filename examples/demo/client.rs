//! What the demo asks of a client, whichever it is.

use std::{future::Future, net::SocketAddr};

use hyper::http::{HeaderName, HeaderValue};

/// The header by which the servers tell the clients apart.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-client");

/// One of the two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Plain,
    Mainstay,
}

impl Who {
    pub(crate) const BOTH: [Self; 2] = [Self::Plain, Self::Mainstay];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Mainstay => "mainstay",
        }
    }

    pub(crate) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    pub(crate) fn from_header(value: &HeaderValue) -> Option<Self> {
        Self::BOTH.into_iter().find(|who| value.as_bytes() == who.name().as_bytes())
    }
}

/// A request that got no good answer. The servers' side of the story is in the table.
#[derive(Debug)]
pub(crate) struct Failed;

/// A client of the fleet.
pub(crate) trait Client: Send + Sync + 'static {
    /// Sends one `GET /` and reads the answer to its end. Anything but a 2xx is a failure.
    fn send(&self) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Tells the client which servers there are from now on.
    fn update(&self, addresses: &[SocketAddr]);

    /// Attempts that reached no server, such as refused connections. The servers count the others.
    fn attempts_in_vain(&self) -> u64;
}
