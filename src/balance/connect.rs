//! How the service of an endpoint comes to be.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tower::{BoxError, Service, ServiceExt as _};

use crate::Endpoint;

/// A dial under way.
pub(crate) type Dial<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;

/// Makes the service of an endpoint.
///
/// With [`each`](Self::each) a service is ready at once and dials by itself; its connect errors are known only by their
/// verdict. With [`make`](Self::make) the balancer's background task connects ahead of requests, with a timeout and a
/// jittered backoff, so a failed dial never costs a request.
pub struct Connector<S>(Kind<S>);

enum Kind<S> {
    Each(Box<dyn FnMut(&Endpoint) -> S + Send>),
    Make(Box<dyn FnMut(Arc<Endpoint>) -> Dial<S> + Send>),
}

impl<S> Connector<S> {
    /// A function gives the service of an endpoint at once.
    pub fn each(connect: impl FnMut(&Endpoint) -> S + Send + 'static) -> Self {
        Self(Kind::Each(Box::new(connect)))
    }

    /// A service makes services: its response is the service of the endpoint, once the connection stands.
    pub fn make<M>(make: M) -> Self
    where
        M: Service<Arc<Endpoint>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
        S: 'static,
    {
        Self(Kind::Make(Box::new(move |endpoint| {
            let dial = make.clone().oneshot(endpoint);
            Box::pin(async move { dial.await.map_err(Into::into) })
        })))
    }

    /// Whether connections are made ahead of requests.
    pub(crate) fn dials(&self) -> bool {
        matches!(self.0, Kind::Make(_))
    }

    /// The service of `endpoint`, or a dial for it.
    pub(crate) fn connect(&mut self, endpoint: &Arc<Endpoint>) -> Result<S, Dial<S>> {
        match &mut self.0 {
            Kind::Each(connect) => Ok(connect(endpoint)),
            Kind::Make(make) => Err(make(endpoint.clone())),
        }
    }
}

impl<S> fmt::Debug for Connector<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.dials() { "Connector::make" } else { "Connector::each" })
    }
}
