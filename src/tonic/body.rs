//! What a server answers, with errors in gRPC's words.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use ::tonic::{Status, body::Body};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project::pin_project;

use super::status::status;
use crate::http::Tracked;

/// The body of an answer. It breaks off with a [`Status`]: of ours, where it took too long, with UNAVAILABLE where its connection
/// broke, and else with what tonic makes of it.
#[pin_project]
#[derive(Default)]
pub struct AnswerBody(#[pin] Tracked<Body>);

impl AnswerBody {
    pub(super) fn new(body: Tracked<Body>) -> Self {
        Self(body)
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().0.poll_frame(cx).map_err(status)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}
