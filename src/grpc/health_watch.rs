//! What an endpoint says of its health, in gRPC's own words, as it changes.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{Request, Response, StatusCode, Uri};
use bytes::{Buf, BufMut as _, BytesMut};
use futures::{Stream, stream};
use http_body::Body;
use tower::{BoxError, Service, ServiceExt as _};

use super::health::{LONGEST, Question, asking, code, status, under};
use crate::{
    backoff::Backoff,
    health::ServingStatus,
    invalid::{Check, Invalid},
    random::{Entropy, Random},
};

const PATH: &str = "/grpc.health.v1.Health/Watch";

/// UNIMPLEMENTED.
const UNIMPLEMENTED: u8 = 12;

/// Listens to what an endpoint says of its health: `grpc.health.v1.Health/Watch`, as gRPC's clients do (gRFC A17).
///
/// | what comes | the endpoint |
/// |---|---|
/// | SERVING | serves |
/// | NOT_SERVING, SERVICE_UNKNOWN, UNKNOWN | does not |
/// | the status UNIMPLEMENTED, or HTTP's 404, which stands for it | has no way to say so; it is not asked again until it is connected anew |
/// | any other end of the call, or none of its words yet | nothing is known, until it is called again |
///
/// It is called again after a wait that grows \[1 s, times 1.6, at most 2 min, full jitter\]; once it has said something, from the first
/// wait on again.
///
/// ```
/// use mainstay::grpc::HealthWatch;
///
/// let server = HealthWatch::of("http://users.internal")?; // the server as a whole
/// let users = HealthWatch::of("http://users.internal")?.service("users.Users");
/// # Ok::<_, mainstay::Invalid>(())
/// ```
#[derive(Clone)]
pub struct HealthWatch {
    method: Uri,
    service: Arc<str>,
    backoff: Backoff,
    random: Arc<dyn Random>,
}

impl HealthWatch {
    /// Listens to the server as a whole, under the scheme and authority of `origin`, whichever endpoint is called.
    ///
    /// # Errors
    /// [`Invalid`] if `origin` is no URI, or has no authority.
    pub fn of(origin: &str) -> Result<Self, Invalid> {
        let backoff = Backoff::exponential(Duration::from_secs(1)).factor(1.6).cap(Duration::from_secs(120));
        let method = under(origin, PATH, "watch.uri")?;
        Ok(Self { method, service: Arc::from(""), backoff, random: Arc::new(Entropy) })
    }

    /// What this service says \[the server as a whole\].
    #[must_use]
    pub fn service(mut self, service: impl Into<Arc<str>>) -> Self {
        self.service = service.into();
        self
    }

