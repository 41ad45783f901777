//! A stack of single layers, put together by hand: a deadline around retries around a balancer.
//!
//! Shows that each of them is an ordinary `tower` layer, and what the order means. Of three instances one is slow, one
//! fails every third request, and all of them hang on a certain one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::join_all;
use mainstay::{
    Endpoint, Error,
    balance::Balance,
    budget::{Budget, BudgetOptions},
    clock,
    deadline::DeadlineLayer,
    describe::Idempotent,
    resolve,
    retry::{RetryLayer, RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};

/// An instance that lives in this process. Anything that is a `tower::Service` and can be cloned would do.
fn instance(
    endpoint: &Endpoint,
) -> impl tower::Service<u32, Response = String, Error = BoxError, Future: Send> + Clone + Send + Sync + use<>
{
    let (name, asked) = (endpoint.address().to_string(), Arc::new(AtomicU32::new(0)));
    service_fn(move |request: u32| {
        let (name, turn) = (name.clone(), asked.fetch_add(1, Relaxed));
        async move {
            match name.as_str() {
                _ if request == 999 => std::future::pending().await,
                "slow" => tokio::time::sleep(Duration::from_millis(20)).await,
                "flaky" if turn % 3 == 2 => return Err("out of luck".into()),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
            Ok(name)
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let balance = Balance::new(resolve::fixed(["fast", "slow", "flaky"]), instance);
    let budget = Budget::new(BudgetOptions::default())?;
    let service = ServiceBuilder::new()
        // Outermost: the time for all attempts and the waits between them.
        .layer(DeadlineLayer::new(Duration::from_millis(300)))
        // Every attempt goes through what is below, so the balancer picks anew, and another endpoint.
        .layer(RetryLayer::new(RetryPolicy::default())?.budget(budget.clone()).describe(Idempotent))
        .service(balance.clone());

    let mut answers = BTreeMap::<String, u32>::new();
    for round in 0..20 {
        let requests = (0..10).map(|n| service.clone().oneshot(round * 10 + n));
        for answer in join_all(requests).await {
            let who = answer.unwrap_or_else(|error| format!("nobody ({error})"));
            *answers.entry(who).or_default() += 1;
        }
    }
    println!("who answered 200 requests:");
    for (who, count) in answers {
        println!("  {count:>3} {who}");
    }
    println!("what the balancer thinks of them:");
    for endpoint in balance.status().endpoints {
        let estimate = endpoint.estimate.unwrap_or_default();
        println!("  {}: {}, {} failures, {estimate:.1?}", endpoint.name, endpoint.word(), endpoint.failures);
    }
    println!("retries left in the budget: {}", budget.available(clock::now()));

    // This one hangs wherever it goes. The deadline ends it, and says so.
    let error = service.oneshot(999).await.expect_err("nobody answers 999");
    let ours = Error::find(&*error).ok_or("an error of ours")?;
    println!("request 999: {error} ({})", ours.reason().name());
    Ok(())
}
