//! What `docs/INTERPLAY.md` says of layers that others wrote.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, error_handling::HandleErrorLayer, routing::get};
use futures::FutureExt as _;
use http::{Request, StatusCode};
use mainstay::{
    Client, Endpoint, Error, Reason,
    backoff::Backoff,
    clock,
    context::{self, Inherited},
    deadline::DeadlineLayer,
    describe::Idempotent,
    limit::{ConcurrencyLimitLayer, ConcurrencyLimitOptions},
    resolve,
    retry::RetryPolicy,
};
use tower::{
    BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _,
    buffer::Buffer,
    limit::ConcurrencyLimit,
    load_shed::LoadShed,
    retry::{Policy, Retry},
    service_fn,
    timeout::Timeout,
    util::BoxCloneSyncService,
};

const MS: Duration = Duration::from_millis(1);

type Answer = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;
type Inner = BoxCloneSyncService<u32, u32, BoxError>;
type Users = Client<Inner, u32>;

/// A client of two endpoints that answer as `answer` does.
fn users(answer: impl Fn(u32) -> Answer + Clone + Send + Sync + 'static) -> Users {
    Client::builder("users")
        .resolve(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
        .connect(move |_: &Endpoint| BoxCloneSyncService::new(service_fn(answer.clone())))
        .describe(Idempotent)
        .retry(RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO)))
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .build()
        .unwrap()
}

/// The same, with what each attempt inherited.
fn noting() -> (Users, Arc<Mutex<Vec<Inherited>>>) {
    let seen = Arc::<Mutex<Vec<Inherited>>>::default();
    let log = seen.clone();
    let users = users(move |n| {
        log.lock().unwrap().push(context::inherited());
        async move { Ok(n) }.boxed()
    });
    (users, seen)
}

/// The same, failing always, with the number of attempts.
fn failing() -> (Users, Arc<AtomicU32>) {
    let attempts = Arc::new(AtomicU32::new(0));
    let count = attempts.clone();
    let users = users(move |_| {
        count.fetch_add(1, SeqCst);
        async { Err("down".into()) }.boxed()
    });
    (users, attempts)
}

fn hanging() -> Users {
    users(|_| futures::future::pending().boxed())
}

#[tokio::test(start_paused = true)]
async fn a_buffer_passes_on_what_is_inherited() {
    let (users, seen) = noting();
    let buffered = Buffer::new(users, 8);
    let soon = clock::now() + MS * 300;
    context::scope(Inherited::default().with_deadline(soon), buffered.oneshot(1)).await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].deadline(), Some(soon));
}

#[tokio::test(start_paused = true)]
async fn load_shed_never_sheds_what_is_always_ready() {
    let users = hanging();
    let mut shedding = LoadShed::new(users.clone());
    let mut waiting = Vec::new();
    for n in 0..1_000 {
        let mut request = Box::pin(shedding.ready().await.unwrap().call(n));
        assert!(request.as_mut().now_or_never().is_none(), "it is neither answered nor shed");
        waiting.push(request);
    }
}

#[tokio::test(start_paused = true)]
async fn a_readied_handle_holds_a_permit_of_towers_limit_and_none_of_ours() {
    let (users, _) = noting();
    let mut towers = ConcurrencyLimit::new(users.clone(), 1);
    let mut idle = towers.clone();
    idle.ready().await.unwrap();
    assert!(towers.ready().now_or_never().is_none(), "nobody calls, and nobody can");

    let layer = ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().limit(1)).unwrap();
    let mut ours = layer.layer(users);
    let mut idle = ours.clone();
    idle.ready().await.unwrap();
    assert_eq!(ours.ready().await.unwrap().call(7).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn towers_timeout_is_inherited_by_nobody() {
    let (users, seen) = noting();
    let start = clock::now();
    Timeout::new(users, MS * 50).oneshot(1).await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].deadline(), Some(start + Duration::from_secs(10)), "the client's own");

    let hanging = hanging();
    let error = Timeout::new(hanging.clone(), MS * 50).oneshot(1).await.unwrap_err();
    assert!(Error::find(&*error).is_none(), "it says nothing of the endpoint");
    assert_eq!(hanging.status().cancelled, 1);
    assert!(hanging.status().balance.endpoints.iter().all(|row| row.failures == 0));
}

