//! Responses that go on after their head.

use std::sync::{Arc, Mutex};

use mainstay::{
    Endpoint,
    balance::{Balance, BalanceBuilder, EndpointStatus},
    describe::Idempotent,
    health::State,
    outcome::Verdict,
    resolve,
    track::{Guard, Track},
};
use tower::{BoxError, util::BoxCloneSyncService};

use crate::stage::*;

/// A response that is still being read.
struct Streamed {
    good: bool,
    guard: Mutex<Option<Guard>>,
}

impl Streamed {
    fn end(self, verdict: Verdict) {
        self.guard.into_inner().unwrap().unwrap().end(verdict);
    }
}

struct InBody;

impl Track<Streamed> for InBody {
    fn track(&self, response: &mut Streamed, guard: Guard) {
        *response.guard.get_mut().unwrap() = Some(guard);
    }
}

type Tracked = Balance<BoxCloneSyncService<bool, Streamed, BoxError>, bool>;

/// Endpoints that answer with a head as good as asked for.
fn client(head: fn(bool) -> Verdict, names: &[&str]) -> Tracked {
    let builder: BalanceBuilder<_, bool> = Balance::builder(resolve::fixed(names.to_vec()));
    builder
        .connect(|_: &Endpoint| {
            BoxCloneSyncService::new(tower::service_fn(|good: bool| async move {
                Ok::<_, BoxError>(Streamed { good, guard: Mutex::new(None) })
            }))
        })
        .classify(move |result: Result<&Streamed, &BoxError>| {
            result.map_or_else(|_| Verdict::failure(), |response| head(response.good))
        })
        .track(InBody)
        .build()
        .unwrap()
}

fn plain(good: bool) -> Verdict {
    if good { Verdict::success() } else { Verdict::failure() }
}

fn provisional(_: bool) -> Verdict {
    Verdict::success().provisional()
}

fn only(client: &Tracked) -> EndpointStatus {
    client.status().endpoints[0].clone()
}

#[tokio::test(start_paused = true)]
async fn in_flight_lasts_to_the_end_of_the_response() {
    let client = client(plain, &["a:1"]);
    let response = client.send(true).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!((only(&client).in_flight, client.in_flight()), (1, 1));
    response.end(Verdict::success());
    assert_eq!((only(&client).in_flight, client.in_flight(), only(&client).successes), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_is_a_failure() {
    let client = client(plain, &["a:1", "b:1"]);
    for _ in 0..20 {
        client.send(true).await.unwrap().end(Verdict::failure());
    }
    settle().await;
    assert!(client.status().endpoints.iter().any(|endpoint| endpoint.word() == "ejected"));
}

#[tokio::test(start_paused = true)]
async fn a_good_response_dropped_early_is_a_success() {
    let client = client(plain, &["a:1"]);
    drop(client.send(true).await.unwrap());
    assert_eq!((only(&client).successes, only(&client).failures, only(&client).in_flight), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_proves_nothing_dropped_early_is_inconclusive() {
    let client = client(provisional, &["a:1"]);
    drop(client.send(true).await.unwrap());
    assert_eq!((only(&client).successes, only(&client).failures, only(&client).in_flight), (0, 0, 0));
    client.send(true).await.unwrap().end(Verdict::success());
    client.send(true).await.unwrap().end(Verdict::failure());
    assert_eq!((only(&client).successes, only(&client).failures, only(&client).in_flight), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_is_counted_once_whatever_its_end() {
    let client = client(plain, &["a:1"]);
    drop(client.send(false).await.unwrap());
    client.send(false).await.unwrap().end(Verdict::failure());
    client.send(false).await.unwrap().end(Verdict::success());
    assert_eq!((only(&client).successes, only(&client).failures, only(&client).in_flight), (0, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_time_at_the_end_is_left_alone_as_well() {
    for head in [plain, provisional] {
        let client = client(head, &["a:1"]);
        client.send(true).await.unwrap().end(Verdict::back_off(Some(secs(7))));
        settle().await;
        assert!(matches!(only(&client).state, State::BackingOff { .. }), "{:?}", only(&client));
        assert_eq!((only(&client).failures, only(&client).in_flight), (0, 0));
        tokio::time::sleep(secs(7) + ms(2)).await;
        assert!(only(&client).is_available());
        client.send(false).await.unwrap().end(Verdict::failure());
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_from_before_an_ejection_says_nothing_after_it() {
    let client = client(plain, &["a:1", "b:1"]);
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(client.send(true).await.unwrap());
    }
    for _ in 0..10 {
        let _ = client.send(false).await;
    }
    tokio::time::sleep(secs(120)).await;
    assert!(client.status().endpoints.iter().all(EndpointStatus::is_available));
    held.into_iter().for_each(|response| response.end(Verdict::failure()));
    settle().await;
    let gone = client.status().endpoints.iter().filter(|endpoint| !endpoint.is_available()).count();
    assert_eq!(gone, 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_after_the_client_is_gone_is_harmless() {
    let client = Arc::new(client(plain, &["a:1"]));
    let response = client.send(true).await.unwrap();
    drop(client);
    tokio::time::sleep(secs(1)).await;
    response.end(Verdict::failure());
}

#[tokio::test(start_paused = true)]
async fn what_began_as_a_probe_ends_as_an_attempt_of_the_state_that_it_has_brought_about() {
    let client = mainstay::Client::<BoxCloneSyncService<bool, Streamed, BoxError>, bool>::builder("users")
        .resolve(resolve::fixed(["a:1", "b:1"]))
        .connect(|_: &Endpoint| {
            BoxCloneSyncService::new(tower::service_fn(|good: bool| async move {
                Ok::<_, BoxError>(Streamed { good, guard: Mutex::new(None) })
            }))
        })
        .describe(Idempotent)
        .balance(options(|options| options.health.consecutive = 2))
        .classify(|result: Result<&Streamed, &BoxError>| {
            result.map_or_else(|_| Verdict::failure(), |response| plain(response.good))
        })
        .track(InBody)
        .build()
        .unwrap();
    client.ready().await.unwrap();
    let [a, b] = ["a:1", "b:1"].map(|name| client.endpoint(Endpoint::new(name).identity()).unwrap());
    a.eject(Some(secs(1)));
    tokio::time::sleep(secs(1) + ms(5)).await;
    let probe = client.send(true).await.unwrap();
    let word = || client.status().balance.endpoints[0].word();
    assert_eq!(word(), "available", "its head was good");
    b.drain();
    probe.end(Verdict::failure());
    client.send(true).await.unwrap().end(Verdict::failure());
    assert_eq!(word(), "ejected", "two in a row");
}
