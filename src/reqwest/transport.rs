//! The service that sends requests to one endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{HeaderValue, header::HOST};
use ::reqwest::{Client, Error, Request, Response};
use pin_project::pin_project;
use tower::{BoxError, Service};

use super::follow::FollowFuture;
use crate::http::Unsendable;

/// Sends requests for one host to one endpoint, over a `reqwest::Client` in which that host means that endpoint.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    host: Arc<str>,
    /// The port of the endpoint, if its addresses agree on one.
    port: Option<u16>,
    /// `None` where the function that made the first one now fails.
    client: Result<Client, Arc<Error>>,
}

impl Transport {
    pub(super) fn new(
        name: Arc<str>,
        host: Arc<str>,
        port: Option<u16>,
        client: Result<Client, Error>,
    ) -> Self {
        Self { inner: Arc::new(Inner { name, host, port, client: client.map_err(Arc::new) }) }
    }
}

impl Inner {
    /// Sees to it that the request goes to the endpoint, and says what its caller wrote.
    fn address(&self, request: &mut Request) -> Result<(), Unsendable> {
        let host = request.url().host_str().unwrap_or_default();
        if !host.eq_ignore_ascii_case(&self.host) {
            return Err(Unsendable::OtherHost { host: host.to_owned(), served: self.host.to_string() });
        }
        // A port in the URL would be dialled; without one the endpoint's is.
        let Some(port) = request.url().port() else { return Ok(()) };
        if self.port == Some(port) {
            return Ok(());
        }
        let host = HeaderValue::try_from(format!("{host}:{port}")).map_err(|_| Unsendable::Host)?;
        request.headers_mut().entry(HOST).or_insert(host);
        request.url_mut().set_port(None).map_err(|()| Unsendable::Host)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("endpoint", &self.inner.name)
            .field("host", &self.inner.host)
            .finish_non_exhaustive()
    }
}

impl Service<Request> for Transport {
    type Response = Response;
    type Error = BoxError;
    type Future = TransportFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> TransportFuture {
        let refusal = match (&self.inner.client, self.inner.address(&mut request)) {
            (Ok(client), Ok(())) => {
                let mut client: &Client = client;
                let call = FollowFuture::new(Service::call(&mut client, request));
                return TransportFuture { state: State::Sent(call) };
            }
            (_, Err(unsendable)) => unsendable.into(),
            (Err(error), _) => {
                let connect = crate::Error::new(crate::Reason::Connect);
                connect.with_endpoint(Arc::clone(&self.inner.name)).with_cause(error.clone()).into()
            }
        };
        TransportFuture { state: State::Refused(Some(refusal)) }
    }
}

/// The future of [`Transport`].
#[pin_project]
pub struct TransportFuture {
    #[pin]
    state: State,
}

#[pin_project(project = Projected)]
enum State {
    Sent(#[pin] FollowFuture<<Client as Service<Request>>::Future>),
    Refused(Option<BoxError>),
}

impl Future for TransportFuture {
    type Output = Result<Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Sent(call) => call.poll(cx).map_err(Into::into),
            Projected::Refused(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportFuture").finish_non_exhaustive()
    }
}
