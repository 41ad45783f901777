//! The layer: leases of futures, events and their order, time that is kept without calls.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use tower::{BoxError, Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};

use super::*;
use crate::{Error, KeyOptions, Reason, telemetry::Event, track::Guard};

/// What the service does.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Fail,
    Hang,
    Panic,
    Refuse(Reason),
}

async fn act(act: Act) -> Result<u32, BoxError> {
    match act {
        Act::Answer => Ok(1),
        Act::Fail => Err("failed".into()),
        Act::Hang => std::future::pending().await,
        Act::Panic => panic!("inside"),
        Act::Refuse(reason) => Err(Error::new(reason).into()),
    }
}

type Heard = Arc<Mutex<Vec<String>>>;

fn hear() -> (Heard, impl Fn(&str, &Event) + Clone) {
    let heard = Heard::default();
    let told = heard.clone();
    (heard, move |_: &str, event: &Event| told.lock().unwrap().push(event.to_string()))
}

fn one() -> BreakerOptions {
    BreakerOptions::default().consecutive(1)
}

fn layer(options: BreakerOptions) -> BreakerLayer<u32> {
    BreakerLayer::new(options).unwrap().label("reports")
}

async fn call(layer: &BreakerLayer<u32>, what: Act) -> Result<u32, BoxError> {
    layer.layer(service_fn(act)).oneshot(what).await
}

fn refusal(result: &Result<u32, BoxError>) -> Option<&Error> {
    result.as_ref().err().and_then(|error| Error::find(&**error))
}

