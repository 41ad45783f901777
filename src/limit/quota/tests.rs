//! The layer over a quota in memory, and over one that is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::FutureExt as _;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::{
    Error, Reason, clock,
    context::{self, Inherited},
    limit::rate::RateLimitOptions,
};

const MS: Duration = Duration::from_millis(1);

fn ten() -> RateLimitOptions {
    RateLimitOptions::default().rate(10, MS * 1_000).burst(2)
}

async fn answer(weight: u32) -> Result<u32, BoxError> {
    Ok(weight)
}

fn refused<T>(result: &Result<T, BoxError>) -> Option<&Error> {
    result.as_ref().err().and_then(|error| Error::find(&**error))
}

/// Does not answer at all, or with an error.
struct Lost {
    hangs: bool,
    asked: Arc<AtomicU32>,
}

impl Quota for Lost {
    fn take(&self, _: u32, _: Duration) -> Taking<'_> {
        self.asked.fetch_add(1, SeqCst);
        let hangs = self.hangs;
        Box::pin(async move {
            if hangs { std::future::pending().await } else { Err("connection refused".into()) }
        })
    }
}

fn lost(hangs: bool) -> (Lost, Arc<AtomicU32>) {
    let asked = Arc::<AtomicU32>::default();
    (Lost { hangs, asked: asked.clone() }, asked)
}

