//! Health per operation: a method that fails at one endpoint only.

use std::{
    collections::BTreeMap,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use mainstay::{
    Describe, Endpoint,
    balance::{BalanceOptions, Load},
    client::ClientBuilder,
    health::{HealthOptions, OperationOptions, State, Trip},
    outcome::Verdict,
    random::Seeded,
    resolve,
    retry::RetryPolicy,
    telemetry::Event,
    track::{Guard, Track},
};
use tower::{BoxError, Service, ServiceExt as _};

use crate::stage::{Conn, Ends, Gate, Heard, Mode, Stage, ms, secs, settle};

/// What servers were asked for, by name and operation, and which of that they fail at.
#[derive(Clone, Debug, Default)]
struct Methods(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    asked: BTreeMap<(String, &'static str), usize>,
    fails: Vec<(String, &'static str)>,
    hangs: Vec<(String, &'static str)>,
}

impl Methods {
    fn fail(&self, server: &str, operations: &[&'static str]) {
        let mut book = self.0.lock().unwrap();
        book.fails.extend(operations.iter().map(|operation| (server.to_owned(), *operation)));
    }

    fn hang(&self, server: &str, operation: &'static str) {
        self.0.lock().unwrap().hangs.push((server.to_owned(), operation));
    }

    fn heal(&self) {
        let mut book = self.0.lock().unwrap();
        (book.fails, book.hangs) = (Vec::new(), Vec::new());
    }

    fn asked(&self, server: &str, operation: &'static str) -> usize {
        self.0.lock().unwrap().asked.get(&(server.to_owned(), operation)).copied().unwrap_or(0)
    }

    fn forget(&self) {
        self.0.lock().unwrap().asked.clear();
    }
}

/// The service of one server. A request is the name of its operation.
#[derive(Clone, Debug)]
struct Server(Methods, String);

impl Service<&'static str> for Server {
    type Response = String;
    type Error = BoxError;
    type Future = futures::future::Either<
        Ready<Result<String, BoxError>>,
        std::future::Pending<Result<String, BoxError>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, operation: &'static str) -> Self::Future {
        let mut book = self.0.0.lock().unwrap();
        let key = (self.1.clone(), operation);
        *book.asked.entry(key.clone()).or_default() += 1;
        if book.hangs.contains(&key) {
            return futures::future::Either::Right(std::future::pending());
        }
        let failed = book.fails.contains(&key);
        let answer = if failed { Err("failed".into()) } else { Ok(self.1.clone()) };
        futures::future::Either::Left(ready(answer))
    }
}

/// A request is its operation, and may be repeated.
#[derive(Debug)]
struct ByName;

impl Describe<&'static str> for ByName {
    fn copy(&self, request: &mut &'static str) -> Option<&'static str> {
        Some(*request)
    }

    fn is_idempotent(&self, _: &&'static str) -> bool {
        true
    }

    fn operation<'a>(&self, request: &'a &'static str) -> Option<&'a str> {
        (!request.is_empty()).then_some(*request)
    }
}

type Client = mainstay::Client<Server, &'static str>;

const FIVE: [&str; 5] = ["a:1", "b:1", "c:1", "d:1", "e:1"];

fn health(change: impl FnOnce(&mut HealthOptions)) -> BalanceOptions {
    let mut options = BalanceOptions::default();
    // Picks do not shun failures by themselves, so that every endpoint goes on being tried.
    options.load = Load::InFlight;
    options.health.per_operation = Some(OperationOptions::default());
    change(&mut options.health);
    options
}

fn builder(
    methods: &Methods,
    names: &[&str],
    options: BalanceOptions,
) -> ClientBuilder<Server, &'static str> {
    let methods = methods.clone();
    Client::builder("users")
        .resolve(resolve::fixed(names.to_vec()))
        .connect(move |endpoint: &Endpoint| Server(methods.clone(), endpoint.address().to_string()))
        .describe(ByName)
        .balance(options)
        // Only what would be sent again may be offered to an endpoint that must prove itself.
        .retry(RetryPolicy::default().max_attempts(2))
        .random(Seeded::new(7))
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

struct Scene {
    methods: Methods,
    heard: Heard,
    client: Client,
}

impl Scene {
    fn of(names: &[&str], options: BalanceOptions) -> Self {
        let (methods, heard) = (Methods::default(), Heard::default());
        let client = builder(&methods, names, options).observe(heard.observer()).build().unwrap();
        Self { methods, heard, client }
    }

    /// Sends so many rounds of these operations, one request after the other.
    async fn send(&self, operations: &[&'static str], rounds: usize) {
        for _ in 0..rounds {
            for operation in operations {
                let _ = self.client.send(operation).await;
            }
        }
        settle().await;
    }

    /// The operations that `name` is without.
    fn without(&self, name: &str) -> Vec<(String, State)> {
        let status = self.client.status().balance;
        let row = status.endpoints.iter().find(|row| &*row.name == name).unwrap();
        row.operations.iter().map(|operation| (operation.name.to_string(), operation.state)).collect()
    }

    fn word(&self, name: &str) -> &'static str {
        let status = self.client.status().balance;
        status.endpoints.iter().find(|row| &*row.name == name).unwrap().word()
    }

    fn out(&self, operation: &str) -> usize {
        FIVE.iter().filter(|name| self.without(name).iter().any(|(own, _)| own == operation)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_fails_at_one_of_five_is_kept_from_it_and_its_other_methods_keep_their_share() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put", "list"], 200).await;
    assert!(matches!(
        scene.without("a:1").as_slice(),
        [(name, State::Ejected { why: Trip::Consecutive, .. })] if name == "get"
    ));
    assert_eq!(scene.methods.asked("a:1", "get"), 5, "as many as it takes, and no more");
    assert_eq!((scene.word("a:1"), scene.heard.count("ejected")), ("available", 0));
    scene.methods.forget();
    scene.send(&["get", "put", "list"], 1_000).await;
    assert_eq!(scene.methods.asked("a:1", "get"), 0);
    for other in ["put", "list"] {
        let share = scene.methods.asked("a:1", other);
        assert!((150..250).contains(&share), "{share} of 1,000 of {other}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_option_the_endpoint_goes_as_a_whole() {
    let scene = Scene::of(&FIVE, health(|health| health.per_operation = None));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put", "list"], 200).await;
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("ejected", 0));
    assert!(scene.client.status().balance.operations.is_none());
}

#[tokio::test(start_paused = true)]
async fn after_the_trip_at_most_probes_of_it_arrive_and_the_times_double() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    scene.methods.forget();
    // 5, 10, 20 and 40 s at most: at least a probe for each.
    for _ in 0..80 {
        tokio::time::sleep(secs(1)).await;
        scene.send(&["get", "put"], 20).await;
    }
    let probes = scene.methods.asked("a:1", "get");
    assert!((3..=6).contains(&probes), "{probes} of 1,600");
    let lasts: Vec<Duration> = scene
        .heard
        .all()
        .into_iter()
        .filter_map(|event| match event {
            Event::OperationEjected { lasts, .. } => Some(lasts),
            _ => None,
        })
        .collect();
    assert_eq!(lasts.len(), probes + 1);
    for (nth, lasts) in lasts.iter().enumerate() {
        let most = secs(5) * 2_u32.pow(nth as u32);
        assert!(*lasts <= most && *lasts >= most / 2, "{lasts:?} of {most:?}");
    }
    assert_eq!((scene.word("a:1"), scene.heard.count("ejected")), ("available", 0));
}

#[tokio::test(start_paused = true)]
async fn one_good_probe_brings_the_method_back_and_events_tell_each_step() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    scene.methods.heal();
    scene.methods.forget();
    tokio::time::sleep(secs(5) + ms(5)).await;
    assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Probation { .. })]));
    scene.send(&["get"], 1).await;
    assert_eq!(scene.methods.asked("a:1", "get"), 1, "it was offered to it first");
    assert!(scene.without("a:1").is_empty());
    let told: Vec<String> = scene
        .heard
        .all()
        .iter()
        .filter(|event| event.kind().starts_with("operation"))
        .map(ToString::to_string)
        .collect();
    assert!(
        told[0].starts_with("a:1: get is kept from it for")
            && told[0].ends_with("too many failures in a row")
    );
    assert_eq!(told[1..], ["a:1: waits for a request of get that proves it", "a:1: get is back, proven"]);
    scene.send(&["get"], 500).await;
    assert!(scene.methods.asked("a:1", "get") > 50);
}

