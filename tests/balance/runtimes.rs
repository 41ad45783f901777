//! Runtimes that are not there, end, and start again.

use std::{
    future::Future as _,
    pin::pin,
    sync::mpsc,
    task::{Context, Poll, Waker},
    thread,
};

use mainstay::{Reason, resolve};
use tokio::runtime::{Builder, Runtime};

use crate::stage::*;

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Runs `work` on a thread of its own, and fails if it hangs.
fn promptly(work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    if wait.recv_timeout(secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    thread.join().unwrap();
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let stage = Stage::default();
    let client = stage.client(resolve::fixed(["a:1"]));
    let mut request = pin!(client.send(0));
    let Poll::Ready(reply) = request.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for a runtime")
    };
    assert_eq!(reason(&reply), Some(Reason::NoRuntime));
    let mut ready = pin!(client.ready());
    let Poll::Ready(Err(error)) = ready.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for a runtime")
    };
    assert_eq!(error.reason(), Reason::NoRuntime);
}

#[test]
fn the_balancer_works_on_a_second_runtime_when_the_first_has_ended() {
    promptly(|| {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1", "b:1"]));
        for round in 0..3 {
            let runtime = paused();
            assert_eq!(runtime.block_on(load(&client, 5, 50)), 0, "runtime {round}");
            drop(runtime);
        }
        let successes: u64 = client.status().endpoints.iter().map(|endpoint| endpoint.successes).sum();
        assert_eq!(successes, 150, "with all its state");
    });
}

#[test]
fn a_dial_that_dies_with_its_runtime_is_made_again_on_the_next() {
    promptly(|| {
        let stage = Stage::default();
        let client = stage.dialing(resolve::fixed(["a:1"])).build().unwrap();
        stage.server("a:1").hang_dials(true);
        let runtime = paused();
        runtime.block_on(async {
            let _waiting = tokio::spawn(client.send(0));
            settle().await;
        });
        assert_eq!(stage.server("a:1").made(), 1);
        drop(runtime);
        stage.server("a:1").hang_dials(false);
        paused().block_on(client.send(0)).unwrap();
    });
}

#[test]
fn a_resolution_cut_in_two_by_the_end_of_a_runtime_is_applied_wholly_on_the_next() {
    promptly(|| {
        let stage = Stage::default();
        let names: Vec<String> = (0..1_000).map(|index| format!("{index:04}:1")).collect();
        let client = stage.client(resolve::fixed(names));
        for yields in 0..6 {
            let runtime = paused();
            runtime.block_on(async {
                let _waiting = tokio::spawn(client.send(0));
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
            });
        }
        paused().block_on(async {
            client.send(0).await.unwrap();
            settle().await;
        });
        assert_eq!(client.status().endpoints.len(), 1_000);
    });
}

#[test]
fn a_runtime_that_has_shut_down_is_none() {
    promptly(|| {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1"]));
        let runtime = paused();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _inside = handle.enter();
        let mut request = pin!(client.send(0));
        let Poll::Ready(reply) = request.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it waits for a runtime that is gone")
        };
        assert_eq!(reason(&reply), Some(Reason::NoRuntime));
    });
}

#[test]
fn a_request_polled_outside_of_the_runtime_does_not_panic() {
    promptly(|| {
        let stage = Stage::default();
        let client = stage.client(resolve::fixed(["a:1"]));
        let runtime = paused();
        runtime.block_on(client.send(0)).unwrap();
        stage.server("a:1").set(Mode::Hang);
        let mut request = Box::pin(client.send(0));
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(request);
        assert_eq!(status(&client, "a:1").in_flight, 0);
    });
}

#[test]
fn a_request_that_waits_survives_the_runtime_of_the_background_task() {
    promptly(|| {
        let stage = Stage::default();
        let (feed, channel) = resolve::channel();
        let client = stage.client(channel);
        let first = paused();
        let _ = first.block_on(async { tokio::time::timeout(ms(1), client.ready()).await });
        let second = paused();
        let waiting = second.spawn(client.send(0));
        second.block_on(settle());
        drop(first);
        feed.set(["a:1"]);
        assert_eq!(second.block_on(waiting).unwrap().unwrap(), "a:1");
    });
}
