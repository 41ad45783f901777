//! The service that makes calls to one endpoint.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{Request, Response};
use ::tonic::{ConnectError, TimeoutExpired, body::Body, transport::Channel};
use pin_project::pin_project;
use tower::{BoxError, Service};

use super::policy::On;
use crate::{
    Error, Reason, clock, context,
    error::Cause,
    http::{Replay, Tracked},
    outcome::Sent,
};

/// Makes calls to one endpoint, over a tonic channel that all its clones share.
///
/// A connection that cannot be made anew is an [`Error`] with [`Reason::Connect`], and the call was not sent.
#[derive(Clone)]
pub struct Transport {
    name: Arc<str>,
    channel: Channel,
}

impl Transport {
    pub(super) fn new(name: Arc<str>, channel: Channel) -> Self {
        Self { name, channel }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("endpoint", &self.name).finish_non_exhaustive()
    }
}

impl Service<Request<Replay<Body>>> for Transport {
    type Response = Response<Tracked<Body>>;
    type Error = BoxError;
    type Future = TransportFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match ready!(self.channel.poll_ready(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(told(&self.name, error.into()))),
        }
    }

    fn call(&mut self, request: Request<Replay<Body>>) -> TransportFuture {
        let on = request.extensions().get().copied();
        let call = self.channel.call(request.map(Body::new));
        TransportFuture { call, name: Arc::clone(&self.name), on, over: false }
    }
}

/// The future of [`Transport`].
#[pin_project]
pub struct TransportFuture {
    #[pin]
    call: <Channel as Service<Request<Body>>>::Future,
    name: Arc<str>,
    /// What the method's policy says of codes: whoever judges the answer has only that.
    on: Option<On>,
    /// The channel has given up at the deadline, and the balancer is about to.
    over: bool,
}

/// The channel keeps the time of `grpc-timeout` too, which is ours less what rounding takes.
const NEAR: Duration = Duration::from_millis(5);

impl Future for TransportFuture {
    type Output = Result<Response<Tracked<Body>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.over {
            return Poll::Pending;
        }
        let error: BoxError = match ready!(this.call.poll(cx)) {
            Ok(mut response) => {
                if let Some(on) = this.on.take() {
                    response.extensions_mut().insert(on);
                }
                return Poll::Ready(Ok(response.map(Tracked::new)));
            }
            Err(error) => error.into(),
        };
        if find::<TimeoutExpired>(&*error).is_some() && is_near_the_deadline() {
            // The balancer keeps the same time and sees to it at once; it knows what such an end says of an endpoint.
            *this.over = true;
            return Poll::Pending;
        }
        Poll::Ready(Err(told(this.name, error)))
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportFuture").field("endpoint", &self.name).finish_non_exhaustive()
    }
}

fn is_near_the_deadline() -> bool {
    context::deadline().is_some_and(|deadline| deadline.saturating_duration_since(clock::now()) <= NEAR)
}

/// The connection to the endpoint of this name could not be made.
pub(super) fn failed(name: &Arc<str>, cause: BoxError) -> Error {
    Error::new(Reason::Connect).with_endpoint(Arc::clone(name)).with_cause(Cause::from(cause))
}

/// `error`, in our words where it is about the connection or the time, else as it is.
fn told(name: &Arc<str>, error: BoxError) -> BoxError {
    if is_connect(&*error) {
        return failed(name, error).into();
    }
    if find::<TimeoutExpired>(&*error).is_some() {
        let error = Error::new(Reason::AttemptTimeout).with_sent(Sent::Maybe);
        return error.with_endpoint(Arc::clone(name)).into();
    }
    error
}

/// Whether the call was given up because there was no connection. The time limit on connecting ends with a bare
/// `io::Error`; one under a call comes inside an error of hyper.
fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    let timed_out = || find::<io::Error>(error).is_some_and(|io| io.kind() == io::ErrorKind::TimedOut);
    find::<ConnectError>(error).is_some() || (find::<::hyper::Error>(error).is_none() && timed_out())
}

pub(super) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        link = error.source();
    }
    None
}
