//! Many threads at a time, with a fleet that changes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use futures::FutureExt as _;
use mainstay::{Endpoint, describe::Idempotent, resolve};
use tower::service_fn;

use crate::fleet::{at_once, reserve};

const CALLERS: u64 = 4;
const REQUESTS: u64 = 2_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_requests_on_four_threads_are_accounted_for_exactly() {
    let (feed, channel) = resolve::channel();
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    let client = mainstay::Client::builder("users")
        .resolve(channel)
        .connect(move |endpoint: &Endpoint| {
            let (bad, count) = (endpoint.address().to_string() == "bad:1", count.clone());
            service_fn(move |number: u64| {
                count.fetch_add(1, SeqCst);
                async move {
                    tokio::task::yield_now().await;
                    if bad { Err(std::io::Error::other("bad")) } else { Ok(number) }
                }
            })
        })
        .describe(Idempotent)
        .retry(at_once(3))
        .budget(reserve(1_000_000))
        .build()
        .unwrap();
    let all = ["a:1", "b:1", "c:1", "bad:1"];
    feed.set(all);
    let over = Arc::new(AtomicBool::new(false));
    let changing = {
        let over = over.clone();
        tokio::spawn(async move {
            let mut round = 0;
            while !over.load(SeqCst) {
                round += 1;
                feed.set(
                    all.into_iter()
                        .enumerate()
                        .filter(|(index, _)| index % 3 != round % 3)
                        .map(|(_, name)| name),
                );
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            feed.set(all);
            feed
        })
    };
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut cancelled = 0;
                for number in 0..REQUESTS {
                    if number % 10 == 0 {
                        cancelled += u64::from(client.send(number).now_or_never().is_none());
                    } else {
                        assert_eq!(client.send(number).await.unwrap(), number);
                    }
                }
                cancelled
            })
        })
        .collect();
    let mut cancelled = 0;
    for caller in callers {
        cancelled += caller.await.unwrap();
    }
    over.store(true, SeqCst);
    let _feed = changing.await.unwrap();
    let status = client.status();
    assert_eq!((status.failures, status.cancelled), (0, cancelled));
    assert_eq!(status.successes, CALLERS * REQUESTS - cancelled);
    assert!(cancelled > 0);
    while client.status().balance.endpoints.len() < all.len() {
        tokio::task::yield_now().await;
    }
    let rows = client.status().balance.endpoints;
    assert!(rows.iter().all(|row| row.in_flight == 0));
    let sum = |of: fn(&mainstay::balance::EndpointStatus) -> u64| rows.iter().map(of).sum::<u64>();
    assert_eq!(sum(|row| row.successes), status.successes);
    assert_eq!(sum(|row| row.successes + row.failures + row.cancelled), served.load(SeqCst));
    assert!(client.close(std::time::Duration::from_secs(10)).await);
}
