//! Futures that are dropped at any time give back what they hold, once.

use std::{
    future::Future as _,
    pin::pin,
    task::{Context, Waker},
};

use mainstay::{Reason, resolve};

use crate::stage::*;

fn nothing_is_held(client: &Client) {
    let status = client.status();
    assert_eq!(status.waiting, 0, "{status:?}");
    assert!(status.endpoints.iter().all(|endpoint| endpoint.in_flight == 0), "{status:?}");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_polled_holds_nothing() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1"]));
    client.ready().await.unwrap();
    drop(client.send(0));
    nothing_is_held(&client);
    assert_eq!(stage.served(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_waits_leaves_its_place() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    assert_eq!(client.status().waiting, 1);
    waiting.abort();
    settle().await;
    nothing_is_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_its_endpoint_is_not_ready_holds_no_service() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    stage.server("a:1").gate(Gate::Shut);
    let waiting = tokio::spawn(client.send(0));
    settle().await;
    assert!(stage.server("a:1").services() > 1);
    waiting.abort();
    settle().await;
    nothing_is_held(&client);
    assert_eq!(stage.server("a:1").services(), 1, "only the snapshot's");
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_is_served_gives_back_its_place_and_cancels() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    stage.server("a:1").set(Mode::Hang);
    let held = tokio::spawn(client.send(0));
    settle().await;
    assert_eq!((status(&client, "a:1").in_flight, client.in_flight()), (1, 1));
    held.abort();
    settle().await;
    nothing_is_held(&client);
    assert_eq!((stage.server("a:1").active(), status(&client, "a:1").cancelled), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_done_gives_back_its_place_once() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    for mode in [Mode::Answer(ms(1)), Mode::Fail(ms(1)), Mode::BackOff(Some(ms(1))), Mode::Answer(ms(0))] {
        stage.server("a:1").set(mode);
        let mut request = Box::pin(client.send(0));
        let _ = request.as_mut().await;
        assert_eq!(status(&client, "a:1").in_flight, 0);
        drop(request);
        tokio::time::sleep(ms(10)).await;
        nothing_is_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_polled_after_its_end_does_no_harm() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    let mut request = pin!(client.send(0));
    request.as_mut().await.unwrap();
    assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(status(&client, "a:1").in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiters_take_nobody_s_wake_up_with_them() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = stage.client(channel);
    let waiters: Vec<_> = (0..50).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    assert_eq!(client.status().waiting, 50);
    for waiter in waiters.iter().step_by(2) {
        waiter.abort();
    }
    feed.set(["a:1"]);
    let mut served = 0;
    for waiter in waiters {
        if let Ok(reply) = waiter.await {
            reply.unwrap();
            served += 1;
        }
    }
    assert_eq!(served, 25);
    nothing_is_held(&client);
}

#[tokio::test(start_paused = true)]
async fn any_mixture_of_ends_gives_everything_back() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1", "b:1", "c:1"]));
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Fail(ms(3)));
    let requests: Vec<_> = (0..300_u64)
        .map(|number| {
            let request = client.send(0);
            tokio::spawn(async move {
                tokio::time::sleep(ms(number % 50)).await;
                let _ = tokio::time::timeout(ms(number % 37), request).await;
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    nothing_is_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_gives_its_place_back() {
    let balance = mainstay::balance::Balance::new(resolve::fixed(["a:1"]), |_: &mainstay::Endpoint| {
        tower::service_fn(|inside: bool| {
            assert!(inside, "in the call");
            async move {
                tokio::task::yield_now().await;
                if inside {
                    panic!("in the future");
                }
                Ok::<_, tower::BoxError>(())
            }
        })
    });
    for inside in [true, false] {
        assert!(tokio::spawn(balance.send(inside)).await.unwrap_err().is_panic());
        assert_eq!((balance.in_flight(), balance.status().endpoints[0].in_flight), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once_and_a_place_that_is_left_is_free_again() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let client = stage.builder(channel).options(options(|options| options.max_waiting = 2)).build().unwrap();
    let watching = tokio::spawn({
        let client = client.clone();
        async move { client.ready().await }
    });
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    assert_eq!(client.status().waiting, 2, "who only waits for readiness is not in the line");
    assert_eq!(reason(&client.send(0).await), Some(Reason::QueueFull));
    held[0].abort();
    settle().await;
    let next = tokio::spawn(client.send(0));
    settle().await;
    assert!(!next.is_finished());
    watching.abort();
}
