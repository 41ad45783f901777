//! Attempts that last to the end of the response body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower::{BoxError, Layer, Service};

use super::body_clock::{BodyClock, is_over};
use crate::{
    error::Reason,
    outcome::Verdict,
    track::{Guard, Track},
};

/// What the end of a body says: by its trailers, if it has any, and by the verdict that was given at the head.
pub(crate) type AtEnd = fn(Option<&HeaderMap>, &Guard) -> Verdict;

/// HTTP says at the head what there is to say.
fn as_at_head(_: Option<&HeaderMap>, guard: &Guard) -> Verdict {
    guard.head()
}

/// A response body that holds what the attempt holds, until it ends.
///
/// At its end the head's verdict stands; when it breaks off, the attempt becomes a failure; when it is dropped early, the
/// caller has lost interest and the head's verdict stands.
///
/// Where the client gives bodies a limit ([`BodyOptions`](crate::balance::BodyOptions)), one that is over it ends with an
/// [`Error`](crate::Error): [`Reason::Stalled`], a failure of the attempt, or [`Reason::Deadline`], which is as an early
/// drop. Any other error is the body's own. What it holds is given back then; the connection is when the body is dropped.
#[pin_project]
#[derive(Debug)]
pub struct Tracked<B> {
    #[pin]
    body: B,
    guard: Option<Guard>,
    at_end: AtEnd,
    /// How long it may take, if there is a limit.
    clock: Option<Box<BodyClock>>,
}

