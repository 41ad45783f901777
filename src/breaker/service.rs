//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

use super::{
    Admission, BreakerHandle, ResponseFuture,
    live::{Live, Pass},
};
use crate::{
    Error, context,
    gated::{Gated, Passage},
    outcome::{Again, Classify, Sent, Verdict},
    track::{Ends, Guard, Track},
};

/// A service behind a breaker; made by [`BreakerLayer`](super::BreakerLayer).
///
/// Readiness is the inner service's: a handle that is ready holds nothing of the breaker. Whether a call may be made is
/// decided when its future is first polled.
pub struct Breaker<S, Res> {
    inner: S,
    shared: Arc<Shared<Res>>,
}

impl<S, Res> Breaker<S, Res> {
    pub(super) fn new(inner: S, shared: Arc<Shared<Res>>) -> Self {
        Self { inner, shared }
    }

    /// The handle of its breaker.
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle(self.shared.live.clone())
    }
}

impl<S, Req> Service<Req> for Breaker<S, S::Response>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture::new(Gated::of(&mut self.inner, request), self.shared.clone())
    }
}

impl<S: Clone, Res> Clone for Breaker<S, Res> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug, Res> fmt::Debug for Breaker<S, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("breaker", &self.shared.live)
            .finish_non_exhaustive()
    }
}

/// A breaker, and the judge of the calls that it lets through.
pub(super) struct Shared<Res> {
    pub(super) live: Arc<Live>,
    pub(super) judge: Judge<Res>,
}

/// A call of a service that was let through. Dropping it means that it was not made, or says nothing.
pub(super) struct Held<Res> {
    shared: Arc<Shared<Res>>,
    admission: Option<Admission>,
}

impl<Res> Held<Res> {
    #[inline]
    pub(super) fn new(shared: Arc<Shared<Res>>) -> Self {
        Self { shared, admission: None }
    }
}

impl<S: Service<Req>, Req> Passage<S, Req> for Held<S::Response>
where
    S::Response: 'static,
{
    #[inline]
    fn poll_enter(&mut self, _: &mut S, _: &Req, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.admission = Some(self.shared.live.admit()?);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn left(&mut self, result: &mut Result<S::Response, BoxError>) {
        let Shared { live, judge } = &*self.shared;
        if judge.track.is_some() {
            let Some(admission) = self.admission.take() else { return };
            judge.end(Pass::new(live.clone(), admission), result);
        } else {
            // A classifier that panics must find the admission still held.
            let (verdict, unread) = judge.judge(result.as_ref());
            let Some(admission) = self.admission.take() else { return };
            live.end(admission, verdict, unread);
        }
    }
}

impl<Res> Drop for Held<Res> {
    #[inline]
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.shared.live.circuit.forgo(admission);
        }
    }
}

/// How the answers of a service are judged.
pub(crate) struct Judge<Res> {
    pub(crate) classify: Arc<dyn Classify<Res>>,
    pub(crate) track: Option<Arc<dyn Track<Res>>>,
}

impl<Res> Clone for Judge<Res> {
    fn clone(&self) -> Self {
        Self { classify: self.classify.clone(), track: self.track.clone() }
    }
}

impl<Res: 'static> Judge<Res> {
    /// Judges `result`, unless a layer further in has done so, and leaves the verdict for those further out.
    pub(crate) fn verdict(&self, result: Result<&Res, &BoxError>) -> Verdict {
        self.judge(result).0
    }

    /// The same, and whether the clock has not been read since the answer came: what is further in reads it when it judges.
    #[inline]
    fn judge(&self, result: Result<&Res, &BoxError>) -> (Verdict, bool) {
        if let Err(error) = result
            && let Some(verdict) = refused(error)
        {
            let (_, unread) = context::judged(|| verdict);
            return (verdict, unread);
        }
        context::judged(|| self.classify.classify(result))
    }

    /// Ends `pass` with the answer, or with the end of its body.
    #[inline]
    pub(crate) fn end(&self, mut pass: Pass, result: &mut Result<Res, BoxError>) {
        let (verdict, unread) = self.judge(result.as_ref());
        match (result, &self.track) {
            (Ok(response), Some(track)) => {
                pass.head(unread);
                track.track(response, Guard::new(Arc::new(Streaming(pass)), verdict));
            }
            _ => pass.end(verdict, unread),
        }
    }
}

/// The verdict on a refusal by a layer further in, which has asked no server. Nobody's classifier is asked: most call every
/// error a failure. As everywhere, such a refusal is not tried again.
#[cold]
fn refused(error: &BoxError) -> Option<Verdict> {
    let ours = Error::find(&**error)?;
    (ours.sent() == Sent::No && ours.reason().is_final())
        .then(|| Verdict::inconclusive().sent(Sent::No).again(Again::Never))
}

/// A call whose body is being read.
struct Streaming(Pass);

impl Ends for Streaming {
    fn ended(self: Arc<Self>, head: Verdict, end: Option<Verdict>) {
        if let Some(this) = Arc::into_inner(self) {
            this.0.end(end.unwrap_or(head), false);
        }
    }
}
