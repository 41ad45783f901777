//! Services that cannot be cloned.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use mainstay::{
    balance::{Balance, Shared},
    resolve,
};
use tower::{BoxError, Service, ServiceExt as _};

use crate::stage::*;

/// One request at a time, and it remembers only the last waker: as most services do.
struct One {
    free: Arc<Mutex<(bool, Option<Waker>)>>,
    _not_sync: std::cell::Cell<()>,
}

struct Turn(Arc<Mutex<(bool, Option<Waker>)>>);

impl Drop for Turn {
    fn drop(&mut self) {
        let waker = {
            let mut free = self.0.lock().unwrap();
            free.0 = true;
            free.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Service<u32> for One {
    type Response = u32;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn std::future::Future<Output = Result<u32, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut free = self.free.lock().unwrap();
        if free.0 {
            return Poll::Ready(Ok(()));
        }
        free.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::replace(&mut self.free.lock().unwrap().0, false), "called without being ready");
        let turn = Turn(self.free.clone());
        Box::pin(async move {
            let _turn = turn;
            tokio::time::sleep(ms(10)).await;
            Ok(request)
        })
    }
}

fn one() -> Shared<One> {
    Shared::new(One { free: Arc::new(Mutex::new((true, None))), _not_sync: std::cell::Cell::new(()) })
}

#[tokio::test(start_paused = true)]
async fn clones_take_turns() {
    let shared = one();
    let replies = futures::future::join_all((0..50).map(|number| shared.clone().oneshot(number))).await;
    assert!(replies.into_iter().enumerate().all(|(number, reply)| reply.unwrap() == number as u32));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_takes_nobody_s_wake_up_with_it() {
    let shared = one();
    let first = tokio::spawn(shared.clone().oneshot(1));
    settle().await;
    let waiters: Vec<_> = (0..20).map(|number| tokio::spawn(shared.clone().oneshot(number))).collect();
    settle().await;
    // The last one's waker is the one that a plain service remembers.
    for waiter in waiters.iter().skip(1).step_by(2) {
        waiter.abort();
    }
    first.await.unwrap().unwrap();
    let mut served = 0;
    for waiter in waiters {
        served += usize::from(waiter.await.is_ok());
    }
    assert_eq!(served, 10);
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_is_ready_and_never_called_keeps_nobody_waiting() {
    let shared = one();
    let mut idle = shared.clone();
    idle.ready().await.unwrap();
    assert_eq!(shared.clone().oneshot(7).await.unwrap(), 7);
    assert_eq!(idle.call(8).await.unwrap(), 8, "it waits for its turn");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_can_only_be_sent_is_balanced_over() {
    let balance = Balance::new(resolve::fixed(["a:1", "b:1"]), |_: &mainstay::Endpoint| one());
    let replies = futures::future::join_all((0..50).map(|number| balance.send(number))).await;
    assert!(replies.iter().all(Result::is_ok));
    assert_eq!(balance.in_flight(), 0);
}