#[tokio::test(start_paused = true)]
async fn with_no_request_of_it_for_thirty_seconds_it_returns_by_timers_alone() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    tokio::time::sleep(secs(36)).await;
    assert!(scene.without("a:1").is_empty());
    assert!(
        scene.heard.all().iter().any(|event| matches!(event, Event::OperationRestored { proven: false, .. }))
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_where_everything_fails_goes_as_a_whole() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.send(&["get", "put", "list"], 20).await;
    scene.methods.fail("a:1", &["get", "put", "list"]);
    scene.send(&["get", "put", "list"], 100).await;
    assert_eq!(scene.word("a:1"), "ejected");
    let asked: usize = ["get", "put", "list"].iter().map(|own| scene.methods.asked("a:1", own)).sum();
    scene.methods.forget();
    scene.send(&["get", "put", "list"], 100).await;
    let after: usize = ["get", "put", "list"].iter().map(|own| scene.methods.asked("a:1", own)).sum();
    assert!(after == 0 && asked < 60, "{asked}, {after}");
}

#[tokio::test(start_paused = true)]
async fn where_only_one_method_is_used_the_endpoint_goes_as_it_always_did() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.send(&["get"], 50).await;
    scene.methods.forget();
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get"], 200).await;
    assert_eq!((scene.word("a:1"), scene.methods.asked("a:1", "get")), ("ejected", 5));
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_costs_one_failure_more_where_one_method_is_most_of_the_traffic() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.send(&["get", "put"], 50).await;
    scene.methods.fail("a:1", &["get", "put"]);
    scene.methods.forget();
    scene.send(&["get"], 100).await;
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("available", 1));
    scene.send(&["put"], 100).await;
    assert_eq!((scene.word("a:1"), scene.methods.asked("a:1", "put")), ("ejected", 1));
}