/// Half-open, with its one probe free.
async fn half_open() -> BreakerLayer<u32> {
    let layer = layer(one());
    let _ = call(&layer, Act::Fail).await;
    tokio::time::sleep(SECOND * 5 + MS).await;
    assert_eq!(layer.handle().state(), State::HalfOpen);
    layer
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_who_why_since_when_for_how_long_and_that_nothing_was_sent() {
    let layer = layer(one());
    let _ = call(&layer, Act::Fail).await;
    tokio::time::advance(SECOND * 2).await;
    let result = call(&layer, Act::Answer).await;
    let error = refusal(&result).unwrap();
    assert_eq!((error.reason(), error.client()), (Reason::Breaker, Some("reports")));
    assert_eq!((error.sent(), error.lasted()), (Sent::No, Some(SECOND * 2)));
    assert_eq!(error.retry_after(), Some(SECOND * 3));
    let cause = std::error::Error::source(error).unwrap();
    assert_eq!(cause.downcast_ref::<Trip>(), Some(&Trip::Consecutive { failures: 1 }));
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_breaker() {
    let layer = layer(one());
    let _ = call(&layer, Act::Fail).await;
    assert!(refusal(&call(&layer.clone(), Act::Answer).await).is_some());
}

#[tokio::test(start_paused = true)]
async fn it_half_opens_at_its_time_without_a_call_and_tells_it() {
    let (heard, observer) = hear();
    let layer = layer(one()).observe(observer);
    let _ = call(&layer, Act::Fail).await;
    tokio::time::sleep(SECOND * 60).await;
    let _ = call(&layer, Act::Answer).await;
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "breaker reports: open for 5s: 1 calls in a row failed",
            "breaker reports: half-open",
            "breaker reports: closed"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hanging_probe_is_given_up_without_a_call() {
    let layer = layer(one().half_open(SECOND, Lapse::Opens));
    let _ = call(&layer, Act::Fail).await;
    tokio::time::sleep(SECOND * 6).await;
    let hung = tokio::spawn(layer.layer(service_fn(act)).oneshot(Act::Hang));
    tokio::time::sleep(MS * 990).await;
    assert_eq!(layer.handle().state(), State::HalfOpen);
    tokio::time::sleep(MS * 20).await;
    assert_eq!(layer.handle().state(), State::Open);
    hung.abort();
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_task_that_keeps_time() {
    let layer = layer(one());
    let _ = call(&layer, Act::Fail).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(before, 1);
    drop(layer);
    tokio::task::yield_now().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_at_any_time_gives_its_probe_back() {
    let layer = half_open().await;
    let mut service = layer.layer(service_fn(act));
    let cx = &mut Context::from_waker(Waker::noop());
    for polls in 0..3 {
        let mut future = Box::pin(service.ready().await.unwrap().call(Act::Hang));
        for _ in 0..polls {
            assert!(future.as_mut().poll(cx).is_pending());
        }
        assert_eq!(layer.handle().status().probing, u32::from(polls > 0));
        drop(future);
        assert_eq!(layer.handle().status().probing, 0);
    }
    assert_eq!(layer.handle().state(), State::HalfOpen);
    assert!(call(&layer, Act::Answer).await.is_ok());
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_ready_service_that_is_never_called_holds_no_probe() {
    let layer = half_open().await;
    let mut ready = layer.layer(service_fn(act));
    ready.ready().await.unwrap();
    let clone = ready.clone();
    drop(ready);
    drop(clone);
    assert!(call(&layer, Act::Answer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_panicking_probe_gives_its_place_back() {
    let layer = half_open().await;
    let mut future = Box::pin(layer.layer(service_fn(act)).oneshot(Act::Panic));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(polled.is_err());
    drop(future);
    assert_eq!((layer.handle().state(), layer.handle().status().probing), (State::HalfOpen, 0));

    let panics_in_call =
        service_fn(|_: Act| -> std::future::Ready<Result<u32, BoxError>> { panic!("in call") });
    let mut future = Box::pin(layer.layer(panics_in_call).oneshot(Act::Answer));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(polled.is_err());
    drop(future);
    assert_eq!(layer.handle().status().probing, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_classifier_panics_gives_its_place_back() {
    let layer = half_open().await.classify(|_: Result<&u32, &BoxError>| panic!("classifier"));
    let mut future = Box::pin(layer.layer(service_fn(act)).oneshot(Act::Answer));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(polled.is_err());
    drop(future);
    assert_eq!((layer.handle().state(), layer.handle().status().probing), (State::HalfOpen, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_something_further_in_refuses_gives_its_place_back() {
    for reason in [Reason::Breaker, Reason::Limit, Reason::NoEndpoint, Reason::QueueFull, Reason::Deadline] {
        let layer = half_open().await;
        assert!(call(&layer, Act::Refuse(reason)).await.is_err());
        assert_eq!(layer.handle().status().probing, 0, "{reason:?}");
        assert!(call(&layer, Act::Answer).await.is_ok());
        assert_eq!(layer.handle().state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_limit_further_in_refuses_says_nothing_whatever_the_classifier_says() {
    let layer = half_open().await.classify(|answer: Result<&u32, &BoxError>| match answer {
        Ok(_) => Verdict::success(),
        Err(_) => Verdict::failure(),
    });
    let limit = crate::limit::ConcurrencyLimitOptions::default().limit(1).max_waiting(0);
    let limited = crate::limit::ConcurrencyLimitLayer::new(limit).unwrap().layer(service_fn(act));
    let busy = tokio::spawn(limited.clone().oneshot(Act::Hang));
    tokio::task::yield_now().await;
    let result = layer.layer(limited.clone()).oneshot(Act::Answer).await;
    assert_eq!(refusal(&result).map(Error::reason), Some(Reason::Limit));
    assert_eq!((layer.handle().state(), layer.handle().status().probing), (State::HalfOpen, 0));
    busy.abort();
    assert!(busy.await.is_err());
    // What was asked and failed is still the classifier's.
    assert!(layer.layer(limited).oneshot(Act::Fail).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn two_breakers_in_a_row_do_not_block_each_other() {
    let (outer, inner) = (layer(one()), layer(one()));
    let stack = || ServiceBuilder::new().layer(outer.clone()).layer(inner.clone()).service(service_fn(act));
    let _ = stack().oneshot(Act::Fail).await;
    assert_eq!((outer.handle().state(), inner.handle().state()), (State::Open, State::Open));
    inner.handle().open_for(SECOND * 20);
    tokio::time::sleep(SECOND * 6).await;
    let refused = stack().oneshot(Act::Answer).await;
    assert!(refused.is_err() && outer.handle().state() == State::HalfOpen);
    tokio::time::sleep(SECOND * 20).await;
    assert!(stack().oneshot(Act::Answer).await.is_ok());
    assert_eq!((outer.handle().state(), inner.handle().state()), (State::Closed, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_the_attempt_open_it_and_those_of_the_callers_own_deadline_do_not() {
    let layer = layer(one());
    let limited = |limit| {
        ServiceBuilder::new()
            .layer(crate::deadline::DeadlineLayer::new(SECOND))
            .layer(layer.clone())
            .layer(crate::deadline::AttemptLimitLayer::new(limit))
            .service(service_fn(act))
    };
    assert!(limited(SECOND * 2).oneshot(Act::Hang).await.is_err());
    assert_eq!(layer.handle().state(), State::Closed);
    assert!(limited(MS * 100).oneshot(Act::Hang).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_retry_layer_does_not_repeat_what_it_refuses() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let layer = BreakerLayer::new(one()).unwrap();
    let service = ServiceBuilder::new()
        .layer(
            crate::retry::RetryLayer::new(crate::retry::RetryPolicy::default().max_attempts(5))
                .unwrap()
                .describe(crate::describe::Idempotent),
        )
        .layer(layer.clone())
        .service(service_fn(move |(): ()| {
            counted.fetch_add(1, SeqCst);
            async { Err::<u32, BoxError>("failed".into()) }
        }));
    let result = service.oneshot(()).await;
    assert!(result.is_err());
    assert_eq!(calls.load(SeqCst), 1);
    assert!(layer.handle().status().refused <= 1);
}

#[tokio::test(start_paused = true)]
async fn forced_before_there_is_a_service_it_starts_forced() {
    let layer = layer(one());
    layer.handle().force_open();
    assert_eq!(refusal(&call(&layer, Act::Answer).await).and_then(Error::retry_after), None);
    layer.handle().reset();
    assert!(call(&layer, Act::Answer).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_neither_the_call_nor_the_others() {
    let (heard, observer) = hear();
    let layer = layer(one()).observe(|_: &str, _: &Event| panic!("observer")).observe(observer);
    assert!(call(&layer, Act::Fail).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
    layer.handle().reset();
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_moves_the_breaker_is_told_of_it_afterwards() {
    let layer = layer(one());
    let (handle, (heard, observer)) = (layer.handle(), hear());
    layer.handle().observe(move |client: &str, event: &Event| {
        if event.kind() == "breaker_opened" {
            handle.reset();
        }
        observer(client, event);
    });
    let _ = call(&layer, Act::Fail).await;
    let heard = heard.lock().unwrap();
    assert!(heard[0].contains("open for") && heard[1].contains("closed by hand"), "{heard:?}");
}

#[test]
fn changes_of_many_threads_are_told_in_their_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let layer = layer(one()).observe(move |_: &str, event: &Event| {
        told.lock().unwrap().push(event.kind());
        std::thread::yield_now();
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let handle = layer.handle();
            scope.spawn(move || {
                for _ in 0..200 {
                    handle.open_for(SECOND);
                    handle.reset();
                    handle.force_open();
                }
            });
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 2_400);
}

#[tokio::test(start_paused = true)]
async fn a_trip_is_told_at_error_level() {
    #[derive(Default)]
    struct Levels(Mutex<Vec<tracing::Level>>);
    struct Listen(Arc<Levels>);
    impl tracing::Subscriber for Listen {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            self.0.0.lock().unwrap().push(*event.metadata().level());
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let levels = Arc::new(Levels::default());
    let _listening = tracing::subscriber::set_default(Listen(levels.clone()));
    let layer = layer(one());
    let _ = call(&layer, Act::Fail).await;
    layer.handle().reset();
    assert_eq!(*levels.0.lock().unwrap(), [tracing::Level::ERROR, tracing::Level::INFO]);
}

/// A response whose end is decided by the test.
#[derive(Debug, Default)]
struct Body(Option<Guard>);

struct InBody;

impl crate::Track<Body> for InBody {
    fn track(&self, response: &mut Body, guard: Guard) {
        response.0 = Some(guard);
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_tracked_body_a_call_counts_when_the_body_ends() {
    let layer: BreakerLayer<Body> = BreakerLayer::new(one().probes(1, 1)).unwrap().track(InBody);
    let get = || layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(Body::default()) })).oneshot(());
    let body = get().await.unwrap();
    assert_eq!(layer.handle().status().calls, 0);
    body.0.unwrap().end(Verdict::failure());
    assert_eq!(layer.handle().state(), State::Open);
    tokio::time::sleep(SECOND * 6).await;
    let probe = get().await.unwrap();
    assert!(get().await.is_err());
    drop(probe); // the head was good, and nobody wants the rest
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_breaker_and_their_number_is_bounded() {
    let keys = KeyOptions::default().max_keys(2).idle(SECOND * 60);
    let layer = KeyedBreakerLayer::new(one(), keys, |request: &(u32, bool)| request.0).unwrap().build();
    let call = |key: u32, good: bool| {
        layer
            .layer(service_fn(|(_, good): (u32, bool)| async move {
                if good { Ok(1) } else { Err(BoxError::from("failed")) }
            }))
            .oneshot((key, good))
    };
    let _ = call(1, false).await;
    assert!(call(2, true).await.is_ok());
    assert_eq!(layer.get(&1).unwrap().state(), State::Open);
    let refused = call(1, true).await;
    let refused = refusal(&refused).unwrap();
    assert_eq!((refused.client(), refused.key()), (Some("breaker"), Some("1")));
    // A third takes the place of the one that is clean; a fourth that of the third; the open one stays.
    assert!(call(3, true).await.is_ok());
    let _ = call(4, false).await;
    let mut keys: Vec<_> = layer.all().into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    assert_eq!(keys, [1, 4]);
    // With only open ones there, a new key passes unguarded.
    let _ = call(5, false).await;
    assert!(call(5, true).await.is_ok() && layer.get(&5).is_none());
    tokio::time::advance(SECOND * 61).await;
    let _ = call(5, false).await;
    assert!(call(5, true).await.is_err() && layer.get(&1).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_forced_open_stays_so_however_long_nobody_calls_it() {
    let keys = KeyOptions::default().max_keys(2).idle(SECOND * 60);
    let layer = KeyedBreakerLayer::new(one(), keys, |request: &u32| *request).unwrap().build();
    let call = |key: u32| layer.layer(service_fn(|_: u32| async { Ok::<_, BoxError>(1) })).oneshot(key);
    assert!(call(1).await.is_ok() && call(2).await.is_ok());
    layer.get(&1).unwrap().force_open();
    tokio::time::advance(SECOND * 61).await;
    assert!(call(3).await.is_ok() && call(4).await.is_ok());
    assert!(layer.get(&2).is_none());
    assert!(refusal(&call(1).await).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_options_of_all_keys_are_replaced_of_those_to_come_too() {
    let keys = KeyOptions::default();
    let layer = KeyedBreakerLayer::new(one(), keys, |request: &u32| *request).unwrap().build();
    let call = |key: u32| {
        layer.layer(service_fn(|_: u32| async { Err::<u32, _>(BoxError::from("failed")) })).oneshot(key)
    };
    let _ = (call(1).await, call(2).await);
    assert!(layer.update(one().consecutive(0)).is_err());
    layer.update(one().consecutive(3)).unwrap();
    assert_eq!(layer.options(), one().consecutive(3));
    layer.get(&1).unwrap().reset();
    for key in [1, 3] {
        for _ in 0..3 {
            assert_eq!(layer.get(&key).map(|breaker| breaker.state()).unwrap_or_default(), State::Closed);
            let _ = call(key).await;
        }
        assert_eq!(layer.get(&key).unwrap().state(), State::Open);
    }
    assert_eq!(layer.get(&2).unwrap().state(), State::Open, "what is open stays so");
}

#[tokio::test(start_paused = true)]
async fn the_verdict_of_a_layer_further_in_stands() {
    let layer = layer(one()).classify(|_: Result<&u32, &BoxError>| panic!("judged twice"));
    let judges = service_fn(|(): ()| async {
        crate::context::change_call(|call| call.verdict = Some(Verdict::failure()));
        Ok::<_, BoxError>(1)
    });
    let mut call = crate::context::Call::default();
    let mut future = Box::pin(layer.layer(judges).oneshot(()));
    let done = std::future::poll_fn(|cx| {
        let _call = crate::context::EnterCall::new(&mut call);
        future.as_mut().poll(cx)
    });
    assert_eq!(done.await.ok(), Some(1));
    assert_eq!(layer.handle().state(), State::Open);
}

#[test]
fn without_a_runtime_calls_move_it() {
    let layer = layer(one().open(MS));
    let mut service = layer.layer(service_fn(act));
    let cx = &mut Context::from_waker(Waker::noop());
    let mut poll = |what| Box::pin(service.call(what)).as_mut().poll(cx);
    assert!(matches!(poll(Act::Fail), Poll::Ready(Err(_))));
    while layer.handle().status().remaining != Some(Duration::ZERO) {
        std::thread::yield_now();
    }
    assert!(matches!(poll(Act::Answer), Poll::Ready(Ok(1))));
    assert_eq!(layer.handle().state(), State::Closed);
}
