//! A request body of which copies can be made, even while it is being sent.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower::BoxError;

use super::shared::Reader;
use crate::error::Cause;

/// Why a body could not be read to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body itself failed; every copy of it is told.
    #[error("the request body failed")]
    Body(#[source] Cause),
    /// The body grew beyond what is kept for copies before this copy had read it. Half a body is never sent.
    #[error("the request body outgrew what is kept for another attempt")]
    Outgrown,
}

/// A request body that can be sent again, or to two endpoints at a time.
///
/// Until the first [`copy`](Self::copy) it is the body it wraps: no lock, no allocation. From then on it and its copies
/// read one shared source, each from its own start and at its own pace: whoever is ahead pulls from the wrapped body, and
/// what was pulled is kept for the others, \[64 KiB\] at most. A body that is known to be longer is not copied at all. One
/// that turns out to be longer goes on to whoever is ahead, and a copy that has not read what is gone fails with
/// [`ReplayError::Outgrown`]. Trailers are replayed too.
///
/// The bytes are the same for every copy; empty frames are left out. Data that is [`Bytes`] already is never copied.
#[pin_project]
pub struct Replay<B> {
    #[pin]
    state: State<B>,
    limit: usize,
}

#[pin_project(project = Projected)]
enum State<B> {
    Empty,
    Direct {
        #[pin]
        body: B,
        started: bool,
    },
    Shared(Reader<B>),
}

impl<B> Replay<B> {
    /// How many bytes of a body are kept unless told otherwise: 64 KiB.
    pub const LIMIT: usize = 64 * 1024;

    /// A body of which copies can be made as long as it is no longer than 64 KiB.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, Self::LIMIT)
    }

    /// A body of which copies can be made as long as it is no longer than `limit` bytes. With 0, only empty bodies are
    /// copied.
    pub fn with_limit(body: B, limit: usize) -> Self {
        Self { state: State::Direct { body, started: false }, limit }
    }
}

impl<B> Replay<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Another reader of the same body, from its start.
    ///
    /// `None` if the body is, or has become, longer than what is kept, or if it was read before its first copy was made.
    /// A copy of an empty body costs nothing.
    pub fn copy(&mut self) -> Option<Self> {
        let state = match &mut self.state {
            State::Empty => State::Empty,
            State::Direct { started: true, .. } => return None,
            State::Direct { body, .. } if body.is_end_stream() => State::Empty,
            State::Direct { body, .. } if body.size_hint().lower() > self.limit as u64 => return None,
            State::Direct { .. } => {
                if let State::Direct { body, .. } = mem::replace(&mut self.state, State::Empty) {
                    self.state = State::Shared(Reader::new(body, self.limit));
                }
                return self.copy();
            }
            State::Shared(reader) => State::Shared(reader.copy()?),
        };
        Some(Self { state, limit: self.limit })
    }

    /// Whether this reader can still read everything that it has not read: `false` once the body has outgrown what is
    /// kept. Sending it then would fail.
    pub fn is_whole(&self) -> bool {
        match &self.state {
            State::Empty | State::Direct { .. } => true,
            State::Shared(reader) => reader.is_whole(),
        }
    }
}

impl<B> Body for Replay<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        match self.project().state.project() {
            Projected::Empty => Poll::Ready(None),
            Projected::Direct { body, started } => {
                *started = true;
                let frame = ready!(body.poll_frame(cx));
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(frame.map_data(into_bytes)),
                    Err(error) => Err(ReplayError::Body(cause(error))),
                }))
            }
            Projected::Shared(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Empty => true,
            State::Direct { body, .. } => body.is_end_stream(),
            State::Shared(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Empty => SizeHint::with_exact(0),
            State::Direct { body, .. } => body.size_hint(),
            State::Shared(reader) => reader.size_hint(),
        }
    }
}

/// Free for data that is `Bytes` already.
pub(crate) fn into_bytes(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

pub(super) fn cause(error: impl Into<BoxError>) -> Cause {
    Cause::from(error.into())
}

impl<B: Default> Default for Replay<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> From<B> for Replay<B> {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

/// The body is not shown.
impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Empty => "empty",
            State::Direct { .. } => "direct",
            State::Shared(_) => "shared",
        };
        f.debug_struct("Replay").field("state", &state).field("limit", &self.limit).finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
#[path = "body_tests.rs"]
mod tests;