#[tokio::test(start_paused = true)]
async fn two_methods_that_fail_there_one_after_the_other_do_not_take_the_third_with_them() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    for broken in ["get", "put"] {
        scene.methods.fail("a:1", &[broken]);
        scene.send(&["list", "get", "list", "put"], 100).await;
    }
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("available", 2));
    assert_eq!(scene.heard.count("ejected"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_method_that_fails_everywhere_is_set_aside_at_half_of_them_and_takes_no_endpoint_with_it() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    FIVE.iter().for_each(|name| scene.methods.fail(name, &["get"]));
    scene.send(&["put", "get"], 500).await;
    assert_eq!((scene.out("get"), scene.heard.count("ejected")), (3, 0), "half of five, rounded up");
    scene.methods.forget();
    scene.send(&["put"], 500).await;
    for name in FIVE {
        assert!(scene.methods.asked(name, "put") > 50, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_is_a_preference_and_not_a_ban() {
    let scene = Scene::of(&["a:1", "b:1"], health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    assert_eq!(scene.without("a:1").len(), 1);
    let status = scene.client.status().balance;
    let b = status.endpoints.iter().find(|row| &*row.name == "b:1").unwrap();
    assert!(scene.client.endpoint(b.endpoint.identity()).unwrap().drain());
    scene.methods.heal();
    settle().await;
    let before = crate::stage::now();
    assert_eq!(scene.client.send("get").await.unwrap(), "a:1");
    assert_eq!(crate::stage::now(), before, "it did not wait for the time of its probe");
}

#[tokio::test(start_paused = true)]
async fn more_operations_than_there_is_room_for_share_the_endpoints_health_and_the_status_says_so() {
    let options =
        |health: &mut HealthOptions| health.per_operation = Some(OperationOptions::default().most(2));
    let scene = Scene::of(&FIVE, health(options));
    scene.methods.fail("a:1", &["late"]);
    scene.send(&["get", "put"], 20).await;
    assert!(!scene.client.status().balance.operations.unwrap().overflowed);
    scene.send(&["get", "put", "late"], 200).await;
    let operations = scene.client.status().balance.operations.unwrap();
    assert_eq!((operations.known, operations.most, operations.overflowed), (2, 2, true));
    assert_eq!(scene.word("a:1"), "ejected");
    assert!(
        scene.client.explain().remarks.iter().any(|remark| remark.contains("more operations than the 2"))
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_no_health_of_its_own_shows_that_an_endpoint_is_well_for_others() {
    let most = |health: &mut HealthOptions| health.per_operation = Some(OperationOptions::default().most(1));
    for other in ["put", ""] {
        let scene = Scene::of(&FIVE, health(most));
        scene.send(&["get"], 1).await;
        scene.methods.fail("a:1", &["get"]);
        scene.send(&["get", other], 200).await;
        assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("available", 1), "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn room_for_more_operations_is_not_said_to_be_too_little() {
    let most =
        |most: u32| health(|health| health.per_operation = Some(OperationOptions::default().most(most)));
    let scene = Scene::of(&FIVE, most(2));
    let update = |balance: BalanceOptions| {
        let mut options = scene.client.options();
        options.balance = balance;
        scene.client.update(options).unwrap();
    };
    let told = || {
        let operations = scene.client.status().balance.operations.unwrap();
        (operations.known, operations.overflowed)
    };
    scene.send(&["get", "put", "list"], 1).await;
    assert_eq!(told(), (2, true));
    update(most(8));
    scene.send(&["get", "put", "list"], 1).await;
    assert_eq!(told(), (3, false));
    update(most(1));
    scene.send(&["get", "put", "list"], 1).await;
    assert_eq!(told(), (1, true));
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_operation_share_the_endpoints_health() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &[""]);
    scene.send(&["get", ""], 200).await;
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("ejected", 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_passes_to_the_next_request() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    scene.methods.heal();
    scene.methods.hang("a:1", "get");
    tokio::time::sleep(secs(5) + ms(5)).await;
    let mut cancelled = Box::pin(scene.client.send("get"));
    assert!(poll_once(cancelled.as_mut()).is_pending());
    assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Probing { .. })]));
    drop(cancelled);
    assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Probation { .. })]));
    // And one that is dropped before it is polled never had it.
    drop(scene.client.send("get"));
    scene.methods.heal();
    assert_eq!(scene.client.send("get").await.unwrap(), "a:1");
    assert!(scene.without("a:1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_a_failure_of_the_method_alone_within_its_own_limit() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    scene.methods.heal();
    scene.methods.hang("a:1", "get");
    tokio::time::sleep(secs(5) + ms(5)).await;
    let began = crate::stage::now();
    assert_ne!(scene.client.send("get").await.unwrap(), "a:1", "tried elsewhere after that");
    let took = crate::stage::now() - began;
    assert!(took >= secs(1) && took < secs(1) + ms(100), "{took:?}");
    assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Ejected { .. })]));
    assert_eq!(scene.word("a:1"), "available");
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_is_tried_elsewhere_and_costs_no_budget() {
    let methods = Methods::default();
    let client = builder(&methods, &FIVE, health(|_| ()))
        .retry(RetryPolicy::default().max_attempts(3))
        .budget(mainstay::budget::BudgetOptions::default().share(mainstay::Ratio::ZERO).reserve(0))
        .build()
        .unwrap();
    methods.fail("a:1", &["get"]);
    for _ in 0..100 {
        let _ = (client.send("get").await, client.send("put").await);
    }
    methods.forget();
    tokio::time::sleep(secs(5) + ms(5)).await;
    assert!(client.send("get").await.is_ok());
    assert_eq!(methods.asked("a:1", "get"), 1, "the probe");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_would_repeat_is_no_probe_of_its_method() {
    let methods = Methods::default();
    let once = RetryPolicy::default().max_attempts(1);
    let client = builder(&methods, &FIVE, health(|_| ())).retry(once).build().unwrap();
    methods.fail("a:1", &["get"]);
    for _ in 0..100 {
        let _ = (client.send("get").await, client.send("put").await);
    }
    methods.forget();
    tokio::time::sleep(secs(5) + ms(5)).await;
    for _ in 0..50 {
        assert!(client.send("get").await.is_ok());
    }
    assert_eq!(methods.asked("a:1", "get"), 0, "without a copy");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_probe_of_its_method_at_one_endpoint_alone() {
    let methods = Methods::default();
    let policy = RetryPolicy::default().max_attempts(3);
    let client = builder(&methods, &FIVE, health(|_| ())).retry(policy).build().unwrap();
    methods.fail("a:1", &["get"]);
    methods.fail("b:1", &["get"]);
    for _ in 0..200 {
        let _ = (client.send("get").await, client.send("put").await);
    }
    methods.forget();
    tokio::time::sleep(secs(5) + ms(5)).await;
    for probes in 1..=2 {
        assert!(client.send("get").await.is_ok());
        assert_eq!(methods.asked("a:1", "get") + methods.asked("b:1", "get"), probes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_is_not_probed_at_an_endpoint_that_is_out_as_a_whole() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 200).await;
    assert_eq!(scene.without("a:1").len(), 1);
    let hand = scene.client.endpoint(Endpoint::new("a:1").identity()).unwrap();
    assert!(hand.eject(Some(secs(60))));
    scene.methods.forget();
    tokio::time::sleep(secs(5) + ms(5)).await;
    scene.send(&["get"], 50).await;
    assert_eq!(scene.methods.asked("a:1", "get"), 0);
}

#[tokio::test(start_paused = true)]
async fn it_is_turned_on_and_off_while_the_client_runs() {
    let scene = Scene::of(&FIVE, health(|health| health.per_operation = None));
    let on = |on: bool| {
        let mut options = scene.client.options();
        options.balance = health(|health| health.per_operation = on.then(OperationOptions::default));
        scene.client.update(options).unwrap();
    };
    scene.send(&["get", "put"], 50).await;
    on(true);
    scene.send(&["get", "put"], 50).await;
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("available", 1));
    on(false);
    settle().await;
    assert!(scene.without("a:1").is_empty() && scene.heard.count("operation_restored") == 1);
    scene.send(&["get", "put"], 100).await;
    assert_eq!(scene.word("a:1"), "ejected");
}

#[tokio::test(start_paused = true)]
async fn when_health_is_switched_off_a_method_that_is_set_aside_comes_back() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.send(&["get", "put"], 50).await;
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    assert_eq!(scene.without("a:1").len(), 1);
    let mut options = scene.client.options();
    options.balance = health(|health| health.enabled = false);
    scene.client.update(options).unwrap();
    settle().await;
    assert!(scene.without("a:1").is_empty() && scene.heard.count("operation_restored") == 1);
}

#[tokio::test(start_paused = true)]
async fn the_status_and_the_explanation_say_which_where_why_since_when_and_what_next() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    tokio::time::sleep(secs(1)).await;
    let remarks = scene.client.explain().remarks;
    let told = remarks.iter().find(|remark| remark.contains("is without")).unwrap();
    assert!(told.starts_with("a:1 is without get ejected for 1"), "{told}");
    assert!(told.contains("too many failures in a row; in ") && told.ends_with("is offered to it"), "{told}");
    let status = scene.client.status().balance;
    let row = status.endpoints.iter().find(|row| &*row.name == "a:1").unwrap();
    assert!(row.explain(mainstay::clock::now()).contains("get ejected for 1"));
}

