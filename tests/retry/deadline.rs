//! Retries within a deadline.

use std::time::Duration;

use mainstay::{
    Error, Reason, Verdict, clock,
    context::{self, Inherited},
    deadline::{AttemptLimitLayer, DeadlineLayer},
    outcome::Sent,
    random::Seeded,
    retry::RetryPolicy,
};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::server::{Answer, FAIL, MS, Server, Test, at_once, bad_number, layer, request};

fn reason<T>(result: &Result<T, BoxError>) -> Option<Reason> {
    result.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
}

/// One request within `total`, and how long it took.
async fn within(
    total: Duration,
    policy: RetryPolicy,
    server: &Server,
) -> Result<(Result<u32, BoxError>, Duration), BoxError> {
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(total)).layer(layer(policy)?).service(server.clone());
    let start = clock::now();
    let result = service.oneshot(request(1)).await;
    Ok((result, clock::now().saturating_duration_since(start)))
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_all_attempts_and_the_waits_between_them() -> Test {
    let server = Server::answers([Answer::FailIn(MS * 400), Answer::FailIn(MS * 400), Answer::Hang]);
    let (result, took) = within(MS * 1_000, at_once(3), &server).await?;
    assert_eq!((reason(&result), took, server.count()), (Some(Reason::Deadline), MS * 1_000, 3));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_brings_the_real_error_at_once() -> Test {
    let asked = Answer::Bad(Verdict::back_off(Some(MS * 2_000)));
    for total in [1_000, 2_000] {
        let server = Server::answers([FAIL, asked]);
        let (result, took) = within(MS * total, at_once(3), &server).await?;
        assert_eq!((bad_number(&result), took, server.count()), (Some(2), Duration::ZERO, 2));
    }
    let server = Server::answers([FAIL, asked]);
    let (result, took) = within(MS * 2_001, at_once(3), &server).await?;
    assert_eq!((result.ok(), took), (Some(3), MS * 2_000));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_done_in_time_is_not_begun() -> Test {
    // What the service has shown so far: it takes 100 ms.
    let server = Server::new(|n| if n <= 20 { Answer::In(MS * 100) } else { Answer::FailIn(MS * 950) });
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(MS * 1_000))
        .layer(layer(at_once(3))?)
        .service(server.clone());
    for id in 0..20 {
        service.clone().oneshot(request(id)).await?;
    }
    let start = clock::now();
    let result = service.oneshot(request(99)).await;
    assert_eq!((bad_number(&result), clock::now()), (Some(21), start + MS * 950));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_inherited_deadline_bounds_retries_without_a_layer_of_ones_own() -> Test {
    for seed in 0..200 {
        let server = Server::failing();
        let retry = layer(RetryPolicy::default().max_attempts(10))?.random(Seeded::new(seed));
        let service = ServiceBuilder::new().layer(retry).service(server.clone());
        let start = clock::now();
        let inherited = Inherited::default().with_deadline(start + MS * 60);
        let result = context::scope(inherited, service.oneshot(request(1))).await;
        assert_eq!(bad_number(&result), Some(server.count() as u32));
        // Timers round up to a millisecond, so that a wait of nearly all that is left takes all of it.
        assert!(clock::now() <= start + MS * 60, "seed {seed}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_its_limit_cuts_off_is_a_failure_and_tried_again() -> Test {
    let server = Server::answers([Answer::Hang, Answer::Hang]);
    let service = ServiceBuilder::new()
        .layer(layer(at_once(3))?)
        .layer(AttemptLimitLayer::new(MS * 50))
        .service(server.clone());
    assert_eq!(service.oneshot(request(1)).await?, 3);
    assert_eq!(server.gaps(), [MS * 50; 2]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_deadline_below_the_retries_is_final() -> Test {
    let server = Server::answers([Answer::Hang]);
    let service = ServiceBuilder::new()
        .layer(layer(at_once(3))?)
        .layer(DeadlineLayer::new(MS * 50))
        .service(server.clone());
    let result = service.oneshot(request(1)).await;
    assert_eq!((reason(&result), server.count()), (Some(Reason::Deadline), 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_answer_wins_over_a_deadline_in_the_same_poll() -> Test {
    let server = Server::answers([FAIL, Answer::In(MS * 300)]);
    let (result, took) = within(MS * 300, at_once(3), &server).await?;
    assert_eq!((result.ok(), took), (Some(2), MS * 300));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_touches_nothing() -> Test {
    let server = Server::answers([]);
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(MS)).layer(layer(at_once(3))?).service(server.clone());
    let past = Inherited::default().with_deadline(clock::now());
    let error = context::scope(past, service.oneshot(request(1))).await.unwrap_err();
    let error = Error::find(&*error).ok_or("an error of ours")?;
    assert_eq!((error.reason(), error.sent(), server.count()), (Reason::Deadline, Sent::No, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_time_runs_from_the_first_poll_and_not_from_the_call() -> Test {
    let server = Server::answers([Answer::In(MS * 40)]);
    let service = ServiceBuilder::new().layer(DeadlineLayer::new(MS * 50)).service(server);
    let call = service.oneshot(request(1));
    tokio::time::sleep(MS * 200).await;
    assert_eq!(call.await?, 1);
    Ok(())
}