impl<B> Tracked<B> {
    /// `body`, holding nothing yet.
    pub fn new(body: B) -> Self {
        Self { body, guard: None, at_end: as_at_head, clock: None }
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
        self.clock = self.guard.as_ref().and_then(BodyClock::of);
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

impl<B> Body for Tracked<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        if is_over(this.clock) {
            return Poll::Ready(None);
        }
        let polled = this.body.as_mut().poll_frame(cx);
        if let Some(clock) = this.clock
            && let Some(error) = clock.check(&polled, this.body.is_end_stream(), cx)
        {
            if error.reason() == Reason::Stalled {
                ends(this.guard, |_| Verdict::failure());
            }
            *this.guard = None;
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = ready!(polled);
        let at_end = *this.at_end;
        match &frame {
            Some(Err(_)) => ends(this.guard, |_| Verdict::failure()),
            Some(Ok(frame)) if frame.is_trailers() => {
                ends(this.guard, |guard| at_end(frame.trailers_ref(), guard));
            }
            // Readers that know the length stop here, without asking for the frame that is not there.
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => ends(this.guard, |guard| at_end(None, guard)),
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

/// Hangs the guard of an attempt in the [`Tracked`] body of its response.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyTrack;

impl<B> Track<Response<Tracked<B>>> for BodyTrack
where
    B: Body + 'static,
    B::Error: Into<BoxError>,
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
        time::Duration,
    };

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        clock,
        error::Error,
        track::{BodyLimits, Ends},
    };

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

    fn tracked<B>(body: B, head: Verdict) -> (Tracked<B>, Arc<Ended>)
    where
        B: Body<Error: Into<BoxError>> + 'static,
    {
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

    /// A body of which a word comes after each of these waits, and then nothing for ever.
    fn slow(waits: Vec<u64>) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = futures::stream::unfold(waits.into_iter(), |mut waits| async move {
            match waits.next() {
                Some(wait) => tokio::time::sleep(Duration::from_secs(wait)).await,
                None => std::future::pending().await,
            }
            Some((Ok(Frame::data(Bytes::from("a"))), waits))
        });
        StreamBody::new(frames)
    }

    fn limited<B>(body: B, idle: Option<u64>, until: Option<u64>) -> (Pin<Box<Tracked<B>>>, Arc<Ended>)
    where
        B: Body<Error: Into<BoxError>> + 'static,
    {
        let ended = Arc::new(Ended::default());
        let limits = BodyLimits {
            idle: idle.map(Duration::from_secs),
            until: until.map(|until| clock::now() + Duration::from_secs(until)),
        };
        let mut response = Response::new(Tracked::new(body));
        BodyTrack.track(&mut response, Guard::new(ended.clone(), Verdict::success()).within(limits));
        (Box::pin(response.into_body()), ended)
    }

    fn reason(frame: Option<Result<Frame<Bytes>, BoxError>>) -> Option<Reason> {
        let error = frame?.err()?;
        Error::find(&*error).map(Error::reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_cut_off_and_a_failure_of_the_attempt() {
        let (mut body, ended) = limited(slow(vec![4, 4, 4]), Some(5), None);
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        let before = clock::now();
        assert_eq!(reason(body.frame().await), Some(Reason::Stalled));
        assert_eq!((clock::now() - before).as_secs(), 5);
        assert_eq!(ended.told(), [Some(Verdict::failure())]);
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_its_time_is_not_a_body_that_stalls() {
        let (mut body, ended) = limited(slow(vec![1, 1]), Some(5), None);
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(ended.told().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_cuts_a_body_off_without_blame() {
        let (mut body, ended) = limited(slow(vec![4, 4, 4]), Some(5), Some(10));
        let before = clock::now();
        for _ in 0..2 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert_eq!(reason(body.frame().await), Some(Reason::Deadline));
        assert_eq!((clock::now() - before).as_secs(), 10);
        assert_eq!(ended.told(), [None], "the head's verdict stands");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_cuts_off_a_body_that_never_pauses() {
        let frames = futures::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("a"))));
        let (mut body, _) = limited(StreamBody::new(frames), None, Some(10));
        assert!(body.frame().await.unwrap().is_ok());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(reason(body.frame().await), Some(Reason::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_wins_over_a_deadline_in_the_same_poll() {
        let (mut body, ended) = limited(Full::<Bytes>::from("all"), None, Some(10));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(ended.told(), [None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_moved_to_another_task_is_cut_off_there() {
        let (mut body, _) = limited(slow(vec![]), Some(5), None);
        assert!(futures::FutureExt::now_or_never(body.frame()).is_none());
        let there = tokio::spawn(async move { reason(body.frame().await) });
        assert_eq!(there.await.ok(), Some(Some(Reason::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_guards_of_layers_further_out_take_no_limit_away() {
        let ended = Arc::new(Ended::default());
        let guard = || Guard::new(ended.clone(), Verdict::success());
        let limits = BodyLimits { idle: Some(Duration::from_secs(5)), until: None };
        let mut response = Response::new(Tracked::new(slow(vec![])));
        BodyTrack.track(&mut response, guard().within(limits));
        BodyTrack.track(&mut response, guard());
        let mut body = Box::pin(response.into_body());
        let frame = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
        assert_eq!(frame.ok().and_then(reason), Some(Reason::Stalled));
        assert_eq!(ended.told().len(), 2);
        assert_eq!(guard().and(guard().within(limits)).limits(), limits);
    }

    #[test]
    fn a_body_may_outlive_the_runtime_that_it_was_first_read_on() {
        let (mut body, _) = limited(slow(vec![]), None, Some(3600));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            let first = async { futures::FutureExt::now_or_never(body.frame()).is_none() };
            assert!(runtime().block_on(first));
        }
        let waker = std::task::Waker::noop();
        let polled = body.as_mut().poll_frame(&mut Context::from_waker(waker));
        assert!(polled.is_pending(), "and be read where there is none");
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_are_the_end_though_a_body_does_not_know_its_own() {
        let frames = [Ok::<_, Infallible>(Frame::<Bytes>::trailers(HeaderMap::new()))];
        let (mut body, ended) = limited(StreamBody::new(futures::stream::iter(frames)), None, Some(10));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(ended.told(), [None]);
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
