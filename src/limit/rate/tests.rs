//! The layer on a paused clock.

use std::time::Duration;

use futures::future::join_all;
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _, service_fn};

use super::*;
use crate::{
    Error, KeyOptions, Reason, clock,
    context::{self, Inherited},
    describe::Criticality,
    outcome::Sent,
};

const MS: Duration = Duration::from_millis(1);

/// Ten a second, two at once.
fn ten() -> RateLimitOptions {
    RateLimitOptions::default().rate(10, MS * 1_000).burst(2)
}

async fn answer(weight: u32) -> Result<u32, BoxError> {
    Ok(weight)
}

fn reason<T>(result: &Result<T, BoxError>) -> Option<Reason> {
    result.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
}

#[tokio::test(start_paused = true)]
async fn all_clones_and_services_share_one_rate() {
    let layer = RateLimitLayer::new(ten()).unwrap();
    let services = [(); 5].map(|()| layer.clone().layer(service_fn(answer)));
    let mut admitted = 0;
    for _ in 0..200 {
        for service in &services {
            admitted += u32::from(service.clone().oneshot(1).await.is_ok());
        }
        tokio::time::advance(MS * 10).await;
    }
    // Two seconds, less the last 10 ms.
    assert_eq!(admitted, 2 + 19);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back_and_that_nothing_was_sent() {
    let layer = RateLimitLayer::new(ten()).unwrap().label("reports");
    let service = layer.layer(service_fn(answer));
    for _ in 0..2 {
        service.clone().oneshot(1).await.unwrap();
    }
    tokio::time::advance(MS * 30).await;
    let error = service.clone().oneshot(1).await.unwrap_err();
    let error = Error::find(&*error).unwrap();
    assert_eq!((error.reason(), error.client()), (Reason::RateLimit, Some("reports")));
    assert_eq!((error.sent(), error.retry_after()), (Sent::No, Some(MS * 70)));
    tokio::time::advance(MS * 70).await;
    assert!(service.oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_may_wait_is_served_at_the_rate_in_order() {
    let layer = RateLimitLayer::new(ten().max_wait(MS * 500)).unwrap();
    let service = layer.layer(service_fn(answer));
    let start = clock::now();
    let calls = (0..9).map(|_| {
        let call = service.clone().oneshot(1);
        async move { (call.await.is_ok(), (clock::now() - start).as_millis()) }
    });
    let times = join_all(calls).await;
    let served: Vec<_> = times.iter().filter(|(ok, _)| *ok).map(|(_, at)| *at).collect();
    assert_eq!(served, [0, 0, 100, 200, 300, 400, 500]);
    assert!(times[7..].iter().all(|(ok, at)| !ok && *at == 0), "the others are refused at once");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_turn_beyond_its_deadline() {
    let layer = RateLimitLayer::new(ten().max_wait(MS * 5_000)).unwrap();
    let service = layer.layer(service_fn(answer));
    join_all((0..2).map(|_| service.clone().oneshot(1))).await;
    let start = clock::now();
    let soon = Inherited::default().with_deadline(start + MS * 50);
    let refused = context::scope(soon, service.clone().oneshot(1)).await;
    assert_eq!((reason(&refused), clock::now()), (Some(Reason::RateLimit), start));
    assert!(service.oneshot(1).await.is_ok());
    assert_eq!(clock::now() - start, MS * 100, "it took nobody's turn along");
}

#[tokio::test(start_paused = true)]
async fn the_last_in_line_that_gives_up_gives_its_turn_back() {
    let layer = RateLimitLayer::new(ten().max_wait(MS * 5_000)).unwrap();
    let service = layer.layer(service_fn(answer));
    join_all((0..2).map(|_| service.clone().oneshot(1))).await;
    let start = clock::now();
    assert!(tokio::time::timeout(MS, service.clone().oneshot(1)).await.is_err());
    service.oneshot(1).await.unwrap();
    assert_eq!(clock::now() - start, MS * 100);
}

#[tokio::test(start_paused = true)]
async fn what_is_heavier_than_the_burst_never_passes_and_what_weighs_nothing_always() {
    let layer = RateLimitLayer::new(ten().max_wait(MS * 5_000)).unwrap().weigh(|weight: &u32| *weight);
    let service = layer.layer(service_fn(answer));
    let error = service.clone().oneshot(3).await.unwrap_err();
    assert_eq!(Error::find(&*error).unwrap().retry_after(), None);
    for _ in 0..50 {
        service.clone().oneshot(0).await.unwrap();
    }
    let start = clock::now();
    for _ in 0..3 {
        service.clone().oneshot(2).await.unwrap();
    }
    assert_eq!(clock::now() - start, MS * 400);
}

#[tokio::test(start_paused = true)]
async fn a_ready_service_that_is_never_called_takes_nothing() {
    let layer = RateLimitLayer::new(ten().burst(1)).unwrap();
    let mut ready = layer.layer(service_fn(answer));
    ready.ready().await.unwrap();
    drop(ready.call(1));
    drop(ready);
    assert_eq!(layer.limit().available(clock::now()), 1);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_rate_and_their_number_is_bounded() {
    let keys = KeyOptions::default().max_keys(2).idle(MS * 60_000);
    let layer = RateLimitLayer::keyed(ten().burst(1), keys, |key: &u32| *key).unwrap();
    let service = layer.layer(service_fn(answer));
    for key in [1, 2] {
        assert!(service.clone().oneshot(key).await.is_ok());
        assert!(service.clone().oneshot(key).await.is_err());
    }
    // A third and a fourth share what is left for all others while the two are in use.
    assert!(service.clone().oneshot(3).await.is_ok());
    assert!(service.clone().oneshot(4).await.is_err());
    tokio::time::advance(MS * 100).await;
    assert!(service.clone().oneshot(5).await.is_ok() && service.clone().oneshot(2).await.is_ok());
    assert_eq!(layer.limits().keys(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_all_keys_is_replaced_of_those_to_come_too() {
    let layer = RateLimitLayer::keyed(ten().burst(1), KeyOptions::default(), |key: &u32| *key).unwrap();
    let service = layer.layer(service_fn(answer));
    let admitted = async |key| {
        let mut admitted = 0;
        for _ in 0..9 {
            admitted += u32::from(service.clone().oneshot(key).await.is_ok());
        }
        admitted
    };
    assert_eq!(admitted(1).await, 1);
    assert!(layer.update(&ten().burst(0)).is_err());
    layer.update(&ten().burst(3)).unwrap();
    assert_eq!((admitted(1).await, admitted(2).await), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_limit_whose_requests_have_weights_can_be_changed_too() {
    let layer = RateLimitLayer::new(ten().burst(2)).unwrap().weigh(|weight: &u32| *weight);
    let service = layer.layer(service_fn(answer));
    assert!(service.clone().oneshot(2).await.is_ok() && service.clone().oneshot(2).await.is_err());
    layer.update(&ten().burst(4)).unwrap();
    assert!(service.clone().oneshot(2).await.is_ok() && service.oneshot(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_idle_gets_no_second_burst() {
    let hour = MS * 3_600_000;
    let options = RateLimitOptions::default().rate(1, hour).burst(10);
    let keys = KeyOptions::default().idle(hour / 6);
    let layer = RateLimitLayer::keyed(options, keys, |key: &u32| *key).unwrap();
    let service = layer.layer(service_fn(answer));
    let mut admitted = 0;
    for turn in 0..6 {
        for _ in 0..20 {
            admitted += u32::from(service.clone().oneshot(0).await.is_ok());
        }
        tokio::time::advance(hour / 6 - MS).await;
        // A new key has the idle ones go.
        service.clone().oneshot(1 + turn).await.unwrap();
        tokio::time::advance(MS).await;
        service.clone().oneshot(100 + turn).await.unwrap();
    }
    assert_eq!(admitted, 10);
    tokio::time::advance(hour * 10).await;
    service.oneshot(1_000).await.unwrap();
    assert_eq!(layer.limits().keys(), 1, "and with its burst whole it goes");
}

#[tokio::test(start_paused = true)]
async fn who_matters_less_is_refused_first_where_that_is_wanted() {
    let layer = RateLimitLayer::new(ten().burst(8).by_criticality(true)).unwrap();
    let service = layer.layer(service_fn(answer));
    let of = |class| {
        let scope = Inherited::default().with_criticality(class);
        context::scope(scope, service.clone().oneshot(1))
    };
    let mut served = Vec::new();
    for class in [Criticality::Sheddable, Criticality::Critical, Criticality::CriticalPlus] {
        let mut count = 0;
        while of(class).await.is_ok() {
            count += 1;
        }
        served.push(count);
    }
    assert_eq!(served, [2, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_rate_can_be_changed_while_requests_run() {
    let layer = RateLimitLayer::new(ten()).unwrap();
    let service = layer.layer(service_fn(answer));
    join_all((0..2).map(|_| service.clone().oneshot(1))).await;
    layer.update(&ten().burst(4)).unwrap();
    assert_eq!(
        join_all((0..4).map(|_| service.clone().oneshot(1))).await.iter().filter(|r| r.is_ok()).count(),
        2
    );
    assert!(layer.update(&ten().burst(0)).is_err());
    let wrong = RateLimitOptions::default().rate(0, Duration::ZERO).burst(0).max_wait(MS * 10_000_000);
    let fields: Vec<_> =
        RateLimitLayer::new(wrong).unwrap_err().problems().iter().map(|p| p.field.clone()).collect();
    assert_eq!(fields, ["rate", "per", "burst", "max_wait"]);
}
