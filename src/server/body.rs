//! Bodies of answers, which say at their end what load the server is under.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::meter::Held;

/// The body of an answer that a [`ServerLayer`](super::ServerLayer) has seen.
///
/// Where the layer tells its load, the request counts as in flight until the body has ended or is dropped, and the trailers of a gRPC
/// call get the report. Nothing else of it changes.
#[pin_project]
pub struct Reported<B> {
    #[pin]
    body: B,
    held: Option<Box<Held>>,
}

impl<B> Reported<B> {
    pub(super) fn plain(body: B) -> Self {
        Self { body, held: None }
    }

    pub(super) fn holding(body: B, held: Held) -> Self {
        Self { body, held: Some(Box::new(held)) }
    }

    /// The body itself; the request is not in flight any more.
    pub fn into_inner(self) -> B {
        self.body
    }
}

impl<B: Default> Default for Reported<B> {
    fn default() -> Self {
        Self::plain(B::default())
    }
}

impl<B: Body> Body for Reported<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let mut frame = ready!(this.body.as_mut().poll_frame(cx));
        let (goes_on, trailers, broken) = match &mut frame {
            Some(Err(_)) => (false, None, true),
            Some(Ok(frame)) if frame.is_trailers() => (false, frame.trailers_mut(), false),
            // Servers stop here, without asking for the frame that is not there.
            Some(Ok(_)) => (!this.body.is_end_stream(), None, false),
            None => (false, None, false),
        };
        if !goes_on && let Some(held) = this.held.take() {
            if broken { held.breaks() } else { held.end(trailers) }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body is not shown.
impl<B> fmt::Debug for Reported<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reported").field("counts", &self.held.is_some()).finish()
    }
}