#[tokio::test(start_paused = true)]
async fn the_balancer_alone_does_the_same() {
    let methods = Methods::default();
    let own = methods.clone();
    let balance = mainstay::balance::Balance::builder(resolve::fixed(FIVE.to_vec()))
        .connect(move |endpoint: &Endpoint| Server(own.clone(), endpoint.address().to_string()))
        .describe(ByName)
        .options(health(|_| ()))
        .random(Seeded::new(7))
        .build()
        .unwrap();
    methods.fail("a:1", &["get"]);
    for _ in 0..200 {
        let _ = (balance.send("get").await, balance.send("put").await);
    }
    assert_eq!(methods.asked("a:1", "get"), 5);
    assert!(methods.asked("a:1", "put") > 20);
}

#[tokio::test(start_paused = true)]
async fn comparison_does_not_count_what_a_method_did_before_it_was_set_aside() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    for _ in 0..60 {
        tokio::time::sleep(secs(1)).await;
        scene.send(&["get", "put"], 50).await;
    }
    assert_eq!((scene.word("a:1"), scene.heard.count("ejected")), ("available", 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_method_was_set_aside_for_is_not_held_against_the_endpoint_when_another_fails_now_and_then() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["put"], 1).await;
    while scene.without("a:1").is_empty() {
        scene.send(&["put", "get"], 1).await;
    }
    let served = || scene.methods.asked("a:1", "put");
    // With the failures of `get` it would be more than a fifth, and six of the last twenty.
    for round in 0..3 {
        let before = served();
        for _ in 0..1_000 {
            if served() >= before + 3 {
                break;
            }
            scene.send(&["put"], 1).await;
        }
        if round < 2 {
            scene.methods.fail("a:1", &["put"]);
            let before = served();
            for _ in 0..1_000 {
                if served() > before {
                    break;
                }
                scene.send(&["put"], 1).await;
            }
            scene.methods.heal();
        }
    }
    assert_eq!((scene.word("a:1"), scene.heard.count("ejected")), ("available", 0));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_set_aside_there_does_not_decide_over_the_return_of_the_whole_endpoint() {
    let scene = Scene::of(&FIVE, health(|_| ()));
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    scene.methods.forget();
    let status = scene.client.status().balance;
    let a = status.endpoints.iter().find(|row| &*row.name == "a:1").unwrap();
    assert!(scene.client.endpoint(a.endpoint.identity()).unwrap().eject(Some(secs(1))));
    tokio::time::sleep(secs(1) + ms(5)).await;
    scene.send(&["get"], 10).await;
    assert_eq!((scene.word("a:1"), scene.methods.asked("a:1", "get")), ("probation", 0));
    scene.send(&["put"], 1).await;
    assert_eq!((scene.word("a:1"), scene.methods.asked("a:1", "put")), ("available", 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_makes_the_endpoint_look_no_slower_to_other_methods() {
    let mut options = health(|_| ());
    options.load = Load::default();
    let scene = Scene::of(&FIVE, options);
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["put"], 1).await;
    while scene.without("a:1").is_empty() {
        scene.send(&["put", "get"], 1).await;
        tokio::time::sleep(ms(100)).await;
    }
    scene.methods.heal();
    scene.methods.hang("a:1", "get");
    tokio::time::sleep(secs(5) + ms(5)).await;
    scene.send(&["get"], 1).await;
    assert_eq!(scene.methods.asked("a:1", "put").min(1), 1);
    assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Ejected { .. })]));
    let status = scene.client.status().balance;
    let a = status.endpoints.iter().find(|row| &*row.name == "a:1").unwrap();
    assert!(a.estimate.is_none_or(|estimate| estimate < ms(100)), "{:?}", a.estimate);
}

