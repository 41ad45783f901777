//! The client as a part of other tower stacks.

use futures::future::join_all;
use mainstay::resolve;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, buffer::Buffer, util::BoxCloneSyncService};

use crate::fleet::*;

#[tokio::test(start_paused = true)]
async fn it_can_be_boxed_buffered_and_built_upon() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1", "b:1"]));
    let boxed: BoxCloneSyncService<u32, String, BoxError> = BoxCloneSyncService::new(client.clone());
    assert!(boxed.clone().oneshot(0).await.is_ok());
    let buffered = Buffer::new(client.clone(), 8);
    let replies = join_all((0..50).map(|number| buffered.clone().oneshot(number))).await;
    assert!(replies.iter().all(Result::is_ok));
    let built = ServiceBuilder::new()
        .concurrency_limit(4)
        .timeout(secs(1))
        .map_request(|text: &str| text.len() as u32)
        .service(client.clone());
    assert!(built.oneshot("four").await.is_ok());
    assert_eq!(client.status().successes, 52);
}

#[tokio::test(start_paused = true)]
async fn it_is_always_ready_and_readiness_holds_nothing() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let mut client = client(&stage, channel);
    for _ in 0..100 {
        tower::ServiceExt::<u32>::ready(&mut client).await.unwrap();
    }
    let clones: Vec<_> = (0..100).map(|_| client.clone()).collect();
    assert_eq!(client.status().balance.waiting, 0);
    drop(clones);
    assert!(client.close(ms(0)).await);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_that_never_calls_starves_nobody() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    // The worker of a buffer readies its service and then waits for a request, for ever.
    let idle = Buffer::<u32, _>::new(client.clone(), 1);
    settle().await;
    assert_eq!(load(&client, 20, 100).await, 0);
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_requests_in_one_task_is_not_shed() {
    // More than tokio lets one task do before it makes it wait: nothing here may take that for overload.
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(0)));
    let client = client(&stage, resolve::fixed(["a:1"]));
    let shed = ServiceBuilder::new().load_shed().service(client);
    let replies = join_all((0..1_000).map(|number| shed.clone().oneshot(number))).await;
    assert!(replies.iter().all(Result::is_ok));
}
