//! The concurrency limit of a client.

use mainstay::{
    Reason,
    breaker::BreakerOptions,
    describe::Criticality,
    limit::{Algorithm, ConcurrencyLimitOptions},
    resolve,
};

use crate::fleet::*;

fn two() -> ConcurrencyLimitOptions {
    ConcurrencyLimitOptions::default().limit(2).max_waiting(1)
}

#[tokio::test(start_paused = true)]
async fn so_many_attempts_run_so_many_wait_and_the_rest_is_refused_by_name() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).limit(two()).build().unwrap();
    client.ready().await.unwrap();
    let calls: Vec<_> = (0..4).map(|n| tokio::spawn(client.send(n))).collect();
    settle().await;
    let limit = client.status().limit.unwrap();
    assert_eq!((limit.limit, limit.in_flight, limit.waiting), (2, 2, 1));
    let replies: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(replies.iter().map(reason).collect::<Vec<_>>(), [None, None, None, Some(Reason::Limit)]);
    let refused = replies[3].as_ref().unwrap_err();
    assert_eq!(mainstay::Error::find(&**refused).unwrap().client(), Some("users"));
    assert_eq!(client.status().limit.unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_retried_and_a_cancelled_request_leaves_the_line() {
    let stage = Stage::default();
    let client =
        builder(&stage, resolve::fixed(["a:1"])).limit(two().limit(1)).budget(reserve(9)).build().unwrap();
    stage.server("a:1").set(Mode::Hang);
    let first = tokio::spawn(client.send(1));
    settle().await;
    assert!(tokio::time::timeout(ms(20), client.send(2)).await.is_err());
    assert_eq!(client.status().limit.unwrap().waiting, 0);
    let _waiting = tokio::spawn(client.send(3));
    settle().await;
    assert_eq!(reason(&client.send(4).await), Some(Reason::Limit));
    assert_eq!(client.status().retries, 0);
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_line_with_the_right_to_probe() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .limit(two().limit(1))
        .breaker(BreakerOptions::default())
        .build()
        .unwrap();
    stage.server("a:1").set(Mode::Answer(ms(100)));
    let running = tokio::spawn(client.send(1));
    settle().await;
    client.breaker().unwrap().open_for(ms(1));
    tokio::time::sleep(ms(10)).await;
    let waiting = tokio::spawn(client.send(2));
    settle().await;
    assert_eq!(client.breaker().unwrap().status().probing, 0);
    assert!(running.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn it_can_be_changed_while_the_client_runs_and_keeps_what_it_has_learnt() {
    let stage = Stage::default();
    let adaptive = two().algorithm(Algorithm::adaptive());
    let client = builder(&stage, resolve::fixed(["a:1"])).limit(adaptive.clone()).build().unwrap();
    let set = |limit: Option<ConcurrencyLimitOptions>| {
        let mut options = client.options();
        options.limit = limit;
        client.update(options)
    };
    assert_eq!(client.status().limit.unwrap().limit, 4);
    set(Some(adaptive.max_waiting(7))).unwrap();
    assert_eq!(client.status().limit.unwrap().limit, 4);
    set(Some(two())).unwrap();
    assert_eq!(client.status().limit.unwrap().limit, 2);
    assert!(set(Some(two().limit(0))).is_err());
    set(None).unwrap();
    assert!(client.status().limit.is_none() && client.send(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn turned_on_again_it_goes_by_the_algorithm_that_is_wanted_then() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).limit(two()).build().unwrap();
    let set = |limit: Option<ConcurrencyLimitOptions>| {
        let mut options = client.options();
        options.limit = limit;
        client.update(options).unwrap();
        client.status().limit.map(|status| status.limit)
    };
    assert_eq!(set(None), None);
    assert_eq!(set(Some(two().algorithm(Algorithm::adaptive()))), Some(4));
    assert_eq!(set(None), None);
    assert_eq!(set(Some(two())), Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_its_description_says_matters_more_goes_first_and_keeps_its_class_when_it_is_retried() {
    struct Even;
    impl mainstay::Describe<u32> for Even {
        fn copy(&self, request: &mut u32) -> Option<u32> {
            Some(*request)
        }
        fn is_idempotent(&self, _: &u32) -> bool {
            true
        }
        fn criticality(&self, request: &u32) -> Option<Criticality> {
            request.is_multiple_of(2).then_some(Criticality::CriticalPlus)
        }
    }
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .describe(Even)
        .limit(two().limit(1).max_waiting(9))
        .retry(every(ms(1), 2))
        .budget(reserve(9))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let calls = [1, 3, 5, 2].map(|request| {
        let (call, done) = (client.send(request), done.clone());
        tokio::spawn(async move {
            let _ = call.await;
            done.lock().unwrap().push(request);
        })
    });
    settle().await;
    futures::future::join_all(calls).await;
    assert_eq!(*done.lock().unwrap(), [1, 2, 3, 5]);
    // The first attempt of 2 fails; its second one waits before 3 and 5.
    done.lock().unwrap().clear();
    stage.server("a:1").set(Mode::Fail(ms(10)));
    let calls = [2, 3, 5].map(|request| {
        let (call, done) = (client.send(request), done.clone());
        tokio::spawn(async move {
            let _ = call.await;
            done.lock().unwrap().push(request);
        })
    });
    futures::future::join_all(calls).await;
    assert_eq!(done.lock().unwrap()[0], 2);
}
