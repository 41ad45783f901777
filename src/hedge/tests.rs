//! The layer over plain services.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn};

use super::{Delay, HedgeLayer, HedgeOptions};
use crate::{
    budget::{Budget, BudgetOptions},
    clock,
    describe::{Idempotent, NotIdempotent},
    retry::{RetryLayer, RetryPolicy},
};

const MS: Duration = Duration::from_millis(1);

/// What came of the calls of a server.
#[derive(Clone, Default)]
struct Calls(Arc<[AtomicU32; 3]>);

impl Calls {
    fn begun(&self) -> u32 {
        self.0[0].load(SeqCst)
    }

    fn answered(&self) -> u32 {
        self.0[1].load(SeqCst)
    }

    fn dropped(&self) -> u32 {
        self.0[2].load(SeqCst)
    }
}

struct Running(Calls, bool);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0[if self.1 { 1 } else { 2 }].fetch_add(1, SeqCst);
    }
}

type Answer = BoxFuture<'static, Result<u32, BoxError>>;

/// Its calls take as long as `takes` says by their number from 0, and fail where it says so.
fn server(
    calls: &Calls,
    takes: impl Fn(u32) -> (Duration, bool) + Clone + Send + 'static,
) -> impl Service<u32, Response = u32, Error = BoxError, Future = Answer> + Clone + Send + 'static {
    let calls = calls.clone();
    service_fn(move |_: u32| -> Answer {
        let running = Running(calls.clone(), false);
        let number = calls.0[0].fetch_add(1, SeqCst);
        let (time, good) = takes(number);
        async move {
            let mut running = running;
            tokio::time::sleep(time).await;
            running.1 = true;
            if good { Ok(number) } else { Err("failed".into()) }
        }
        .boxed()
    })
}

fn hedges(options: HedgeOptions) -> HedgeLayer<u32, u32> {
    HedgeLayer::new(options).unwrap().budget(ample()).describe(Idempotent)
}

fn ample() -> Budget {
    Budget::new(BudgetOptions::default().reserve(100_000)).unwrap()
}

/// After so long, without a bound of its own.
fn after(delay: Duration) -> HedgeOptions {
    HedgeOptions::default().delay(Delay::Fixed(delay)).share(None)
}

#[tokio::test(start_paused = true)]
async fn the_first_success_wins_and_the_loser_is_dropped() {
    let calls = Calls::default();
    let service = server(&calls, |number| (if number == 0 { MS * 900 } else { MS * 20 }, true));
    let start = clock::now();
    assert_eq!(hedges(after(MS * 50)).layer(service).oneshot(7).await.unwrap(), 1);
    assert_eq!(clock::now() - start, MS * 70);
    assert_eq!((calls.begun(), calls.answered(), calls.dropped()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_answers_in_time_is_sent_once() {
    let calls = Calls::default();
    let service = hedges(after(MS * 50)).layer(server(&calls, |_| (MS * 20, true)));
    for _ in 0..100 {
        service.clone().oneshot(7).await.unwrap();
    }
    assert_eq!((calls.begun(), calls.dropped()), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_processed_twice_is_sent_once_however_long_it_takes() {
    let calls = Calls::default();
    let layer = hedges(after(MS * 5)).describe(NotIdempotent);
    let service = layer.layer(server(&calls, |_| (MS * 900, true)));
    assert!(service.oneshot(7).await.is_ok());
    assert_eq!(calls.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_waits_for_the_other() {
    let calls = Calls::default();
    // The second fails while the first goes on, and every further one fails, too.
    let service = server(&calls, |number| (if number == 0 { MS * 300 } else { MS * 10 }, number == 0));
    let layer = hedges(after(MS * 50).max_attempts(2));
    assert_eq!(layer.layer(service).oneshot(7).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_caller_is_told() {
    let calls = Calls::default();
    let service = server(&calls, |_| (MS * 100, false));
    let layer = hedges(after(MS * 50).max_attempts(2));
    assert_eq!(layer.layer(service).oneshot(7).await.unwrap_err().to_string(), "failed");
    assert_eq!((calls.begun(), calls.answered()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_leaves_nothing_running() {
    for waits in [0, 20, 60] {
        let calls = Calls::default();
        let layer = hedges(after(MS * 50));
        let call = layer.layer(server(&calls, |_| (MS * 900, true))).oneshot(7);
        assert!(tokio::time::timeout(MS * waits, call).await.is_err());
        assert_eq!((calls.answered(), calls.dropped()), (0, calls.begun()), "dropped after {waits} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_are_no_more_than_their_share_of_ten_thousand_requests() {
    let calls = Calls::default();
    let options = HedgeOptions::default().delay(Delay::Fixed(MS));
    let service = hedges(options).layer(server(&calls, |_| (MS * 10, true)));
    // Every one of them would be hedged.
    for _ in 0..10_000 {
        service.clone().oneshot(7).await.unwrap();
    }
    let hedges = calls.begun() - 10_000;
    assert!((1..=200).contains(&hedges), "{hedges}");
}

#[tokio::test(start_paused = true)]
async fn under_a_retry_layer_both_draw_on_the_budget_that_they_share() {
    let calls = Calls::default();
    let budget = Budget::new(BudgetOptions::default().reserve(3)).unwrap();
    let retries = RetryLayer::new(RetryPolicy::default()).unwrap();
    let layer = hedges(after(MS * 50).max_attempts(2)).budget(budget.clone());
    let service = retries
        .budget(budget.clone())
        .describe(Idempotent)
        .layer(layer.layer(server(&calls, |_| (MS * 100, false))));
    for _ in 0..5 {
        assert!(service.clone().oneshot(7).await.is_err());
    }
    assert_eq!(calls.begun(), 5 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_what_is_under_way_gets_back_what_hedges_under_retries_took() {
    let calls = Calls::default();
    let budget = Budget::envoy(crate::Ratio::percent::<20>(), 3);
    let layer = hedges(after(MS * 50).max_attempts(2)).budget(budget.clone());
    let service = RetryLayer::new(RetryPolicy::default())
        .unwrap()
        .budget(budget.clone())
        .describe(Idempotent)
        .layer(layer.layer(server(&calls, |_| (MS * 100, true))));
    for request in 1..=10 {
        service.clone().oneshot(7).await.unwrap();
        assert_eq!(calls.begun(), 2 * request, "each is hedged");
        assert_eq!(budget.available(crate::clock::now()), 3, "after request {request}");
    }
}
