//! A tonic channel to one endpoint, under the logical name.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::Uri;
use ::tonic::transport;
use futures::future::BoxFuture;
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use super::transport::{Transport, failed};
use crate::{Endpoint, endpoint::Address};

/// A tonic endpoint for the logical name `uri`, with the times that mainstay keeps: a second to connect, and a ping every 10 s
/// that must be answered in 5 s, while calls run, so that a connection whose other end is gone is noticed.
///
/// gRPC servers of other makes allow a ping every five minutes unless they are told otherwise, and close connections that
/// ask more often than that without an answer being sent in between
/// (`GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS`, `MinTime` in Go): set a longer
/// [`http2_keep_alive_interval`](transport::Endpoint::http2_keep_alive_interval) where streams are silent for long.
///
/// # Errors
/// If `uri` is not a URI.
pub fn endpoint(uri: impl Into<String>) -> Result<transport::Endpoint, transport::Error> {
    let endpoint = transport::Endpoint::from_shared(uri.into())?
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    Ok(endpoint)
}

/// Makes a [`Transport`] to an endpoint: a tonic channel whose first connection stands.
///
/// It is made of the tonic endpoint that it was given, of which everything holds but the address that is dialled. The
/// addresses of an endpoint with several are tried as RFC 8305 says; an authority is looked up each time.
#[derive(Clone)]
pub struct Connector {
    template: transport::Endpoint,
}

impl Connector {
    /// Channels are made like this one; its URI is the logical name.
    pub fn new(template: transport::Endpoint) -> Self {
        Self { template }
    }

    pub(super) fn template(&self) -> &transport::Endpoint {
        &self.template
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", self.template.uri()).finish_non_exhaustive()
    }
}

impl Service<Arc<Endpoint>> for Connector {
    type Response = Transport;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Arc<Endpoint>) -> Connecting {
        let template = self.template.clone();
        Connecting(Box::pin(async move {
            let name: Arc<str> = endpoint.identity().to_string().into();
            let dialer = Dialer::new(&template, endpoint.address()).map_err(|error| failed(&name, error))?;
            let dial = service_fn(move |_: Uri| dialer.clone().dial());
            match template.connect_with_connector(dial).await {
                Ok(channel) => Ok(Transport::new(name, channel)),
                Err(error) => Err(failed(&name, error.into()).into()),
            }
        }))
    }
}

/// The future of [`Connector`].
pub struct Connecting(Pin<Box<dyn Future<Output = Result<Transport, BoxError>> + Send>>);

impl Future for Connecting {
    type Output = Result<Transport, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

/// Dials one endpoint, whatever the URI says, with the TCP options of the tonic endpoint.
#[derive(Clone)]
enum Dialer {
    /// To addresses that are known.
    Sockets(HttpConnector<Known>, Uri),
    /// To a host that is looked up.
    Authority(HttpConnector, Uri),
}

impl Dialer {
    fn new(template: &transport::Endpoint, address: &Address) -> Result<Self, BoxError> {
        match address {
            Address::Authority(authority) => {
                let uri =
                    Uri::builder().scheme("http").authority(&**authority).path_and_query("/").build()?;
                Ok(Self::Authority(with_options(HttpConnector::new(), template), uri))
            }
            address => {
                let known = Known(address.sockets().into());
                // A URI without a port leaves each address its own.
                let uri = Uri::from_static("http://endpoint/");
                Ok(Self::Sockets(with_options(HttpConnector::new_with_resolver(known), template), uri))
            }
        }
    }

    async fn dial(self) -> Result<TokioIo<TcpStream>, BoxError> {
        match self {
            Self::Sockets(connector, uri) => Ok(connector.oneshot(uri).await?),
            Self::Authority(connector, uri) => Ok(connector.oneshot(uri).await?),
        }
    }
}

fn with_options<R>(mut connector: HttpConnector<R>, template: &transport::Endpoint) -> HttpConnector<R> {
    connector.set_nodelay(template.get_tcp_nodelay());
    connector.set_keepalive(template.get_tcp_keepalive());
    connector.set_keepalive_interval(template.get_tcp_keepalive_interval());
    connector.set_keepalive_retries(template.get_tcp_keepalive_retries());
    connector.set_connect_timeout(template.get_connect_timeout());
    connector
}

/// Any name is these addresses.
#[derive(Clone)]
struct Known(Arc<[SocketAddr]>);

impl Service<Name> for Known {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let sockets = self.0.to_vec();
        Box::pin(async move { Ok(sockets.into_iter()) })
    }
}
