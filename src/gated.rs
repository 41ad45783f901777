//! A call that has something to pass before it is made.
//!
//! What lets requests in (a breaker, a limit, a rate, a throttle, a quota, a shed) differs in what it asks and in what it is
//! told afterwards. That the call is made late, inside of the response, once, and that whatever is held for it is given
//! back after the call is dropped: that is the same for all, and here.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower::{BoxError, Service};

/// What one call has to pass, and holds from then on until it is dropped.
pub(crate) trait Passage<S: Service<Req>, Req> {
    /// Ready when `request` may be given to `service`, which has been readied, or why it may not.
    fn poll_enter(
        &mut self,
        service: &mut S,
        request: &Req,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>;

    /// The call has ended with `result`, or goes on in its body; its future is dropped already.
    fn left(&mut self, result: &mut Result<S::Response, BoxError>);
}

/// How far the call is. A response keeps its [`Passage`] in a field below this one: fields are dropped in their order.
#[pin_project(project = Projected)]
pub(crate) enum Gated<S: Service<Req>, Req> {
    Outside(Option<(S, Req)>),
    Inside(#[pin] S::Future),
    Done,
}

impl<S: Service<Req>, Req> Gated<S, Req> {
    /// A call of `service`, which has been readied unless its passage sees to that.
    #[inline]
    pub(crate) fn new(service: S, request: Req) -> Self {
        Self::Outside(Some((service, request)))
    }

    /// A call of the service that was readied. A clone, which was not, stays in its place.
    #[inline]
    pub(crate) fn of(readied: &mut S, request: Req) -> Self
    where
        S: Clone,
    {
        let clone = readied.clone();
        Self::new(mem::replace(readied, clone), request)
    }

    /// Goes through `passage`, once, and makes the call.
    #[inline]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        passage: &mut impl Passage<S, Req>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>>
    where
        S::Error: Into<BoxError>,
    {
        loop {
            match self.as_mut().project() {
                Projected::Outside(call) => {
                    let entered = match call {
                        Some((service, request)) => ready!(passage.poll_enter(service, request, cx)),
                        None => panic!("polled after a panic"),
                    };
                    match (entered, call.take()) {
                        (Ok(()), Some((mut service, request))) => {
                            let response = service.call(request);
                            self.set(Self::Inside(response));
                        }
                        (Err(refusal), _) => {
                            self.set(Self::Done);
                            return Poll::Ready(Err(refusal));
                        }
                        (Ok(()), None) => self.set(Self::Done),
                    }
                }
                Projected::Inside(response) => {
                    let mut result = ready!(response.poll(cx)).map_err(Into::into);
                    self.set(Self::Done);
                    passage.left(&mut result);
                    return Poll::Ready(result);
                }
                Projected::Done => panic!("polled after completion"),
            }
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for Gated<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside(_) => "Outside",
            Self::Inside(_) => "Inside",
            Self::Done => "Done",
        })
    }
}