/// As often as the number says, whatever the answer.
#[derive(Clone)]
struct Again(u32);

impl Policy<u32, u32, BoxError> for Again {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u32, result: &mut Result<u32, BoxError>) -> Option<Self::Future> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

#[tokio::test(start_paused = true)]
async fn towers_retry_above_a_client_multiplies() {
    let (users, attempts) = failing();
    Retry::new(Again(2), users).oneshot(1).await.unwrap_err();
    assert_eq!(attempts.load(SeqCst), 9);
}

#[tokio::test(start_paused = true)]
async fn a_view_without_retries_leaves_them_to_the_layer_above() {
    let (users, attempts) = failing();
    Retry::new(Again(2), users.max_attempts(1)).oneshot(1).await.unwrap_err();
    assert_eq!(attempts.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_boxed_client_is_the_same_client() {
    let (users, _) = noting();
    let boxed = BoxCloneSyncService::new(users.clone());
    for n in 0..3 {
        assert_eq!(boxed.clone().oneshot(n).await.unwrap(), n);
    }
    assert_eq!(users.status().successes, 3);
}

#[tokio::test(start_paused = true)]
async fn two_services_of_one_layer_share_its_limit() {
    let limit = ConcurrencyLimitOptions::default().limit(1).max_waiting(0);
    let layer = ConcurrencyLimitLayer::new(limit).unwrap();
    let (first, second) = (layer.layer(hanging()), layer.clone().layer(noting().0));
    let mut held = Box::pin(first.oneshot(1));
    assert!(held.as_mut().now_or_never().is_none());
    let refused = second.clone().oneshot(1).await.unwrap_err();
    assert_eq!(Error::find(&*refused).map(Error::reason), Some(Reason::Limit));
    drop(held);
    assert!(second.oneshot(1).await.is_ok());
}

fn ask(path: &str) -> Request<axum::body::Body> {
    Request::get(path).body(axum::body::Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_spawn_in_a_handler_inherits_by_context_spawn_alone() {
    let handler = || async {
        let bare = tokio::spawn(async { context::inherited().deadline().is_some() }).await.unwrap();
        let carried = context::spawn(async { context::inherited().deadline().is_some() }).await.unwrap();
        format!("{bare} {carried}")
    };
    let app = Router::new().route("/", get(handler));
    let inherited = Inherited::default().with_deadline(clock::now() + MS * 300);
    let answer = context::scope(inherited, app.oneshot(ask("/"))).await.unwrap();
    assert_eq!(axum::body::to_bytes(answer.into_body(), 64).await.unwrap(), "false true");
}

#[tokio::test(start_paused = true)]
async fn axum_wants_an_answer_where_our_layers_end_with_an_error() {
    let handler = || futures::future::pending::<&'static str>();
    let errors = HandleErrorLayer::new(|error: BoxError| async move {
        match Error::find(&*error).map(Error::reason) {
            Some(Reason::Deadline) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    });
    let layers = ServiceBuilder::new().layer(errors).layer(DeadlineLayer::new(MS * 20));
    let app = Router::new().route("/", get(handler)).layer(layers);
    let answer: Result<_, Infallible> = app.oneshot(ask("/")).await;
    assert_eq!(answer.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn the_routes_of_a_router_share_the_limit_of_one_layer() {
    let limit =
        ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().limit(1).max_waiting(0)).unwrap();
    let errors = HandleErrorLayer::new(|_: BoxError| async { StatusCode::SERVICE_UNAVAILABLE });
    let app = Router::new()
        .route("/hangs", get(futures::future::pending::<&'static str>))
        .route("/answers", get(|| async { "here" }))
        .layer(ServiceBuilder::new().layer(errors).layer(limit.clone()));
    let mut held = Box::pin(app.clone().oneshot(ask("/hangs")));
    assert!(held.as_mut().now_or_never().is_none());
    assert_eq!(limit.gate().in_flight(), 1);
    assert_eq!(app.clone().oneshot(ask("/answers")).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
    assert_eq!(app.oneshot(ask("/answers")).await.unwrap().status(), StatusCode::OK);
}
