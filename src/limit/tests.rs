use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use super::{
    Algorithm, ConcurrencyLimitLayer, ConcurrencyLimitOptions, Entry, Gate, Queue, Ticket,
    control::{AimdOptions, Controller, EbbOptions, Pace, Round, VegasOptions},
};
use crate::{
    Error, Reason, clock,
    context::{self, Inherited},
    describe::Criticality,
    outcome::{Sent, Verdict},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn options(limit: u32, max_waiting: u32) -> ConcurrencyLimitOptions {
    ConcurrencyLimitOptions::default().limit(limit).max_waiting(max_waiting)
}

fn layer(limit: u32, max_waiting: u32) -> ConcurrencyLimitLayer {
    ConcurrencyLimitLayer::new(options(limit, max_waiting)).unwrap()
}

trait Work:
    Service<u32, Response = u32, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}
impl<S> Work for S where
    S: Service<u32, Response = u32, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}

/// Works for as many milliseconds as it is asked for.
fn worker(layer: &ConcurrencyLimitLayer) -> impl Work {
    layer.layer(service_fn(|millis: u32| async move {
        tokio::time::sleep(MS * millis).await;
        Ok::<_, BoxError>(millis)
    }))
}

fn work(layer: &ConcurrencyLimitLayer, millis: u32) -> BoxFuture<'static, Result<u32, BoxError>> {
    worker(layer).oneshot(millis).boxed()
}

