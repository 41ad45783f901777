//! A client on another client's way.

use std::sync::{Arc, Mutex};

use mainstay::{Describe, describe::Idempotent, describe::Sending, resolve};
use tower::service_fn;

use crate::fleet::*;

/// Notes what every sending was stamped with.
#[derive(Clone, Default)]
struct Stamps(Arc<Mutex<Vec<(u32, bool)>>>);

impl Describe<u32> for Stamps {
    fn copy(&self, request: &mut u32) -> Option<u32> {
        Some(*request)
    }

    fn is_idempotent(&self, _: &u32) -> bool {
        true
    }

    fn stamp(&self, _: &mut u32, sending: &Sending) {
        self.0.lock().unwrap().push((sending.attempt, sending.is_retry()));
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_its_own_retries_and_leaves_the_outer_call_alone() {
    let stage = Stage::default();
    stage.server("in:1").set(Mode::Fail(ms(1)));
    let stamps = Stamps::default();
    let inner = builder(&stage, resolve::fixed(["in:1"]))
        .describe(stamps.clone())
        .retry(at_once(2))
        .budget(reserve(100))
        .build()
        .unwrap();
    let nested = inner.clone();
    let outer = mainstay::Client::builder("outer")
        .resolve(resolve::fixed(["x:1", "y:1", "z:1"]))
        .connect(move |_| {
            let inner = nested.clone();
            service_fn(move |number: u32| inner.send(number))
        })
        .describe(Idempotent)
        .retry(at_once(3))
        .budget(reserve(100))
        .build()
        .unwrap();
    assert_eq!(outer.send(0).await.unwrap_err().to_string(), "failed");
    assert_eq!(stage.server("in:1").served(), 6);
    assert_eq!((outer.status().retries, inner.status().retries), (2, 3));
    // The outer call knows what it has tried: each of its attempts went elsewhere.
    assert!(outer.status().balance.endpoints.iter().all(|row| row.failures == 1));
    // And the inner one knows which of its calls are made on behalf of a retry.
    let stamps = stamps.0.lock().unwrap().clone();
    assert_eq!(stamps, [(1, false), (2, true), (1, true), (2, true), (1, true), (2, true)]);
}

#[tokio::test(start_paused = true)]
async fn the_outer_deadline_is_the_inner_ones_too() {
    let stage = Stage::default();
    stage.server("in:1").set(Mode::Hang);
    let inner = client(&stage, resolve::fixed(["in:1"]));
    let nested = inner.clone();
    let outer = mainstay::Client::builder("outer")
        .resolve(resolve::fixed(["x:1"]))
        .connect(move |_| {
            let inner = nested.clone();
            service_fn(move |number: u32| inner.send(number))
        })
        .deadline(ms(300))
        .build()
        .unwrap();
    let start = mainstay::clock::now();
    let reply = outer.send(0).await;
    assert_eq!(reason(&reply), Some(mainstay::Reason::Deadline));
    assert_eq!(mainstay::clock::now().saturating_duration_since(start), ms(300));
    assert_eq!((stage.server("in:1").active(), inner.status().failures + inner.status().cancelled), (0, 1));
}
