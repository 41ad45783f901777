//! A limit on what is in flight at each endpoint.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mainstay::{Endpoint, Error, Reason, resolve};

use crate::stage::{Mode, Stage, ms, options, settle};

#[tokio::test(start_paused = true)]
async fn never_more_than_the_limit_are_in_flight_at_an_endpoint_and_everybody_has_a_turn() {
    let stage = Stage::default();
    let names = ["a:1", "b:1", "c:1"];
    names.iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(10))));
    let limited = options(|options| options.max_in_flight = Some(2));
    let client = stage.builder(resolve::fixed(names)).options(limited).build().unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let requests: Vec<_> = (0..300)
        .map(|_| {
            let (client, most, servers) =
                (client.clone(), most.clone(), names.map(|name| stage.server(name)));
            tokio::spawn(async move {
                let answer = client.send(0).await;
                let now = servers.iter().map(|server| server.active()).max();
                most.fetch_max(now.unwrap_or(0), SeqCst);
                answer.is_ok()
            })
        })
        .collect();
    settle().await;
    let status = client.status();
    assert_eq!(status.endpoints.iter().map(|endpoint| endpoint.in_flight).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(status.waiting, 294);
    for request in requests {
        assert!(request.await.unwrap());
    }
    assert!(most.load(SeqCst) <= 2);
    assert_eq!(client.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_all_are_full_takes_nobody_s_turn() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(10)));
    let limited = options(|options| options.max_in_flight = Some(1));
    let client = stage.builder(resolve::fixed(["a:1"])).options(limited).build().unwrap();
    let requests: Vec<_> = (0..20).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    requests.iter().step_by(2).for_each(|request| request.abort());
    for request in requests.into_iter().skip(1).step_by(2) {
        assert!(request.await.unwrap().is_ok());
    }
    settle().await;
    assert_eq!((client.in_flight(), client.status().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_of_those_who_wait_is_bounded() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let limited = options(|options| {
        options.max_in_flight = Some(1);
        options.max_waiting = 1;
    });
    let client = stage.builder(resolve::fixed(["a:1"])).options(limited).build().unwrap();
    client.ready().await.unwrap();
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    let refused = client.send(0).await.unwrap_err();
    assert_eq!(Error::find(&*refused).map(Error::reason), Some(Reason::QueueFull));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_those_in_who_wait() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let limited = options(|options| options.max_in_flight = Some(1));
    let client = stage.builder(resolve::fixed(["a:1"])).options(limited).build().unwrap();
    let held: Vec<_> = (0..3).map(|_| tokio::spawn(client.send(0))).collect();
    settle().await;
    assert_eq!(stage.server("a:1").active(), 1);
    client.update(options(|options| options.max_in_flight = None)).unwrap();
    settle().await;
    assert_eq!(stage.server("a:1").active(), 3);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_passed_over_by_those_who_come_later() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(10)));
    let limited = options(|options| options.max_in_flight = Some(1));
    let client = stage.builder(resolve::fixed(["a:1"])).options(limited).build().unwrap();
    client.ready().await.unwrap();
    let busy = client.clone();
    let busy = tokio::spawn(async move {
        for _ in 0..1_000 {
            busy.send(0).await.unwrap();
        }
    });
    settle().await;
    let start = crate::stage::now();
    for _ in 0..20 {
        client.send(0).await.unwrap();
    }
    assert!(crate::stage::now() - start <= ms(20 * 20 + 20), "{:?}", crate::stage::now() - start);
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn the_first_in_line_does_not_wake_itself_over_endpoints_that_are_not_ready() {
    use std::task::{Context, Poll};

    #[derive(Clone)]
    struct Never(Arc<AtomicUsize>);
    impl tower::Service<u64> for Never {
        type Response = u64;
        type Error = tower::BoxError;
        type Future = std::future::Pending<Result<u64, tower::BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
            self.0.fetch_add(1, SeqCst);
            Poll::Pending
        }

        fn call(&mut self, _: u64) -> Self::Future {
            std::future::pending()
        }
    }

    let polls = Arc::new(AtomicUsize::new(0));
    let counted = polls.clone();
    let names: Vec<String> = (0..100).map(|number| format!("{number:03}:1")).collect();
    let client = mainstay::balance::Balance::builder(resolve::fixed(names))
        .connect(move |_| Never(counted.clone()))
        .options(options(|options| options.max_in_flight = Some(1)))
        .build()
        .unwrap();
    let waiting = tokio::spawn(client.send(0));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let before = polls.load(SeqCst);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(polls.load(SeqCst), before);
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_full_is_waited_for_whatever_has_just_become_of_the_other() {
    for other in ["a:1", "b:1"] {
        let stage = Stage::default();
        let limited = options(|options| options.max_in_flight = Some(1));
        let client = stage.builder(resolve::fixed(["a:1", "b:1"])).options(limited).build().unwrap();
        client.ready().await.unwrap();
        let other = client.endpoint(Endpoint::new(other).identity()).unwrap();
        other.drain();
        let busy = tokio::spawn(client.send(0));
        settle().await;
        other.restore();
        settle().await;
        // The snapshot does not know of it yet.
        other.drain();
        client.send(0).await.unwrap();
        busy.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_full_is_not_waited_for_where_it_may_not_be_used() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let limited = options(|options| options.max_in_flight = Some(1));
    let client = stage.builder(resolve::fixed(["a:1"])).options(limited).build().unwrap();
    client.ready().await.unwrap();
    let _held = tokio::spawn(client.send(0));
    settle().await;
    client.endpoint(Endpoint::new("a:1").identity()).unwrap().drain();
    let refused = tokio::time::timeout(ms(1), client.send(0)).await.unwrap().unwrap_err();
    assert_eq!(Error::find(&*refused).map(Error::reason), Some(Reason::NoEndpoint));
}
