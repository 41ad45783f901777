//! Attempts that last to the end of the response body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower::{Layer, Service};

use crate::{
    outcome::Verdict,
    track::{Guard, Track},
};

/// What the end of a body says: by its trailers, if it has any, and by the verdict that was given at the head.
pub(crate) type AtEnd = fn(Option<&HeaderMap>, Verdict) -> Verdict;

/// HTTP says at the head what there is to say.
fn as_at_head(_: Option<&HeaderMap>, head: Verdict) -> Verdict {
    head
}

/// A response body that holds what the attempt holds, until it ends.
///
/// At its end the head's verdict stands; when it breaks off, the attempt becomes a failure; when it is dropped early, the
/// caller has lost interest and the head's verdict stands.
#[pin_project]
#[derive(Debug)]
pub struct Tracked<B> {
    #[pin]
    body: B,
    guard: Option<Guard>,
    at_end: AtEnd,
}

impl<B> Tracked<B> {
    /// `body`, holding nothing yet.
    pub fn new(body: B) -> Self {
        Self { body, guard: None, at_end: as_at_head }
    }

    /// The body itself; the attempt ends.
    pub fn into_inner(self) -> B {
        self.body
    }

    /// Holds `guard`, beside those of layers further in, until the body ends; `at_end` judges that.
    pub(crate) fn hold(&mut self, guard: Guard, at_end: AtEnd)
    where
        B: Body,
    {
        self.guard = Some(match self.guard.take() {
            Some(inner) => guard.and(inner),
            None => guard,
        });
        self.at_end = at_end;
        if self.body.is_end_stream() {
            ends(&mut self.guard, Guard::head);
        }
    }
}

impl<B: Default> Default for Tracked<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

fn ends(guard: &mut Option<Guard>, verdict: impl FnOnce(&Guard) -> Verdict) {
    if let Some(guard) = guard.take() {
        let verdict = verdict(&guard);
        guard.end(verdict);
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let at_end = *this.at_end;
        match &frame {
            Some(Err(_)) => ends(this.guard, |_| Verdict::failure()),
            Some(Ok(frame)) if frame.is_trailers() => {
                ends(this.guard, |guard| at_end(frame.trailers_ref(), guard.head()));
            }
            // Readers that know the length stop here, without asking for the frame that is not there.
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => ends(this.guard, |guard| at_end(None, guard.head())),
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

/// Hangs the guard of an attempt in the [`Tracked`] body of its response.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyTrack;

impl<B> Track<Response<Tracked<B>>> for BodyTrack
where
    B: Body + 'static,
{
    fn track(&self, response: &mut Response<Tracked<B>>, guard: Guard) {
        response.body_mut().hold(guard, as_at_head);
    }
}

/// Gives the responses of a service [`Tracked`] bodies.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrackBodyLayer;

impl<S> Layer<S> for TrackBodyLayer {
    type Service = TrackBody<S>;

    fn layer(&self, inner: S) -> TrackBody<S> {
        TrackBody::new(inner)
    }
}

/// A service whose responses have [`Tracked`] bodies. Place it next to the transport, inside the balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrackBody<S> {
    inner: S,
}

impl<S> TrackBody<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, A, B> Service<Request<A>> for TrackBody<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<Tracked<B>>;
    type Error = S::Error;
    type Future = TrackBodyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        TrackBodyFuture { future: self.inner.call(request) }
    }
}

/// The future of [`TrackBody`].
#[pin_project]
#[derive(Debug)]
pub struct TrackBodyFuture<F> {
    #[pin]
    future: F,
}

impl<F, B, E> Future for TrackBodyFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Tracked<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().future.poll(cx));
        Poll::Ready(response.map(|response| response.map(Tracked::new)))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
    use tower::ServiceExt as _;

    use super::*;
    use crate::track::Ends;

    /// How an attempt ended, once it has.
    #[derive(Default)]
    struct Ended(Mutex<Vec<Option<Verdict>>>);

    impl Ends for Ended {
        fn ended(self: Arc<Self>, _: Verdict, end: Option<Verdict>) {
            self.0.lock().unwrap().push(end);
        }
    }

    impl Ended {
        fn told(&self) -> Vec<Option<Verdict>> {
            self.0.lock().unwrap().clone()
        }
    }

    fn tracked<B: Body + 'static>(body: B, head: Verdict) -> (Tracked<B>, Arc<Ended>) {
        let ended = Arc::new(Ended::default());
        let mut response = Response::new(Tracked::new(body));
        BodyTrack.track(&mut response, Guard::new(ended.clone(), head));
        (response.into_body(), ended)
    }

    #[tokio::test]
    async fn the_attempt_ends_with_the_last_frame_and_the_heads_verdict() {
        let (body, ended) = tracked(Full::<Bytes>::from("all"), Verdict::success());
        assert!(ended.told().is_empty());
        let mut body = body;
        body.frame().await.unwrap().unwrap();
        assert_eq!(ended.told(), [None]);
    }

    #[tokio::test]
    async fn the_attempt_ends_at_the_end_of_a_body_of_unknown_length() {
        let frames = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))]);
        let (mut body, ended) = tracked(StreamBody::new(frames), Verdict::success());
        body.frame().await.unwrap().unwrap();
        assert!(ended.told().is_empty());
        assert!(body.frame().await.is_none());
        assert_eq!(ended.told(), [None]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_failure_of_the_attempt() {
        let frames = futures::stream::iter([Err::<Frame<Bytes>, _>("broken")]);
        let (mut body, ended) = tracked(StreamBody::new(frames), Verdict::success());
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(ended.told(), [Some(Verdict::failure())]);
    }

    #[test]
    fn an_early_drop_leaves_a_good_head_good_and_a_provisional_one_open() {
        let (body, ended) = tracked(Full::<Bytes>::from("all"), Verdict::success());
        drop(body);
        assert_eq!(ended.told(), [None]);
        let (body, ended) = tracked(Full::<Bytes>::from("all"), Verdict::success().provisional());
        drop(body);
        assert_eq!(ended.told(), [Some(Verdict::inconclusive())]);
    }

    #[test]
    fn an_empty_body_ends_the_attempt_with_the_head() {
        let (_body, ended) = tracked(Empty::<Bytes>::new(), Verdict::success());
        assert_eq!(ended.told(), [None]);
    }

    #[tokio::test]
    async fn the_service_wraps_the_bodies_of_its_responses_and_leaves_the_rest_alone() {
        let inner = tower::service_fn(|_: Request<()>| async {
            let response = Response::builder().status(418).header("x", "1").body(Full::<Bytes>::from("all"));
            Ok::<_, Infallible>(response.unwrap())
        });
        let response = TrackBodyLayer.layer(inner).oneshot(Request::new(())).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["x"]), (418, &"1".parse().unwrap()));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "all");
    }
}
