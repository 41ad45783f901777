//! Responses whose bodies are followed to their end.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::Response as HttpResponse;
use ::reqwest::{Body, Response, ResponseBuilderExt as _};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project::{pin_project, pinned_drop};

use tower::BoxError;

use crate::{
    error::Reason,
    http::{BodyClock, is_over},
    outcome::Verdict,
    sync::{Mutex, lock},
    track::{Guard, Track},
};

/// Where the guard of an attempt lies until its body ends. The response carries it in its extensions, for [`Follow`] to find.
#[derive(Clone, Debug, Default)]
struct Slot(Arc<Mutex<Option<Guard>>>);

impl Slot {
    fn ends(&self, verdict: impl FnOnce(&Guard) -> Verdict) {
        let guard = lock(&self.0).take();
        if let Some(guard) = guard {
            let verdict = verdict(&guard);
            guard.end(verdict);
        }
    }
}

/// Lasts an attempt to the end of the body of its response, for responses of [`Transport`](super::Transport).
#[derive(Clone, Copy, Debug, Default)]
pub struct Follow;

impl Track<Response> for Follow {
    fn track(&self, response: &mut Response, guard: Guard) {
        if let Some(slot) = response.extensions().get::<Slot>() {
            let mut place = lock(&slot.0);
            *place = Some(match place.take() {
                Some(inner) => guard.and(inner),
                None => guard,
            });
        }
    }
}

/// The same response, over a body that tells of its end.
fn followed(response: Response) -> Response {
    let (url, slot) = (response.url().clone(), Slot::default());
    let (mut parts, body) = HttpResponse::from(response).into_parts();
    // reqwest keeps the URL in an extension that only its builder can write.
    if let Ok(with_url) = HttpResponse::builder().url(url).body(()) {
        parts.extensions.extend(with_url.into_parts().0.extensions);
    }
    // A body without an end to tell of ends the attempt with its head: the guard finds no place.
    if body.is_end_stream() {
        return HttpResponse::from_parts(parts, body).into();
    }
    parts.extensions.insert(slot.clone());
    HttpResponse::from_parts(parts, Body::wrap(Followed { body, slot, clock: None, begun: false })).into()
}

#[pin_project(PinnedDrop)]
struct Followed {
    #[pin]
    body: Body,
    slot: Slot,
    /// How long it may take, if there is a limit. The guard comes after the body, and knows.
    clock: Option<Box<BodyClock>>,
    begun: bool,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if !std::mem::replace(this.begun, true) {
            *this.clock = lock(&this.slot.0).as_ref().and_then(BodyClock::of);
        }
        if is_over(this.clock) {
            return Poll::Ready(None);
        }
        let polled = this.body.as_mut().poll_frame(cx);
        if let Some(clock) = this.clock
            && let Some(error) = clock.check(&polled, this.body.is_end_stream(), cx)
        {
            if error.reason() == Reason::Stalled {
                this.slot.ends(|_| Verdict::failure());
            }
            drop(lock(&this.slot.0).take());
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = ready!(polled);
        match &frame {
            Some(Err(_)) => this.slot.ends(|_| Verdict::failure()),
            // Readers that know the length stop here, without asking for the frame that is not there.
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => this.slot.ends(Guard::head),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() || is_over(&self.clock)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The response may live on without its body, and the slot with it.
#[pinned_drop]
impl PinnedDrop for Followed {
    fn drop(self: Pin<&mut Self>) {
        let guard = lock(&self.slot.0).take();
        drop(guard);
    }
}

/// The future of a response that is followed.
#[pin_project]
#[derive(Debug)]
pub struct FollowFuture<F> {
    #[pin]
    call: F,
}

impl<F> FollowFuture<F> {
    pub(super) fn new(call: F) -> Self {
        Self { call }
    }
}

impl<F, E> Future for FollowFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().call.poll(cx)).map(followed))
    }
}
