use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use ::http::{HeaderMap, HeaderValue};
use futures::channel::mpsc;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use proptest::prelude::*;

use super::*;

/// One answer of a scripted body.
#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>),
    Pending,
    Trailers,
    Fails,
}

struct Script(VecDeque<Step>);

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.pop_front() {
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data.into())))),
            Some(Step::Pending) => Poll::Pending,
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers())))),
            Some(Step::Fails) => Poll::Ready(Some(Err("the disk is gone".into()))),
            None => Poll::Ready(None),
        }
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("sum".parse().unwrap(), HeaderValue::from_static("7"))])
}

fn script(steps: impl IntoIterator<Item = Step>) -> Script {
    Script(steps.into_iter().collect())
}

/// What a reader has read so far.
#[derive(Debug, Default, PartialEq)]
struct Read {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    outgrown: bool,
}

impl Read {
    /// Polls once; `true` while there may be more.
    fn poll(&mut self, body: &mut Replay<Script>) -> bool {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => true,
            Poll::Ready(None) => {
                self.ended = true;
                false
            }
            Poll::Ready(Some(Ok(frame))) => {
                match frame.into_data() {
                    Ok(data) => self.bytes.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                }
                true
            }
            Poll::Ready(Some(Err(error))) => {
                self.outgrown = matches!(error, ReplayError::Outgrown);
                false
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let data = prop::collection::vec(any::<u8>(), 0..6).prop_map(Step::Data);
    let some = prop::collection::vec(prop_oneof![3 => data, 1 => Just(Step::Pending)], 0..12);
    (some, any::<bool>()).prop_map(|(mut steps, with_trailers)| {
        steps.extend(with_trailers.then_some(Step::Trailers));
        steps
    })
}

fn whole(steps: &[Step]) -> Read {
    let mut read = Read { ended: true, ..Read::default() };
    for step in steps {
        match step {
            Step::Data(data) => read.bytes.extend_from_slice(data),
            Step::Trailers => read.trailers = Some(trailers()),
            Step::Pending | Step::Fails => {}
        }
    }
    read
}

proptest! {
    #[test]
    fn two_readers_read_the_same_in_any_order(steps in steps(), order in prop::collection::vec(any::<bool>(), 0..40)) {
        let mut bodies = [Replay::new(script(steps.clone())), Replay::new(script([]))];
        bodies[1] = bodies[0].copy().unwrap();
        let mut reads = [Read::default(), Read::default()];
        for turn in order {
            let turn = usize::from(turn);
            reads[turn].poll(&mut bodies[turn]);
            prop_assert!(bodies[turn].is_whole());
        }
        for turn in [0, 1] {
            while reads[turn].poll(&mut bodies[turn]) {}
            prop_assert!(bodies[turn].is_end_stream());
            prop_assert_eq!(bodies[turn].size_hint().exact(), Some(0));
        }
        let expected = whole(&steps);
        prop_assert_eq!(&reads[0], &expected);
        prop_assert_eq!(&reads[1], &expected);
    }

    #[test]
    fn beyond_the_limit_a_reader_reads_all_or_fails(
        steps in steps(), limit in 0_usize..20, order in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        let mut first = Replay::with_limit(script(steps.clone()), limit);
        let mut bodies = [first.copy().unwrap(), first];
        let mut reads = [Read::default(), Read::default()];
        for turn in order {
            let turn = usize::from(turn);
            reads[turn].poll(&mut bodies[turn]);
        }
        let expected = whole(&steps);
        for turn in [0, 1] {
            while reads[turn].poll(&mut bodies[turn]) {}
            prop_assert!(reads[turn].outgrown != reads[turn].ended);
            if reads[turn].ended {
                prop_assert_eq!(&reads[turn], &expected);
            } else {
                prop_assert!(expected.bytes.len() > limit);
            }
        }
        prop_assert!(reads.iter().any(|read| read.ended), "whoever is ahead reads on");
        prop_assert_eq!(bodies[0].copy().is_some(), expected.bytes.len() <= limit);
    }

    #[test]
    fn the_length_is_right_for_each_reader_at_every_moment(
        bytes in prop::collection::vec(any::<u8>(), 1..50), order in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        let mut first = Replay::new(Full::<Bytes>::from(bytes.clone()));
        let mut bodies = [first.copy().unwrap(), first];
        let mut left = [bytes.len() as u64; 2];
        for turn in order {
            let turn = usize::from(turn);
            let cx = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut bodies[turn]).poll_frame(cx) {
                left[turn] -= frame.into_data().unwrap().len() as u64;
            }
            for turn in [0, 1] {
                prop_assert_eq!(bodies[turn].size_hint().exact(), Some(left[turn]));
                prop_assert_eq!(bodies[turn].is_end_stream(), left[turn] == 0);
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_copied_is_the_body_it_wraps() {
    let body = Replay::with_limit(script([Step::Data(vec![1; 9]), Step::Trailers]), 3);
    assert!(matches!(body.state, State::Direct { .. }));
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers()));
    assert_eq!(collected.to_bytes().len(), 9);
}

#[test]
fn a_body_that_is_known_to_be_too_long_is_not_copied_and_streams_on() {
    let mut body = Replay::with_limit(Full::<Bytes>::from("longer"), 5);
    assert!(body.copy().is_none());
    assert!(matches!(body.state, State::Direct { .. }));
}

#[test]
fn an_empty_body_is_copied_for_nothing() {
    let mut body = Replay::with_limit(Empty::<Bytes>::new(), 0);
    let copy = body.copy().unwrap();
    assert!(copy.is_end_stream());
    assert!(matches!((&body.state, &copy.state), (State::Direct { .. }, State::Empty)));
}

#[test]
fn a_body_that_was_read_before_its_first_copy_is_not_copied() {
    let mut body = Replay::new(script([Step::Pending, Step::Data(vec![1])]));
    assert!(Read::default().poll(&mut body));
    assert!(body.copy().is_none());
}

#[test]
fn a_failing_body_fails_for_every_reader_and_again_when_asked_again() {
    let mut first = Replay::new(script([Step::Data(vec![1]), Step::Fails]));
    let mut second = first.copy().unwrap();
    for body in [&mut first, &mut second] {
        for turn in 0..3 {
            let frame = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(frame)) = frame else { panic!("{frame:?}") };
            assert_eq!(matches!(frame, Err(ReplayError::Body(_))), turn > 0);
        }
        assert!(!body.is_end_stream());
    }
}

#[test]
fn a_copy_that_can_no_longer_be_sent_says_so_before_it_is_tried() {
    let mut sent = Replay::with_limit(script([Step::Data(vec![1; 4]), Step::Data(vec![1; 4])]), 5);
    let kept = sent.copy().unwrap();
    let mut read = Read::default();
    read.poll(&mut sent);
    assert!(kept.is_whole());
    read.poll(&mut sent);
    assert!(!kept.is_whole());
    assert!(sent.is_whole());
}

type Frames = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>;

fn channel() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>, StreamBody<Frames>) {
    let (sender, frames) = mpsc::unbounded();
    (sender, StreamBody::new(frames))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(text)))
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_it_waits_takes_no_wake_up_along() {
    for dropped_polls_last in [false, true] {
        let (sender, body) = channel();
        let mut stays = Replay::new(body);
        let mut goes = stays.copy().unwrap();
        let (woken, other) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let poll = |body: &mut Replay<_>, woken: &Arc<Woken>| {
            let waker = Waker::from(Arc::clone(woken));
            assert!(Pin::new(body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
        };
        if dropped_polls_last {
            poll(&mut stays, &woken);
            poll(&mut goes, &other);
        } else {
            poll(&mut goes, &other);
            poll(&mut stays, &woken);
        }
        drop(goes);
        sender.unbounded_send(data("late")).unwrap();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(other.0.load(Ordering::SeqCst), 0);
        let frame = stays.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "late");
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_does_not_stop_the_other() {
    let (sender, body) = channel();
    let mut reads = Replay::new(body);
    let mut stalls = reads.copy().unwrap();
    let task = tokio::spawn(async move { reads.frame().await.unwrap().unwrap().into_data().unwrap() });
    tokio::task::yield_now().await;
    // Polls last, and then never again although it is woken.
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut stalls).poll_frame(cx).is_pending());
    sender.unbounded_send(data("on")).unwrap();
    assert_eq!(task.await.unwrap(), "on");
}

#[tokio::test]
async fn a_body_that_becomes_ready_by_itself_wakes_the_readers_that_wait() {
    let ready = Arc::new(Mutex::new(false));
    let frames = futures::stream::poll_fn({
        let ready = Arc::clone(&ready);
        move |_| match *ready.lock().unwrap() {
            true => Poll::Ready(Some(data("now"))),
            false => Poll::Pending,
        }
    });
    let mut first = Replay::new(StreamBody::new(Box::pin(frames)));
    let mut second = first.copy().unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    *ready.lock().unwrap() = true;
    poll_fn(|cx| Pin::new(&mut second).poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_several_threads_read_the_same_while_others_come_and_go() {
    let (sender, body) = channel();
    let mut first = Replay::new(body);
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(first.copy().unwrap().collect())).collect();
    for turn in 0..500 {
        if turn % 10 == 0 {
            // Reads a little and is dropped while it waits.
            let mut passing = first.copy().unwrap();
            tokio::spawn(async move {
                for _ in 0..turn / 10 {
                    drop(passing.frame().await);
                }
                let unread = poll_fn(|cx| Poll::Ready(Pin::new(&mut passing).poll_frame(cx))).await;
                drop((unread, passing));
            });
        }
        sender.unbounded_send(data("some")).unwrap();
        tokio::task::yield_now().await;
    }
    drop(sender);
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().to_bytes().len(), 2_000);
    }
}