#[tokio::test(start_paused = true)]
async fn what_the_end_of_a_response_shows_counts_for_its_operation() {
    /// A response that says so breaks off at its end.
    struct Breaks;

    impl Track<String> for Breaks {
        fn track(&self, response: &mut String, guard: Guard) {
            if response == "broken" {
                guard.end(Verdict::failure());
            }
        }
    }

    let methods = Methods::default();
    let own = methods.clone();
    let balance = mainstay::balance::Balance::builder(resolve::fixed(FIVE.to_vec()))
        .connect(move |endpoint: &Endpoint| {
            let server = Server(own.clone(), endpoint.address().to_string());
            server.map_result(|result: Result<String, BoxError>| {
                Ok::<_, BoxError>(result.unwrap_or_else(|_| "broken".into()))
            })
        })
        .describe(ByName)
        .track(Breaks)
        .options(health(|_| ()))
        .random(Seeded::new(7))
        .build()
        .unwrap();
    methods.fail("a:1", &["get"]);
    for _ in 0..200 {
        let _ = (balance.send("get").await, balance.send("put").await);
    }
    let status = balance.status();
    let a = status.endpoints.iter().find(|row| &*row.name == "a:1").unwrap();
    assert_eq!((a.word(), a.operations.len(), methods.asked("a:1", "get")), ("available", 1, 5));
}

