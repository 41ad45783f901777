//! Requests are made inside of spawned `async` blocks, whatever the transport's error is.

use mainstay::{Client, Endpoint, balance::Balance, describe::Idempotent, resolve};
use tower::{BoxError, service_fn};

#[tokio::test]
async fn a_request_may_be_awaited_in_a_spawned_block_over_a_boxed_error() {
    let echo = |_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, BoxError>(n) });
    let client = Client::builder("echo")
        .resolve(resolve::fixed(["a:1", "b:1"]))
        .connect(echo)
        .describe(Idempotent)
        .build()
        .unwrap();
    let balance = Balance::new(resolve::fixed(["a:1", "b:1"]), echo);
    let both = tokio::spawn(async move {
        let first = client.send(1).await.ok();
        let second = client.method("echo").idempotent().send(2).await.ok();
        (first, second, balance.send(3).await.ok())
    });
    assert_eq!(both.await.unwrap(), (Some(1), Some(2), Some(3)));
}
