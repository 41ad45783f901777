//! How long an attempt may take.

use std::{sync::Arc, time::Duration};

use mainstay::{
    Error, Reason,
    balance::Balance,
    clock,
    context::{self, Inherited},
    outcome::Sent,
    resolve,
};
use tower::{BoxError, service_fn};

use crate::stage::*;

fn within(time: Duration) -> Inherited {
    Inherited::default().with_deadline(clock::now() + time)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cut_off_after_three_seconds_by_the_name_of_its_endpoint() {
    let stage = Stage::default();
    let client = stage.builder(resolve::fixed(["a:1"])).label("users").build().unwrap();
    stage.server("a:1").set(Mode::Hang);
    let start = crate::stage::now();
    let error = client.send(0).await.unwrap_err();
    assert_eq!(start.elapsed(), secs(3));
    let error = Error::find(&*error).unwrap();
    assert_eq!((error.reason(), error.sent()), (Reason::AttemptTimeout, Sent::Maybe));
    assert_eq!((error.client(), error.endpoint()), (Some("users"), Some("a:1")));
    assert_eq!(error.lasted(), Some(secs(3)));
    assert_eq!((status(&client, "a:1").failures, stage.server("a:1").active()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_result_of_the_same_poll_wins_over_the_limit() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    stage.server("a:1").set(Mode::Answer(secs(3)));
    client.send(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_an_attempt_may_take_for_ever() {
    let stage = Stage::default();
    let client = stage
        .builder(resolve::fixed(["a:1"]))
        .options(options(|options| options.attempt_limit = None))
        .build()
        .unwrap();
    stage.server("a:1").set(Mode::Answer(secs(3_600)));
    client.send(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_inherited_deadline_is_kept_and_does_not_blame_the_endpoint() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    client.ready().await.unwrap();
    stage.server("a:1").set(Mode::Hang);
    let start = crate::stage::now();
    let reply = context::scope(within(ms(200)), client.send(0)).await;
    assert_eq!((reason(&reply), start.elapsed()), (Some(Reason::Deadline), ms(200)));
    let status = status(&client, "a:1");
    assert_eq!((status.failures, status.cancelled, status.in_flight), (0, 1, 0));
    assert!(status.estimate.unwrap() >= ms(200), "a censored sample");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_refuses_without_touching_an_endpoint() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    client.ready().await.unwrap();
    let reply = context::scope(within(ms(0)), client.send(0)).await;
    assert_eq!(reason(&reply), Some(Reason::Deadline));
    assert_eq!(stage.server("a:1").served(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_an_endpoint() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let start = crate::stage::now();
    let reply = context::scope(within(ms(200)), client.send(0)).await;
    assert_eq!((reason(&reply), start.elapsed()), (Some(Reason::Deadline), ms(200)));
    assert_eq!(client.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_inside_an_endpoint_s_service_neither_sees_nor_disturbs_the_outer_call() {
    let stage = Stage::default();
    let inner = stage.client(resolve::fixed(["a:1", "b:1"]));
    inner.ready().await.unwrap();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let outer = {
        let (inner, seen) = (inner.clone(), seen.clone());
        Balance::builder(resolve::fixed(["x:1"]))
            .connect(move |_| {
                let (inner, seen) = (inner.clone(), seen.clone());
                service_fn(move |request: u32| {
                    let (inner, seen) = (inner.clone(), seen.clone());
                    async move {
                        *seen.lock().unwrap() = context::inherited().deadline();
                        // Both endpoints: the first attempt's endpoint is not one that the second has tried.
                        let first = inner.send(request).await?;
                        inner.send(request).await.map(|second| (first, second))
                    }
                })
            })
            .build()
            .unwrap()
    };
    let deadline = clock::now() + secs(1);
    context::scope(Inherited::default().with_deadline(deadline), outer.send(0)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(deadline), "the deadline crosses clients");
    let endpoint = &outer.status().endpoints[0];
    assert_eq!((endpoint.successes, endpoint.in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_inner_client_s_timeout_is_not_the_outer_endpoint_s_fault_alone() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let inner = stage
        .builder(resolve::fixed(["a:1"]))
        .options(options(|options| options.attempt_limit = Some(ms(50))))
        .build()
        .unwrap();
    let outer = Balance::new(resolve::fixed(["x:1"]), move |_: &mainstay::Endpoint| {
        let inner = inner.clone();
        service_fn(move |request: u32| inner.send(request))
    });
    let start = crate::stage::now();
    let error: BoxError = outer.send(0).await.unwrap_err();
    assert_eq!(start.elapsed(), ms(50), "the inner limit is kept by the outer timer");
    assert_eq!(Error::find(&*error).and_then(Error::endpoint), Some("a:1"));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_requests_of_one_task_all_succeed() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    for after in [ms(0), ms(5)] {
        stage.server("a:1").set(Mode::Answer(after));
        stage.server("b:1").set(Mode::Answer(after));
        let replies = futures::future::join_all((0..200).map(|_| client.send(0))).await;
        assert!(replies.iter().all(Result::is_ok), "after {after:?}");
    }
}