fn reason<T>(result: &Result<T, BoxError>) -> Option<Reason> {
    result.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_run_and_the_others_follow() {
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counting = service_fn({
        let (running, most) = (running.clone(), most.clone());
        move |_: u32| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(MS).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, BoxError>(())
            }
        }
    });
    let service = layer(3, 100).layer(counting);
    let answers = join_all((0..50).map(|at| service.clone().oneshot(at))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn turns_are_first_come_first_served() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = service_fn({
        let order = order.clone();
        move |at: u32| {
            order.lock().unwrap().push(at);
            async {
                tokio::time::sleep(MS).await;
                Ok::<_, BoxError>(())
            }
        }
    });
    let service = layer(2, 100).layer(noting);
    join_all((0..40).map(|at| service.clone().oneshot(at))).await;
    assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_line_a_request_is_refused_at_once_by_name_and_unsent() {
    let layer = layer(1, 2).label("reports");
    let mut running: Vec<_> = (0..3).map(|_| work(&layer, 1)).collect();
    assert!(running.iter_mut().all(|call| poll_once(call).is_pending()));
    let refused = work(&layer, 1).await.unwrap_err();
    let refusal = Error::find(&*refused).unwrap();
    assert_eq!(
        (refusal.reason(), refusal.sent(), refusal.client()),
        (Reason::Limit, Sent::No, Some("reports"))
    );
    assert!(join_all(running).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_the_line_is_closed() {
    let layer = layer(1, 0);
    let answers = join_all((0..2).map(|_| work(&layer, 1))).await;
    assert!(answers[0].is_ok());
    assert_eq!(reason(&answers[1]), Some(Reason::Limit));
    assert!(work(&layer, 1).await.is_ok(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_limit() {
    let layer = ConcurrencyLimitLayer::new(options(1, 10).max_wait(MS * 50)).unwrap();
    let start = clock::now();
    let (ran, refused) = tokio::join!(work(&layer, 80), async {
        let refused = work(&layer, 1).await;
        (refused, clock::now().saturating_duration_since(start))
    });
    assert!(ran.is_ok());
    assert_eq!((reason(&refused.0), refused.1), (Some(Reason::Limit), MS * 50));
    let lasted = refused.0.err().and_then(|error| Error::find(&*error).and_then(Error::lasted));
    assert_eq!(lasted, Some(MS * 50));
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_leaves_at_its_deadline() {
    let layer = layer(1, 10);
    let start = clock::now();
    let inherited = Inherited::default().with_deadline(start + MS * 30);
    let (ran, refused) = tokio::join!(
        work(&layer, 80),
        context::scope(inherited, async {
            let refused = work(&layer, 1).await;
            (refused, clock::now().saturating_duration_since(start))
        })
    );
    assert!(ran.is_ok());
    assert_eq!((reason(&refused.0), refused.1), (Some(Reason::Limit), MS * 30));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_with_the_deadline_is_passed_on() {
    let layer = layer(1, 10);
    let start = clock::now();
    let late = Inherited::default().with_deadline(start + MS * 80);
    let (ran, refused, next) =
        tokio::join!(work(&layer, 80), context::scope(late, work(&layer, 1)), work(&layer, 2));
    assert!(ran.is_ok());
    assert_eq!(reason(&refused), Some(Reason::Limit));
    assert_eq!(next.ok(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_request_takes_no_place() {
    let layer = layer(1, 10);
    let passed = Inherited::default().with_deadline(clock::now());
    let refused = context::scope(passed, work(&layer, 1)).await;
    assert_eq!(reason(&refused), Some(Reason::Deadline));
    assert_eq!(layer.gate().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_that_is_dropped_passes_its_turn_on() {
    let layer = layer(1, 10);
    let mut calls: Vec<_> = (0..3).map(|_| work(&layer, 5)).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    let last = calls.pop().unwrap();
    drop(calls.swap_remove(0)); // the one that runs; the turn goes to the next
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (1, 1));
    drop(calls); // which never learns of it
    assert_eq!(last.await.ok(), Some(5));
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_gives_its_place_back_polled_or_not() {
    let layer = layer(1, 0);
    drop(worker(&layer).call(1));
    let mut polled = work(&layer, 1);
    assert!(poll_once(&mut polled).is_pending());
    assert_eq!(layer.gate().in_flight(), 1);
    drop(polled);
    assert_eq!(layer.gate().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_place_is_free_when_the_response_is_there_not_when_its_future_is_dropped() {
    let layer = layer(1, 0);
    let mut call = work(&layer, 1);
    call.as_mut().await.unwrap();
    assert_eq!(layer.gate().in_flight(), 0);
    drop(call);
    assert_eq!(layer.gate().in_flight(), 0, "and is given back once");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_service_gives_the_place_back() {
    let layer = layer(1, 0);
    let bad = layer
        .layer(service_fn(|(): ()| async { if true { panic!("inside") } else { Ok::<_, BoxError>(()) } }));
    assert!(tokio::spawn(bad.oneshot(())).await.is_err());
    assert_eq!(layer.gate().in_flight(), 0);
}

/// tower's limit, under `LoadShed`: the place that became free went to a handle that was turned away and went idle.
#[tokio::test(start_paused = true)]
async fn shedding_by_readiness_strands_no_place_on_an_idle_handle() {
    let layer = layer(1, 1);
    let service = ServiceBuilder::new().load_shed().service(worker(&layer));
    let (mut running, mut idle) = (service.clone().oneshot(1).boxed(), service.clone());
    assert!(poll_once(&mut running).is_pending());
    idle.ready().await.unwrap();
    running.await.unwrap();
    assert_eq!(layer.gate().in_flight(), 0);
    assert!(service.oneshot(1).await.is_ok(), "shed with nothing running");
}

/// tower's limit: a handle that is ready and never called keeps every other one waiting for ever.
#[tokio::test(start_paused = true)]
async fn handles_that_are_ready_and_idle_starve_nobody() {
    let layer = layer(1, 1);
    let service = worker(&layer);
    let mut idle: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for handle in &mut idle {
        handle.ready().await.unwrap();
    }
    assert_eq!(service.oneshot(1).await.ok(), Some(1));
}

/// tokio's semaphore gives out at most 128 places in one poll of a task, which a shedding limit takes for a full one.
#[tokio::test(start_paused = true)]
async fn many_calls_in_one_task_are_all_let_in_below_the_limit() {
    let layer = layer(200, 0);
    let answers = join_all((0..200).map(|_| work(&layer, 1))).await;
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_the_waiting_in_at_once() {
    let layer = layer(1, 10);
    let mut calls: Vec<_> = (0..4).map(|_| work(&layer, 5)).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    layer.update(&options(3, 10)).unwrap();
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (3, 1));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lowered_cuts_nobody_off_and_then_holds() {
    let layer = layer(3, 10);
    let mut calls: Vec<_> = (0..5).map(|at| work(&layer, 5 * (at + 1))).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    layer.update(&options(1, 10)).unwrap();
    let rest = calls.split_off(1);
    let rest = tokio::spawn(join_all(rest));
    calls.remove(0).await.unwrap();
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (2, 2), "one has left, none came");
    assert!(rest.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn every_service_of_a_layer_shares_its_limit() {
    let layer = layer(1, 0);
    let answers = tokio::join!(work(&layer, 1), work(&layer.clone(), 1));
    assert!(answers.0.is_ok());
    assert_eq!(reason(&answers.1), Some(Reason::Limit));
}

#[tokio::test]
async fn the_service_that_was_readied_is_the_one_that_is_called() {
    /// Must be readied before each call; a clone has not been.
    #[derive(Default)]
    struct Strict(bool);
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Service<()> for Strict {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0 = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "called without being ready");
            std::future::ready(Ok(()))
        }
    }
    let mut service = layer(1, 0).layer(Strict::default());
    for _ in 0..2 {
        service.ready().await.unwrap().call(()).await.unwrap();
    }
}

#[test]
fn all_bad_options_are_told_at_once_and_change_nothing() {
    let bad = options(0, 0).max_wait(Duration::ZERO);
    assert_eq!(ConcurrencyLimitLayer::new(bad.clone()).unwrap_err().problems().len(), 2);
    let layer = layer(7, 0);
    assert!(layer.update(&bad).is_err());
    assert_eq!(layer.gate().limit(), 7);
}

/// What is stepped through beside the gate: who is in, and who waits in which order.
#[derive(Default)]
struct Books {
    permits: Vec<super::Permit>,
    tickets: std::collections::VecDeque<Ticket>,
}

proptest::proptest! {
    #[test]
    fn the_gate_keeps_its_books_whatever_happens(steps in proptest::collection::vec((0_u8..5, 0_usize..8), 1..200)) {
        let (gate, mut books) = (Gate::new(2, 4), Books::default());
        let mut cx = Context::from_waker(Waker::noop());
        for (step, at) in steps {
            match step {
                0 | 1 => match gate.acquire(&mut cx) {
                    Entry::Permit(permit) => {
                        proptest::prop_assert!(books.tickets.is_empty(), "overtook");
                        books.permits.push(permit);
                    }
                    Entry::Wait(ticket) => books.tickets.push_back(ticket),
                    Entry::Full => proptest::prop_assert_eq!(gate.waiting(), 4),
                },
                2 if at < books.permits.len() => drop(books.permits.swap_remove(at)),
                3 if at < books.tickets.len() => drop(books.tickets.remove(at)),
                4 => gate.set_limit(at as u32),
                _ => {}
            }
            // Turns come from the front of the line, as many as there is room for.
            while let Some(mut first) = books.tickets.pop_front() {
                match first.poll_turn(&mut cx) {
                    Poll::Ready(permit) => books.permits.push(permit),
                    Poll::Pending => {
                        books.tickets.push_front(first);
                        break;
                    }
                }
            }
            proptest::prop_assert_eq!(gate.in_flight() as usize, books.permits.len());
            proptest::prop_assert_eq!(gate.waiting() as usize, books.tickets.len());
            proptest::prop_assert!(books.tickets.is_empty() || gate.in_flight() >= gate.limit(), "room and a line");
        }
        drop(books);
        proptest::prop_assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn under_pressure_the_newest_goes_first_where_that_is_wanted() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = service_fn({
        let order = order.clone();
        move |at: u32| {
            order.lock().unwrap().push(at);
            async {
                tokio::time::sleep(MS * 50).await;
                Ok::<_, BoxError>(())
            }
        }
    });
    let layer = ConcurrencyLimitLayer::new(options(1, 100).queue(Queue::Lifo).max_wait(MS * 10_000)).unwrap();
    let service = layer.layer(noting);
    let calls = (0..8_u32).map(|at| {
        let service = service.clone();
        async move {
            tokio::time::sleep(MS * 30 * at).await;
            service.oneshot(at).await
        }
    });
    join_all(calls).await;
    // 2 came into an empty line, at 60 ms; when 6 came it had not been empty for 120.
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 6, 7, 5, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_does_not_get_empty_lets_nobody_wait_long() {
    let options = options(1, 100).queue(Queue::CoDel).pressure(MS * 5, MS * 100);
    let layer = ConcurrencyLimitLayer::new(options).unwrap();
    let waits = (0..4_u32).map(|at| {
        let layer = layer.clone();
        async move {
            tokio::time::sleep(MS * 60 * at).await;
            let error = work(&layer, 1_000).await.err()?;
            Error::find(&*error).and_then(Error::lasted)
        }
    });
    // The first runs; the second came into an empty line; for the others it was not empty for 0, 60 and 120 ms.
    let again = async {
        tokio::time::sleep(MS * 155).await;
        let error = work(&layer, 1).await.err()?;
        Error::find(&*error).and_then(Error::lasted)
    };
    let (waits, late) = tokio::join!(join_all(waits), again);
    assert_eq!(waits, [None, Some(MS * 100), Some(MS * 100), Some(MS * 5)]);
    assert_eq!(late, Some(MS * 100));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_expect_a_turn_in_time_is_refused_at_once() {
    let layer = layer(1, 100);
    let mut calls: Vec<_> = (0..20).map(|_| work(&layer, 10)).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));
    let finishing = tokio::spawn(join_all(calls));
    tokio::time::sleep(MS * 105).await;
    // Ten turns in 105 ms, nine are left before it.
    let within = |millis: u32| {
        let scope = Inherited::default().with_deadline(clock::now() + MS * millis);
        let layer = layer.clone();
        async move {
            let start = clock::now();
            let result = context::scope(scope, work(&layer, 1)).await;
            (reason(&result), clock::now() - start)
        }
    };
    assert_eq!(within(60).await, (Some(Reason::Limit), Duration::ZERO));
    assert_eq!(within(200).await.0, None);
    finishing.await.unwrap();
}

#[derive(Debug, Default)]
struct Body(Option<crate::track::Guard>);

struct InBody;

impl crate::Track<Body> for InBody {
    fn track(&self, response: &mut Body, guard: crate::track::Guard) {
        response.0 = Some(guard);
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_tracked_body_a_place_is_kept_to_its_end() {
    let layer = layer(1, 0).track(InBody);
    let get = || layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(Body::default()) })).oneshot(());
    let body = get().await.unwrap();
    assert_eq!(reason(&get().await), Some(Reason::Limit));
    drop(body);
    assert!(get().await.is_ok());
}

/// A server of four slots, 40 ms of work each, that turns nobody away.
fn four_slots(answered: Arc<AtomicU32>) -> impl Work {
    let slots = Arc::new(tokio::sync::Semaphore::new(4));
    service_fn(move |number: u32| {
        let (slots, answered) = (slots.clone(), answered.clone());
        async move {
            let _slot = slots.acquire().await;
            tokio::time::sleep(MS * (20 + number % 41)).await;
            answered.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>(number)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_finds_what_a_server_can_do() {
    for (ebb, initial) in [(EbbOptions::default(), 4), (EbbOptions::default().range(20, 1, 1_000), 20)] {
        let answered = Arc::new(AtomicU32::new(0));
        let options = options(1, 1_000).algorithm(Algorithm::Ebb(ebb)).max_wait(MS * 100);
        let layer = ConcurrencyLimitLayer::new(options).unwrap();
        let service = layer.layer(four_slots(answered.clone()));
        assert_eq!(layer.gate().limit(), initial);
        for number in 0..40_u32 * 200 {
            // Twice what it can do.
            tokio::spawn(service.clone().oneshot(number));
            tokio::time::sleep(MS * 5).await;
        }
        let limit = layer.gate().limit();
        assert!((3..=9).contains(&limit), "{limit}");
        let answered = answered.load(Ordering::Relaxed);
        assert!(answered > 40 * 100 * 85 / 100, "{answered}");
    }
}

/// For `time` a hundred callers, each of whom calls again at once, whatever it is told.
async fn with_a_hundred_callers<S>(service: S, time: Duration)
where
    S: Service<u32> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    S::Response: Send,
{
    let callers = (0..100_u32).map(|number| {
        let mut service = service.clone();
        tokio::spawn(async move {
            loop {
                if let Ok(ready) = service.ready().await {
                    let _ = ready.call(number).await;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep(time).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
}

fn adaptive() -> ConcurrencyLimitLayer {
    let options = ConcurrencyLimitOptions::default().algorithm(Algorithm::adaptive()).max_wait(SECOND * 60);
    ConcurrencyLimitLayer::new(options).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_grows_where_requests_fail_or_last_for_long() {
    for (failing, millis, seconds) in [(0, 20, 40), (2, 20, 40), (0, 5_000, 300)] {
        let layer = adaptive();
        let service = layer.layer(service_fn(move |number: u32| async move {
            tokio::time::sleep(MS * millis).await;
            if number % 5 < failing { Err(BoxError::from("failed")) } else { Ok(number) }
        }));
        with_a_hundred_callers(service, SECOND * seconds).await;
        let limit = layer.gate().limit();
        assert!(limit > 90, "{failing} of 5 fail, {millis} ms: {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_grows_where_bodies_take_as_long_as_heads() {
    for algorithm in [Algorithm::adaptive(), Algorithm::Vegas(VegasOptions::default())] {
        let options = ConcurrencyLimitOptions::default().algorithm(algorithm).max_wait(SECOND * 60);
        let layer = ConcurrencyLimitLayer::new(options).unwrap().track(InBody);
        let heads = layer.layer(service_fn(|_: u32| async {
            tokio::time::sleep(MS * 10).await;
            Ok::<_, BoxError>(Body::default())
        }));
        let service = service_fn(move |number| {
            let heads = heads.clone();
            let head: BoxFuture<'static, Result<Body, BoxError>> = heads.oneshot(number).boxed();
            async move {
                let body = head.await?;
                tokio::time::sleep(MS * 10).await;
                drop(body);
                Ok::<_, BoxError>(())
            }
        });
        with_a_hundred_callers(service, SECOND * 40).await;
        let limit = layer.gate().limit();
        assert!(limit > 80, "{limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_comes_back_from_every_limit_that_drops_leave() {
    for millis in (3_000..4_600).step_by(200) {
        let layer = adaptive().classify(|result: Result<&u32, &BoxError>| match result {
            Ok(429) => Verdict::back_off(None),
            _ => Verdict::success(),
        });
        let start = clock::now();
        let service = layer.layer(service_fn(move |_: u32| async move {
            tokio::time::sleep(MS * 40).await;
            let passed = clock::now() - start;
            let drops = (SECOND * 5..SECOND * 5 + MS * millis).contains(&passed);
            Ok::<_, BoxError>(if drops { 429 } else { 200 })
        }));
        with_a_hundred_callers(service, SECOND * 40).await;
        let limit = layer.gate().limit();
        assert!(limit > 50, "after {millis} ms of drops: {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_for_the_same_algorithm_keep_what_it_has_learnt() {
    let layer = adaptive();
    let service = layer.layer(service_fn(|number: u32| async move {
        tokio::time::sleep(MS * 20).await;
        Ok::<_, BoxError>(number)
    }));
    with_a_hundred_callers(service, SECOND * 30).await;
    let learnt = layer.gate().limit();
    let of = |ebb| ConcurrencyLimitOptions::default().algorithm(Algorithm::Ebb(ebb));
    layer.update(&of(EbbOptions::default().range(4, 1, 5_000))).unwrap();
    assert!(learnt > 90 && layer.gate().limit() == learnt);
    layer.update(&of(EbbOptions::default().range(4, 1, 50))).unwrap();
    assert_eq!(layer.gate().limit(), 50);
    layer.update(&of(EbbOptions::default()).algorithm(Algorithm::Vegas(VegasOptions::default()))).unwrap();
    assert_eq!(layer.gate().limit(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_was_refused_and_is_kept_keeps_no_place_in_line() {
    let layer = ConcurrencyLimitLayer::new(options(1, 9).max_wait(MS * 100)).unwrap();
    let first = tokio::spawn(work(&layer, 500));
    tokio::task::yield_now().await;
    let mut service = worker(&layer);
    let mut second = Box::pin(service.ready().await.unwrap().call(0));
    assert_eq!(reason(&second.as_mut().await), Some(Reason::Limit));
    assert_eq!(layer.gate().waiting(), 0);
    first.await.unwrap().unwrap();
    assert!(work(&layer, 1).await.is_ok());
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_nobody_any_more_does_not_look_idle() {
    // Callers give up after 100 ms, outside of the limit: nothing is ever answered in time.
    let options = options(1, 0).algorithm(Algorithm::Ebb(EbbOptions::default().range(40, 1, 1_000)));
    let layer = ConcurrencyLimitLayer::new(options).unwrap();
    let service = layer.layer(four_slots(Arc::default()));
    for number in 0..6_000_u32 {
        tokio::spawn(tokio::time::timeout(MS * 100, service.clone().oneshot(number)));
        tokio::time::sleep(MS * 2).await;
    }
    assert!(layer.gate().limit() <= 20, "{}", layer.gate().limit());
}

#[tokio::test(start_paused = true)]
async fn drops_are_what_the_classifier_and_the_limit_of_attempts_say() {
    let options = options(1, 0).algorithm(Algorithm::Aimd(AimdOptions::default().range(100, 10, 200)));
    let classify = |result: Result<&u32, &BoxError>| match result {
        Ok(429) => Verdict::back_off(None),
        _ => Verdict::success(),
    };
    let layer = ConcurrencyLimitLayer::new(options).unwrap().classify(classify);
    let service = layer.layer(service_fn(|status: u32| async move { Ok::<_, BoxError>(status) }));
    for (status, expected) in [(200, 100), (200, 100), (429, 90), (429, 81)] {
        tokio::time::sleep(MS * 1_100).await;
        service.clone().oneshot(status).await.unwrap();
        assert_eq!(layer.gate().limit(), expected);
    }
    let limited = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(crate::deadline::AttemptLimitLayer::new(MS * 10))
        .service(service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>()));
    tokio::time::sleep(MS * 1_100).await;
    assert!(limited.oneshot(1).await.is_err());
    assert_eq!(layer.gate().limit(), 72);
}

#[tokio::test(start_paused = true)]
async fn an_algorithm_that_stays_keeps_what_it_has_learnt_and_another_begins_anew() {
    let adaptive = options(5, 7).algorithm(Algorithm::Aimd(AimdOptions::default().range(50, 10, 200)));
    let layer = ConcurrencyLimitLayer::new(adaptive.clone()).unwrap();
    layer.gate().set_limit(33);
    layer.update(&adaptive.clone().max_waiting(9)).unwrap();
    assert_eq!(layer.gate().limit(), 33);
    layer.update(&options(5, 7)).unwrap();
    assert_eq!(layer.gate().limit(), 5);
    layer.update(&adaptive).unwrap();
    assert_eq!(layer.gate().limit(), 50);
}

#[tokio::test(start_paused = true)]
async fn somebodys_own_controller_decides() {
    #[derive(Debug)]
    struct Seven;
    impl Controller for Seven {
        fn limit(&self) -> u32 {
            7
        }
        fn round(&mut self, _: &Round) -> u32 {
            8
        }
        fn pace(&self) -> Pace {
            Pace::new(MS, 1, MS)
        }
    }
    let layer = ConcurrencyLimitLayer::controlled(options(1, 0), Seven).unwrap();
    assert_eq!(layer.gate().limit(), 7);
    layer.update(&options(3, 5)).unwrap();
    assert_eq!(layer.gate().limit(), 7, "an update leaves it in charge");
    for _ in 0..3 {
        tokio::time::sleep(MS * 2).await;
        work(&layer, 1).await.unwrap();
    }
    assert_eq!(layer.gate().limit(), 8);
}

#[test]
fn the_options_of_queue_and_algorithm_are_checked() {
    let wrong = options(1, 0)
        .pressure(MS * 10, MS)
        .algorithm(Algorithm::Vegas(VegasOptions::default().range(5, 10, 20)));
    let invalid = ConcurrencyLimitLayer::new(wrong).unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["algorithm.initial", "interval"]);
}

fn class_of(layer: &ConcurrencyLimitLayer, class: Criticality) -> BoxFuture<'static, Result<u32, BoxError>> {
    context::scope(Inherited::default().with_criticality(class), work(layer, 10)).boxed()
}

#[tokio::test(start_paused = true)]
async fn who_matters_more_is_served_first_and_takes_the_place_of_who_matters_least() {
    use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
    let layer = layer(1, 3);
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut calls: Vec<_> =
        [Critical, Sheddable, SheddablePlus, Sheddable, CriticalPlus, Critical, Sheddable]
            .into_iter()
            .enumerate()
            .map(|(at, class)| {
                let (call, done) = (class_of(&layer, class), done.clone());
                async move {
                    let result = call.await;
                    done.lock().unwrap().push((at, reason(&result)));
                }
                .boxed()
            })
            .collect();
    // The first is in, three wait; the next two push out both of the lowest class, the newer first; the last is the lowest.
    for call in &mut calls {
        let _ = poll_once(call);
    }
    assert_eq!(*done.lock().unwrap(), [(6, Some(Reason::Limit))]);
    calls.truncate(6);
    join_all(calls).await;
    let done = done.lock().unwrap();
    let refused: Vec<_> = done.iter().filter(|(_, reason)| reason.is_some()).map(|(at, _)| *at).collect();
    let served: Vec<_> = done.iter().filter(|(_, reason)| reason.is_none()).map(|(at, _)| *at).collect();
    assert_eq!((refused, served), (vec![6, 1, 3], vec![0, 4, 5, 2]));
    assert_eq!((layer.gate().in_flight(), layer.gate().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_highest_class_is_served_until_it_alone_is_too_much() {
    use Criticality::{Critical, CriticalPlus, Sheddable};
    let layer = ConcurrencyLimitLayer::new(options(4, 16).max_wait(MS * 200)).unwrap();
    let served = Arc::new(Mutex::new([(0, 0); 4]));
    // 400 a second can be served; 1,000 come, 100 of the highest class.
    for at in 0..2_000_u32 {
        let class = [CriticalPlus, Critical, Critical, Critical, Sheddable]
            [if at % 10 == 0 { 0 } else { 1 + at as usize % 4 }];
        let (call, served) = (class_of(&layer, class), served.clone());
        tokio::spawn(async move {
            let ok = call.await.is_ok();
            let count = &mut served.lock().unwrap()[class as usize];
            *count = (count.0 + u32::from(ok), count.1 + 1);
        });
        tokio::time::sleep(MS).await;
    }
    tokio::time::sleep(MS * 1_000).await;
    let served = *served.lock().unwrap();
    assert_eq!(served[3].0, served[3].1, "{served:?}");
    let share = |class: usize| f64::from(served[class].0) / f64::from(served[class].1);
    assert!(share(0) < 0.05 && share(2) > 0.4, "{served:?}");
}
