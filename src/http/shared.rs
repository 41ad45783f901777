//! One body, several readers.
//!
//! Every reader has its own place in what was pulled so far; the one that has read all of it pulls the next frame. The
//! wrapped body is polled with a waker that wakes every waiting reader, not with the waker of the reader that happens to
//! poll: that one may be dropped, or stop reading, and the others would never hear of the frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::body::{ReplayError, cause, into_bytes};
use crate::{
    error::Cause,
    sync::{Mutex, lock},
};

type Item = Option<Result<Frame<Bytes>, ReplayError>>;

/// One of the readers of a body.
pub(super) struct Reader<B> {
    shared: Arc<Shared<B>>,
    id: u64,
    /// How many frames of data it has read, and how many bytes.
    frames: usize,
    bytes: u64,
    done: bool,
}

struct Shared<B> {
    /// Held while the wrapped body is polled, which is short; two readers meet here only when both are sending.
    source: Mutex<Source<B>>,
    waiting: Arc<Waiting>,
}

struct Source<B> {
    /// Gone once it has ended.
    body: Option<Pin<Box<B>>>,
    /// The frames pulled so far; none any more once the body has outgrown the limit.
    kept: Vec<Bytes>,
    frames: usize,
    bytes: u64,
    limit: usize,
    outgrown: bool,
    end: Option<End>,
    next_id: u64,
}

/// How the body ended.
enum End {
    Whole(Option<::http::HeaderMap>),
    Failed(Cause),
}

impl<B> Reader<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        let source = Source {
            body: Some(Box::pin(body)),
            kept: Vec::new(),
            frames: 0,
            bytes: 0,
            limit,
            outgrown: false,
            end: None,
            next_id: 1,
        };
        let shared = Shared { source: Mutex::new(source), waiting: Arc::default() };
        Self { shared: Arc::new(shared), id: 0, frames: 0, bytes: 0, done: false }
    }

    /// A reader from the start, while everything from the start is kept.
    pub(super) fn copy(&self) -> Option<Self> {
        let mut source = lock(&self.shared.source);
        if source.outgrown {
            return None;
        }
        let id = source.next_id;
        source.next_id += 1;
        Some(Self { shared: Arc::clone(&self.shared), id, frames: 0, bytes: 0, done: false })
    }

    pub(super) fn is_whole(&self) -> bool {
        let source = lock(&self.shared.source);
        !source.outgrown || self.frames == source.frames
    }
}

impl<B> Reader<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut source = lock(&self.shared.source);
        let data = if self.frames < source.frames {
            match source.kept.get(self.frames) {
                Some(data) => data.clone(),
                None => return Poll::Ready(Some(Err(ReplayError::Outgrown))),
            }
        } else {
            let pulled = match source.end {
                Some(_) => None,
                None => {
                    // Noted before the poll: a frame that comes in between finds this reader waiting.
                    self.shared.waiting.note(self.id, cx.waker());
                    let pulled = ready!(source.poll_pull(&self.shared.waiting));
                    self.shared.waiting.forget(self.id);
                    // A body that becomes ready by itself (by the clock) wakes nobody. A waker may poll the other reader
                    // on the spot: not under the lock.
                    drop(source);
                    self.shared.waiting.wake_all();
                    source = lock(&self.shared.source);
                    pulled
                }
            };
            match (pulled, &source.end) {
                (Some(data), _) => data,
                (None, Some(End::Failed(cause))) => {
                    return Poll::Ready(Some(Err(ReplayError::Body(Arc::clone(cause)))));
                }
                (None, Some(End::Whole(trailers))) => {
                    self.done = true;
                    return Poll::Ready(trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                (None, None) => {
                    self.done = true;
                    return Poll::Ready(None);
                }
            }
        };
        self.frames += 1;
        self.bytes += data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        if self.done {
            return true;
        }
        let source = lock(&self.shared.source);
        self.frames == source.frames
            && match &source.end {
                Some(End::Whole(trailers)) => trailers.is_none(),
                Some(End::Failed(_)) => false,
                None => source.body.as_ref().is_none_or(|body| body.is_end_stream()),
            }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = lock(&self.shared.source);
        let kept = source.bytes - self.bytes;
        let rest = match &source.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> Source<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// The next frame of data; `None` when there is none, and then `end` says why.
    fn poll_pull(&mut self, waiting: &Arc<Waiting>) -> Poll<Option<Bytes>> {
        let waker = Waker::from(Arc::clone(waiting));
        let mut cx = Context::from_waker(&waker);
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let end = match ready!(body.as_mut().poll_frame(&mut cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let data = into_bytes(data);
                        if data.is_empty() {
                            continue;
                        }
                        self.keep(&data);
                        return Poll::Ready(Some(data));
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => End::Whole(Some(trailers)),
                        Err(_) => continue,
                    },
                },
                Some(Err(error)) => End::Failed(cause(error)),
                None => End::Whole(None),
            };
            self.end = Some(end);
            self.body = None;
        }
    }

    fn keep(&mut self, data: &Bytes) {
        self.frames += 1;
        self.bytes += data.len() as u64;
        if self.bytes > self.limit as u64 {
            self.outgrown = true;
            self.kept = Vec::new();
        } else if !self.outgrown {
            self.kept.push(data.clone());
        }
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        self.shared.waiting.forget(self.id);
    }
}

/// The readers that wait for the wrapped body; as a waker, it wakes them all.
#[derive(Default)]
struct Waiting(Mutex<Vec<(u64, Waker)>>);

impl Waiting {
    fn note(&self, id: u64, waker: &Waker) {
        let mut readers = lock(&self.0);
        match readers.iter_mut().find(|(reader, _)| *reader == id) {
            Some((_, noted)) => noted.clone_from(waker),
            None => readers.push((id, waker.clone())),
        }
    }

    fn forget(&self, id: u64) {
        lock(&self.0).retain(|(reader, _)| *reader != id);
    }

    fn wake_all(&self) {
        // Taken out first: a waker is foreign code, and no lock is held while it runs.
        let readers = std::mem::take(&mut *lock(&self.0));
        for (_, waker) in readers {
            waker.wake();
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}
