//! Requests that are dropped on their way.

use std::{future::Future, pin::pin, task::Context, task::Poll, task::Waker};

use mainstay::{backoff::Backoff, balance::Balance, budget::Budget, clock, resolve, retry::RetryPolicy};
use tower::{BoxError, Layer as _, Service, ServiceExt as _};

use crate::server::{Answer, Believe, FAIL, MS, Request, Server, Test, layer, request, reserve};

/// Three attempts, 100 ms apart, from a budget of 10.
fn service(
    server: &Server,
) -> Result<(impl Service<Request, Response = u32, Error = BoxError> + Clone + use<>, Budget), BoxError> {
    let budget = reserve(10);
    let policy = RetryPolicy::default().backoff(Backoff::fixed(MS * 100));
    Ok((layer(policy)?.budget(budget.clone()).layer(server.clone()), budget))
}

#[tokio::test(start_paused = true)]
async fn dropped_before_its_first_poll_a_request_was_never_sent() -> Test {
    let server = Server::failing();
    let (service, budget) = service(&server)?;
    drop(service.oneshot(request(1)));
    assert_eq!((server.count(), budget.available(clock::now())), (0, 10));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn dropped_during_an_attempt_it_has_drawn_nothing() -> Test {
    let server = Server::answers([Answer::Hang]);
    let (service, budget) = service(&server)?;
    assert!(tokio::time::timeout(MS * 50, service.oneshot(request(1))).await.is_err());
    assert_eq!((server.count(), budget.available(clock::now())), (1, 10));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_retry_counts_from_the_decision_on_and_dropped_in_the_wait_it_is_given_back() -> Test {
    let server = Server::failing();
    let (service, budget) = service(&server)?;
    {
        let mut call = pin!(service.oneshot(request(1)));
        assert!(tokio::time::timeout(MS * 50, &mut call).await.is_err());
        assert_eq!((server.count(), budget.available(clock::now())), (1, 9));
    }
    assert_eq!(budget.available(clock::now()), 10);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn dropped_during_a_retry_it_has_drawn_one() -> Test {
    let server = Server::answers([FAIL, Answer::Hang]);
    let (service, budget) = service(&server)?;
    assert!(tokio::time::timeout(MS * 150, service.oneshot(request(1))).await.is_err());
    assert_eq!((server.count(), budget.available(clock::now())), (2, 9));
    Ok(())
}

/// At whatever poll a request is dropped, what was drawn is what was sent again, and nothing stays in flight.
#[tokio::test(start_paused = true)]
async fn dropped_at_any_poll_it_leaves_nothing_behind() -> Test {
    let mut finished = false;
    for polls in 0.. {
        let server = Server::answers([Answer::FailIn(MS * 10), Answer::FailIn(MS * 10), Answer::In(MS * 10)]);
        let inner = server.clone();
        let balance = Balance::builder(resolve::fixed(["a", "b"]))
            .connect(move |_| inner.clone())
            .classify(Believe)
            .build()?;
        let budget = reserve(10);
        let policy = RetryPolicy::default().backoff(Backoff::fixed(MS * 10));
        let retry = layer(policy)?.budget(budget.clone());
        {
            let mut call = pin!(retry.layer(balance.clone()).oneshot(request(1)));
            for _ in 0..polls {
                if let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    assert_eq!(result?, 3);
                    finished = true;
                    break;
                }
                // Time goes on, and the balancer's task gets its turn.
                tokio::time::sleep(MS * 4).await;
            }
        }
        let retries = server.count().saturating_sub(1) as u32;
        assert_eq!(budget.available(clock::now()), 10 - retries, "after {polls} polls");
        let status = balance.status();
        assert_eq!(status.endpoints.iter().map(|endpoint| endpoint.in_flight).sum::<u32>(), 0);
        assert_eq!((status.waiting, balance.in_flight()), (0, 0));
        if finished {
            break;
        }
    }
    assert!(finished);
    Ok(())
}