#[tokio::test(start_paused = true)]
async fn what_it_does_not_grant_is_refused_with_the_time_or_waits_for_it() {
    let quota = Local::new(ten()).unwrap();
    let layer = QuotaLayer::new(quota, QuotaOptions::default()).unwrap().label("reports");
    let layer = layer.weigh(|weight: &u32| *weight);
    let service = layer.layer(service_fn(answer));
    assert!(service.clone().oneshot(2).await.is_ok());
    let result = service.clone().oneshot(1).await;
    let error = refused(&result).unwrap();
    assert_eq!((error.reason(), error.client()), (Reason::RateLimit, Some("reports")));
    assert_eq!(error.retry_after(), Some(MS * 100));
    assert_eq!(refused(&service.oneshot(3).await).unwrap().retry_after(), None);

    let patient = QuotaOptions::default().max_wait(MS * 300);
    let layer = QuotaLayer::new(Local::new(ten()).unwrap(), patient).unwrap();
    let service = layer.layer(service_fn(answer));
    let start = clock::now();
    for expected in [0, 0, 100, 200] {
        service.clone().oneshot(1).await.unwrap();
        assert_eq!((clock::now() - start).as_millis(), expected);
    }
    let soon = Inherited::default().with_deadline(clock::now() + MS * 50);
    assert!(context::scope(soon, service.oneshot(1)).await.is_err());
    assert_eq!((clock::now() - start).as_millis(), 200);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_away_requests_pass_and_it_is_asked_once_in_a_pause() {
    for (hangs, costs) in [(true, 50), (false, 0)] {
        let (quota, asked) = lost(hangs);
        let layer = QuotaLayer::new(quota, QuotaOptions::default()).unwrap();
        let service = layer.layer(service_fn(answer));
        let start = clock::now();
        for _ in 0..100 {
            assert!(service.clone().oneshot(1).await.is_ok());
        }
        assert_eq!(((clock::now() - start).as_millis(), asked.load(SeqCst)), (costs, 1));
        assert!(layer.is_away());
        tokio::time::advance(MS * 1_000).await;
        assert!(service.oneshot(1).await.is_ok());
        assert_eq!(asked.load(SeqCst), 2);
        assert!(layer.is_away());
    }
}

/// Answers while `here`.
struct Flaky {
    here: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Quota for Flaky {
    fn take(&self, _: u32, _: Duration) -> Taking<'_> {
        self.asked.fetch_add(1, SeqCst);
        let here = self.here.load(SeqCst);
        Box::pin(async move {
            if here { Ok(Granted::After(Duration::ZERO)) } else { std::future::pending().await }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_one_request_asks_whether_it_is_back_and_the_others_do_not_wait_for_that() {
    let (here, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
    let quota = Flaky { here: here.clone(), asked: asked.clone() };
    let layer = QuotaLayer::new(quota, QuotaOptions::default()).unwrap();
    let service = layer.layer(service_fn(answer));
    service.clone().oneshot(1).await.unwrap();
    tokio::time::advance(MS * 1_000).await;
    let start = clock::now();
    let asking = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    for _ in 0..50 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(((clock::now() - start).as_millis(), asked.load(SeqCst)), (0, 2));
    // Whoever asks may be dropped: the next one asks after its timeout.
    asking.abort();
    here.store(true, SeqCst);
    tokio::time::advance(MS * 50).await;
    for _ in 0..9 {
        service.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(asked.load(SeqCst), 2 + 9);
    assert!(!layer.is_away());
}

#[tokio::test(start_paused = true)]
async fn callers_with_little_patience_do_not_hide_that_it_is_away() {
    let (quota, asked) = lost(true);
    let layer = QuotaLayer::new(quota, QuotaOptions::default()).unwrap();
    let service = layer.layer(service_fn(answer));
    let tries = |_| tokio::time::timeout(MS * 20, service.clone().oneshot(1));
    for number in 0..9 {
        assert_eq!(tries(()).await.is_ok(), number >= 5);
    }
    assert_eq!(asked.load(SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn callers_who_change_their_mind_do_not_make_it_look_away() {
    let (quota, asked) = lost(true);
    let layer = QuotaLayer::new(quota, QuotaOptions::default()).unwrap();
    let service = layer.layer(service_fn(answer));
    for _ in 0..50 {
        assert!(service.clone().oneshot(1).now_or_never().is_none());
    }
    assert!(!layer.is_away() && asked.load(SeqCst) == 50);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_was_refused_and_is_kept_keeps_no_question() {
    struct Counted(Arc<()>);
    impl Quota for Counted {
        fn take(&self, _: u32, _: Duration) -> Taking<'_> {
            let held = self.0.clone();
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(held);
                unreachable!()
            })
        }
    }
    let held = Arc::new(());
    let options = QuotaOptions::default().away(Away::Refuse);
    let service = QuotaLayer::new(Counted(held.clone()), options).unwrap().layer(service_fn(answer));
    let mut call = Box::pin(service.oneshot(1));
    let result = call.as_mut().await;
    let error = refused(&result).unwrap();
    assert_eq!(std::error::Error::source(error).unwrap().to_string(), "the quota does not answer");
    assert_eq!(Arc::strong_count(&held), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_all_time_is_no_panic() {
    struct Never;
    impl Quota for Never {
        fn take(&self, _: u32, _: Duration) -> Taking<'_> {
            Box::pin(async { Ok(Granted::After(Duration::MAX)) })
        }
    }
    let service = QuotaLayer::new(Never, QuotaOptions::default()).unwrap().layer(service_fn(answer));
    assert!(tokio::time::timeout(MS * 1_000, service.oneshot(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn its_options_are_replaced_while_requests_run_and_what_was_taken_stays_taken() {
    let options = QuotaOptions::default().away(Away::Local(ten()));
    let layer = QuotaLayer::new(lost(false).0, options.clone()).unwrap();
    let service = layer.layer(service_fn(answer));
    for _ in 0..2 {
        service.clone().oneshot(1).await.unwrap();
    }
    let wrong = layer.update(options.clone().timeout(Duration::ZERO)).unwrap_err();
    assert_eq!(&*wrong.problems()[0].field, "timeout");
    let other = options.away(Away::Local(ten().burst(3)));
    layer.clone().update(other.clone()).unwrap();
    assert_eq!(layer.options(), other);
    // One more at once than before, and two were taken.
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.clone().oneshot(1).await.is_err());
    layer.update(QuotaOptions::default()).unwrap();
    assert!(service.oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn while_it_is_away_requests_are_refused_or_keep_to_a_rate_of_their_own_where_that_is_wanted() {
    let layer = QuotaLayer::new(lost(false).0, QuotaOptions::default().away(Away::Refuse)).unwrap();
    let service = layer.layer(service_fn(answer));
    let result = service.clone().oneshot(1).await;
    let error = refused(&result).unwrap();
    assert_eq!((error.reason(), error.retry_after()), (Reason::RateLimit, Some(MS * 1_000)));
    assert_eq!(std::error::Error::source(error).unwrap().to_string(), "connection refused");

    let layer = QuotaLayer::new(lost(false).0, QuotaOptions::default().away(Away::Local(ten()))).unwrap();
    let service = layer.layer(service_fn(answer));
    let mut passed = 0;
    for _ in 0..9 {
        passed += u32::from(service.clone().oneshot(1).await.is_ok());
    }
    assert_eq!(passed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_name_given_to_a_clone_is_told_and_the_quota_is_the_same() {
    let layer = QuotaLayer::new(lost(false).0, QuotaOptions::default().away(Away::Local(ten()))).unwrap();
    let named = layer.clone().weigh(|_: &u32| 1).label("reports");
    let (plain, named_service) = (layer.layer(service_fn(answer)), named.layer(service_fn(answer)));
    for _ in 0..2 {
        plain.clone().oneshot(1).await.unwrap();
    }
    assert!(named.is_away());
    let result = named_service.oneshot(1).await;
    assert_eq!(refused(&result).unwrap().client(), Some("reports"));
    assert_eq!(refused(&plain.oneshot(1).await).unwrap().client(), None);
}

#[test]
fn its_options_are_checked() {
    let wrong = QuotaOptions::default().timeout(Duration::ZERO).away(Away::Local(ten().burst(0)));
    let invalid = QuotaLayer::new(Local::new(ten()).unwrap(), wrong).unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["timeout", "away.burst"]);
}