#[tokio::test(start_paused = true)]
async fn where_heads_prove_nothing_the_end_of_a_probe_decides_over_its_method() {
    for (end, word) in
        [(Some(Verdict::success()), "back"), (Some(Verdict::failure()), "ejected"), (None, "probation")]
    {
        let (methods, ends) = (Methods::default(), Ends::default());
        let client = builder(&methods, &FIVE, health(|_| ()))
            .classify(|result: Result<&String, &BoxError>| match result {
                Ok(_) => Verdict::success().provisional(),
                Err(_) => Verdict::failure(),
            })
            .track(ends.clone())
            .build()
            .unwrap();
        let scene = Scene { methods, heard: Heard::default(), client };
        scene.methods.fail("a:1", &["get"]);
        scene.send(&["get", "put"], 100).await;
        scene.methods.heal();
        tokio::time::sleep(secs(5) + ms(5)).await;
        ends.keep(true);
        assert_eq!(scene.client.send("get").await.unwrap(), "a:1");
        assert!(matches!(scene.without("a:1").as_slice(), [(_, State::Probing { .. })]));
        let kept = ends.take().pop().unwrap();
        match end {
            Some(verdict) => kept.end(verdict),
            None => drop(kept),
        }
        let found = match scene.without("a:1").as_slice() {
            [] => "back",
            [(_, State::Ejected { .. })] => "ejected",
            [(_, State::Probation { .. })] => "probation",
            _ => "else",
        };
        assert_eq!((found, scene.word("a:1")), (word, "available"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_began_before_the_whole_endpoint_was_set_aside_is_not_held_against_its_method() {
    let (methods, ends) = (Methods::default(), Ends::default());
    let client = builder(&methods, &["a:1", "b:1"], health(|_| ())).track(ends.clone()).build().unwrap();
    let scene = Scene { methods, heard: Heard::default(), client };
    ends.keep(true);
    scene.send(&["get"], 40).await;
    let hand = scene.client.endpoint(Endpoint::new("a:1").identity()).unwrap();
    assert!(hand.eject(Some(secs(60))) && hand.restore());
    // Until it has its share again.
    tokio::time::sleep(secs(11)).await;
    ends.keep(false);
    scene.send(&["put"], 40).await;
    let of_a = |guard: &Guard| guard.endpoint().is_some_and(|name| &**name == "a:1");
    ends.take().into_iter().filter(of_a).for_each(|guard| guard.end(Verdict::failure()));
    settle().await;
    assert_eq!((scene.word("a:1"), scene.without("a:1").len()), ("available", 0));
}

#[tokio::test(start_paused = true)]
async fn a_method_is_still_kept_from_an_endpoint_that_was_away_for_a_while() {
    let (methods, (feed, channel)) = (Methods::default(), crate::stage::fed(FIVE));
    let mut options = health(|_| ());
    options.slow_start.lasts = Duration::ZERO;
    let client = builder(&methods, &FIVE, options).resolve(channel).build().unwrap();
    let scene = Scene { methods, heard: Heard::default(), client };
    scene.methods.fail("a:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    for names in [&FIVE[1..], &FIVE] {
        feed.set(names.to_vec());
        settle().await;
    }
    scene.methods.forget();
    scene.send(&["get"], 200).await;
    assert_eq!((scene.without("a:1").len(), scene.methods.asked("a:1", "get")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_cap_of_a_method_is_of_those_endpoints_that_are_there() {
    let (methods, (feed, channel)) = (Methods::default(), crate::stage::fed(FIVE));
    let client = builder(&methods, &FIVE, health(|_| ())).resolve(channel).build().unwrap();
    let scene = Scene { methods, heard: Heard::default(), client };
    for name in ["a:1", "b:1", "c:1"] {
        scene.methods.fail(name, &["get"]);
    }
    scene.send(&["get", "put"], 200).await;
    assert_eq!(scene.out("get"), 3);
    feed.set(["d:1", "e:1"]);
    settle().await;
    scene.methods.fail("d:1", &["get"]);
    scene.send(&["get", "put"], 100).await;
    assert_eq!(scene.without("d:1").len(), 1, "those that are away take nobody's room");
}

/// Even numbers get, odd ones put.
#[derive(Debug)]
struct ByNumber;

impl Describe<u32> for ByNumber {
    fn copy(&self, request: &mut u32) -> Option<u32> {
        Some(*request)
    }

    fn is_idempotent(&self, _: &u32) -> bool {
        true
    }

    fn operation<'a>(&self, request: &'a u32) -> Option<&'a str> {
        Some(if request.is_multiple_of(2) { "get" } else { "put" })
    }
}

fn of_numbers(stage: &Stage) -> mainstay::Client<Conn, u32> {
    mainstay::Client::builder("users")
        .resolve(resolve::fixed(["a:1", "b:1"]))
        .connect(stage.connect())
        .describe(ByNumber)
        .balance(health(|_| ()))
        .retry(RetryPolicy::default().max_attempts(2))
        .random(Seeded::new(7))
        .build()
        .unwrap()
}

/// Has `get` fail at the first of two until it is kept from it.
async fn keep_from_first(stage: &Stage, client: &mainstay::Client<Conn, u32>) {
    for number in 0..100 {
        stage.server("a:1").set(if number % 2 == 0 { Mode::Fail(ms(1)) } else { Mode::Answer(ms(1)) });
        let _ = client.send(number).await;
    }
    settle().await;
    assert_eq!((words(client), without(client)), (["available"; 2], [1, 0]));
    stage.server("a:1").set(Mode::Answer(ms(1)));
}

fn words(client: &mainstay::Client<Conn, u32>) -> [&'static str; 2] {
    let endpoints = client.status().balance.endpoints;
    [0, 1].map(|place| endpoints[place].word())
}

fn without(client: &mainstay::Client<Conn, u32>) -> [usize; 2] {
    let endpoints = client.status().balance.endpoints;
    [0, 1].map(|place| endpoints[place].operations.len())
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_method_at_an_endpoint_that_is_not_ready_passes_to_the_next_request() {
    let stage = Stage::default();
    let client = of_numbers(&stage);
    keep_from_first(&stage, &client).await;
    let a = stage.server("a:1");
    a.gate(Gate::Shut);
    tokio::time::sleep(secs(5) + ms(5)).await;
    for _ in 0..5 {
        assert_eq!(client.send(0).await.unwrap(), "b:1");
    }
    a.gate(Gate::Open);
    assert_eq!(client.send(0).await.unwrap(), "a:1");
    assert_eq!(without(&client), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_endpoint_that_is_not_ready_is_an_attempt_of_its_method() {
    let stage = Stage::default();
    let client = of_numbers(&stage);
    for number in 0..20 {
        client.send(2 * number + 1).await.unwrap();
    }
    let (a, b) = (stage.server("a:1"), stage.server("b:1"));
    a.set(Mode::Fail(ms(1)));
    b.gate(Gate::Shut);
    for number in 0..5 {
        a.gate(Gate::Shut);
        let waits = tokio::spawn(client.send(2 * number));
        settle().await;
        a.gate(Gate::Open);
        tokio::time::sleep(ms(5)).await;
        waits.abort();
        settle().await;
    }
    assert_eq!((a.served() > 0, words(&client), without(&client)), (true, ["available"; 2], [1, 0]));
}