    /// After which wait an endpoint is called again whose call has ended.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Where the chance in those waits comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Whether the same words are listened to in the same way.
    #[cfg(feature = "tonic")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.method, &self.service, &self.backoff) == (&other.method, &other.service, &other.backoff)
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Invalid`] if the waits break their rules.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.part("backoff", |check| self.backoff.check(check));
        check.finish()
    }

    /// Listens over `service`; `body` makes bodies of its kind. The stream ends where there is no way to say so, after it has
    /// told that.
    pub fn listen<S, B, R, F>(
        &self,
        service: S,
        body: F,
    ) -> impl Stream<Item = ServingStatus> + Send + use<S, B, R, F>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Send + 'static,
        F: Fn(Question) -> B + Send + 'static,
        R: Body + Send,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        let listener = Listener {
            watch: self.clone(),
            service,
            body,
            phase: Phase::Calls,
            tries: 0,
            waited: Duration::ZERO,
        };
        stream::unfold(listener, |mut listener| async move {
            let status = listener.next().await?;
            Some((status, listener))
        })
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthWatch")
            .field("method", &self.method)
            .field("service", &self.service)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

struct Listener<S, F, R> {
    watch: HealthWatch,
    service: S,
    body: F,
    phase: Phase<R>,
    /// Calls since the last word.
    tries: u32,
    waited: Duration,
}

enum Phase<R> {
    Calls,
    Hears(Words<R>),
    Waits,
    Over,
}

impl<S, F, R> Listener<S, F, R> {
    async fn next<B>(&mut self) -> Option<ServingStatus>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        F: Fn(Question) -> B,
        R: Body,
    {
        loop {
            match &mut self.phase {
                Phase::Calls => {
                    let question = (self.body)(Question::of(&self.watch.service));
                    let call = self.service.clone().oneshot(asking(&self.watch.method, question));
                    self.phase = match call.await {
                        Ok(response) => Phase::Hears(Words::of(response)),
                        Err(_) => Phase::Waits,
                    };
                    if matches!(self.phase, Phase::Waits) {
                        return Some(ServingStatus::NotKnown);
                    }
                }
                Phase::Hears(words) => match poll_fn(|cx| words.poll(cx)).await {
                    Word::Said(status) => {
                        (self.tries, self.waited) = (0, Duration::ZERO);
                        return Some(status);
                    }
                    Word::Unimplemented => {
                        self.phase = Phase::Over;
                        return Some(ServingStatus::Unimplemented);
                    }
                    Word::Ended => {
                        self.phase = Phase::Waits;
                        return Some(ServingStatus::NotKnown);
                    }
                },
                Phase::Waits => {
                    self.tries = self.tries.saturating_add(1);
                    self.waited = self.watch.backoff.delay(self.tries, self.waited, &*self.watch.random);
                    tokio::time::sleep(self.waited).await;
                    self.phase = Phase::Calls;
                }
                Phase::Over => return None,
            }
        }
    }
}

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Said(ServingStatus),
    Unimplemented,
    Ended,
}

/// The messages of one call.
struct Words<R> {
    body: Pin<Box<R>>,
    /// How it ended, if the head said so already.
    over: Option<Word>,
    read: BytesMut,
}

impl<R: Body> Words<R> {
    fn of(response: Response<R>) -> Self {
        let (head, body) = response.into_parts();
        let over = match (code(&head.headers), head.status) {
            (Some(UNIMPLEMENTED), _) | (None, StatusCode::NOT_FOUND) => Some(Word::Unimplemented),
            (Some(_), _) => Some(Word::Ended),
            (None, status) => (status != StatusCode::OK).then_some(Word::Ended),
        };
        Self { body: Box::pin(body), over, read: BytesMut::new() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        loop {
            if let Some(over) = self.over {
                return Poll::Ready(over);
            }
            match self.message() {
                Ok(Some(status)) => return Poll::Ready(Word::Said(status)),
                // What is no answer to this question is none to any other.
                Err(()) => return Poll::Ready(Word::Ended),
                Ok(None) => {}
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.read.len() + data.remaining() > LONGEST => self.over = Some(Word::Ended),
                    Ok(data) => self.read.put(data),
                    Err(frame) => {
                        let end = frame.into_trailers().ok().and_then(|trailers| code(&trailers));
                        let unimplemented = end == Some(UNIMPLEMENTED);
                        self.over = Some(if unimplemented { Word::Unimplemented } else { Word::Ended });
                    }
                },
                Some(Err(_)) | None => self.over = Some(Word::Ended),
            }
        }
    }

    /// The next whole message of what was read, if there is one.
    fn message(&mut self) -> Result<Option<ServingStatus>, ()> {
        let Some(length) = self.read.get(1..5) else { return Ok(None) };
        let length = u32::from_be_bytes(length.try_into().map_err(|_| ())?);
        let whole = usize::try_from(length).ok().and_then(|length| length.checked_add(5)).ok_or(())?;
        if whole > LONGEST {
            return Err(());
        }
        if self.read.len() < whole {
            return Ok(None);
        }
        let framed = self.read.split_to(whole);
        match status(&framed) {
            Some(1) => Ok(Some(ServingStatus::Serving)),
            Some(_) => Ok(Some(ServingStatus::NotServing)),
            None => Err(()),
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Mutex, PoisonError},
        time::Instant,
    };

    use ::http::{HeaderMap, HeaderValue};
    use bytes::Bytes;
    use futures::StreamExt as _;
    use http_body::Frame;
    use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
    use proptest::prelude::*;
    use tower::service_fn;

    use super::*;
    use crate::{clock, grpc::STATUS, random::Seeded};

    type Answer = UnsyncBoxBody<Bytes, BoxError>;

    /// How a call is answered: with a status in its head, or with these messages and an end.
    #[derive(Clone)]
    enum Call {
        Refused,
        Head(u16, Option<&'static str>),
        Says(Vec<&'static [u8]>, End),
    }

    #[derive(Clone, Copy)]
    enum End {
        Never,
        Breaks,
        Code(&'static str),
    }

    fn body(says: Vec<&'static [u8]>, end: End) -> Answer {
        let data = says.into_iter().map(|data| Ok(Frame::data(Bytes::from_static(data))));
        let data = futures::stream::iter(data);
        let trailers = |code| HeaderMap::from_iter([(STATUS, HeaderValue::from_static(code))]);
        let body = match end {
            End::Never => data.chain(futures::stream::pending()).boxed(),
            End::Breaks => data.chain(futures::stream::iter([Err("broken".into())])).boxed(),
            End::Code(code) => {
                data.chain(futures::stream::iter([Ok(Frame::trailers(trailers(code)))])).boxed()
            }
        };
        UnsyncBoxBody::new(StreamBody::new(body))
    }

    /// What is heard of a server that answers its calls in this order, each with the time it was called.
    fn listen(calls: Vec<Call>) -> (impl Stream<Item = ServingStatus>, Arc<Mutex<Vec<Instant>>>) {
        let times = Arc::new(Mutex::new(Vec::new()));
        let (log, calls) = (times.clone(), Arc::new(Mutex::new(calls.into_iter())));
        let service = service_fn(move |request: Request<Question>| {
            assert_eq!(request.uri(), "http://users.internal/grpc.health.v1.Health/Watch");
            log.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
            let call = calls.lock().unwrap().next().expect("another call");
            async move {
                let question = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
                assert_eq!(&question[..], b"\0\0\0\0\x05\x0a\x03a.A");
                let builder = Response::builder();
                Ok::<_, BoxError>(match call {
                    Call::Refused => return Err("refused".into()),
                    Call::Head(status, code) => {
                        let builder = builder.status(status);
                        match code {
                            Some(code) => builder.header(STATUS, code),
                            None => builder,
                        }
                        .body(body(vec![], End::Never))?
                    }
                    Call::Says(says, end) => builder.body(body(says, end))?,
                })
            }
        });
        let watch = HealthWatch::of("http://users.internal").unwrap().service("a.A").random(Seeded::new(7));
        (watch.listen(service, |question| question), times)
    }

    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";

    use ServingStatus::{NotKnown, NotServing, Serving, Unimplemented};

    #[tokio::test(start_paused = true)]
    async fn each_message_is_a_word_however_it_is_cut() {
        let says = vec![
            SERVING,
            NOT_SERVING,
            b"\0\0\0\0\x02\x08\x03\0\0\0",
            b"\0\x00\0\0\0\0\x02",
            b"\x08",
            b"\x01",
        ];
        let (heard, _) = listen(vec![Call::Says(says, End::Never)]);
        let words: Vec<_> = heard.take(5).collect().await;
        assert_eq!(words, [Serving, NotServing, NotServing, NotServing, Serving]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_method_it_is_said_once_and_not_asked_again() {
        for call in [Call::Head(200, Some("12")), Call::Head(404, None), Call::Says(vec![], End::Code("12"))]
        {
            let (heard, times) = listen(vec![call]);
            assert_eq!(heard.collect::<Vec<_>>().await, [Unimplemented]);
            assert_eq!(times.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_end_is_not_to_know_and_it_is_called_again_after_a_wait_that_grows() {
        let bad: [&[u8]; 4] = [
            b"\x01\0\0\0\x02\x08\x01", // compressed
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x02\x08",
            &[0; LONGEST + 1],
        ];
        let ends = [Call::Refused, Call::Head(503, None), Call::Head(200, Some("14"))];
        let ends = ends
            .into_iter()
            .chain([End::Breaks, End::Code("0"), End::Code("5")].map(|end| Call::Says(vec![], end)));
        let garbage = bad.map(|bytes| Call::Says(vec![bytes], End::Breaks));
        let calls: Vec<_> = ends.chain(garbage).chain([Call::Says(vec![SERVING], End::Never)]).collect();
        let tries = calls.len();
        let (heard, times) = listen(calls);
        let words: Vec<_> = heard.take(tries).collect().await;
        assert_eq!(words[..tries - 1], vec![NotKnown; tries - 1]);
        assert_eq!(words[tries - 1], Serving);
        let times = times.lock().unwrap();
        for (nth, pair) in times.windows(2).enumerate() {
            let (wait, ceiling) = ((pair[1] - pair[0]).as_secs_f64(), 1.6_f64.powi(nth as i32).min(120.0));
            assert!(wait <= ceiling + 0.002, "{nth}: {wait} of {ceiling}");
        }
        assert!(times[tries - 1] - times[0] > Duration::from_secs(10), "it does not hurry");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_word_the_waits_begin_anew() {
        let mut calls = vec![Call::Refused; 10];
        calls.push(Call::Says(vec![NOT_SERVING], End::Breaks));
        calls.push(Call::Says(vec![SERVING], End::Never));
        let (heard, times) = listen(calls);
        let words: Vec<_> = heard.skip(10).take(3).collect().await;
        assert_eq!(words, [NotServing, NotKnown, Serving]);
        let times = times.lock().unwrap();
        assert!(times[11] - times[10] <= Duration::from_millis(1_002));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..6)) {
            let mut words = Words {
                body: Box::pin(http_body_util::Empty::<Bytes>::new()),
                over: None,
                read: BytesMut::new(),
            };
            for part in parts {
                words.read.put_slice(&part);
                while let Ok(Some(_)) = words.message() {}
            }
        }

        #[test]
        fn messages_are_found_however_they_are_cut(cuts in prop::collection::vec(0_usize..21, 0..6)) {
            let whole = [SERVING, NOT_SERVING, SERVING].concat();
            let mut cuts = cuts;
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| whole[cut[0]..cut[1]].to_vec()).collect();
            let frames = parts.into_iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
            let body = StreamBody::new(futures::stream::iter(frames));
            let mut words = Words::of(Response::new(body));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut next = || match words.poll(&mut cx) {
                Poll::Ready(word) => word,
                Poll::Pending => panic!("it is all there"),
            };
            prop_assert_eq!([next(), next(), next()], [Serving, NotServing, Serving].map(Word::Said));
            prop_assert_eq!(next(), Word::Ended);
        }
    }
}
