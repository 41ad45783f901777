//! The client for HTTP over hyper, with good defaults.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderName, Request, Response};
use ::hyper::body::Incoming;
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

use super::{Body, Connector, ConnectorOptions, Transport};
use crate::{
    balance::{BalanceOptions, BodyOptions, SharedHealth},
    breaker::{BreakerHandle, BreakerOptions},
    budget::{Budget, BudgetOptions},
    client::{ClientOptions, ClientStatus, Explanation, ResponseFuture},
    error::Error,
    hedge::HedgeOptions,
    http::{BodyTrack, Classifier, Description, DescriptionOptions, HttpCheck, Replay, Tracked},
    invalid::{Check, Invalid},
    limit::{ConcurrencyLimitOptions, rate::RateLimitOptions, throttle::ThrottleOptions},
    outcome::Classify,
    random::Random,
    resolve::Resolve,
    retry::RetryPolicy,
    telemetry::Observer,
};

/// The header that tells a server which attempt it is looking at, from the second on.
const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt-count");

type Sent = Request<Replay<Body>>;
type Inner = crate::Client<Transport<Replay<Body>>, Sent>;

/// The future of [`Client`].
pub type ClientFuture = ResponseFuture<Transport<Replay<Body>>, Sent>;

/// An HTTP client over the instances behind a name.
///
/// ```no_run
/// use bytes::Bytes;
/// use http_body_util::{BodyExt as _, Empty};
///
/// # async fn example() -> Result<(), tower::BoxError> {
/// let users = mainstay::hyper::Client::builder("users")
///     .resolve(mainstay::resolve::fixed(["10.0.0.1:8080", "10.0.0.2:8080"]))
///     .build()?;
/// let response = users.send(http::Request::get("http://users.internal/1").body(Empty::<Bytes>::new())?).await?;
/// println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
/// # Ok(())
/// # }
/// ```
///
/// One client sends requests with bodies of any kind. Requests keep the URI and `Host` that the caller wrote, whichever endpoint is dialled. Their bodies stream through; a
/// copy of up to 64 KiB is kept for retries of requests that can be repeated. Responses stream, too, and count as in
/// flight until their body ends or is dropped.
pub struct Client {
    inner: Inner,
    replayed: usize,
}

impl Client {
    /// Begins to build a client. `label` names it in errors, events and metrics.
    pub fn builder(label: impl Into<Arc<str>>) -> ClientBuilder {
        let inner = Inner::builder(label).classify(Classifier).track(BodyTrack);
        ClientBuilder {
            inner,
            connector: ConnectorOptions::default(),
            replayed: Replay::<Body>::LIMIT,
            description: DescriptionOptions::default().attempt_header(ATTEMPT),
        }
    }

    /// Sends `request`. The future does nothing until it is polled; dropping it cancels the request.
    pub fn send<B>(&self, request: Request<B>) -> ClientFuture
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.inner.send(request.map(|body| Replay::with_limit(Body::new(body), self.replayed)))
    }

    /// A view for one method: the same endpoints, health and budget. `operation` names it in traces.
    #[must_use]
    pub fn method(&self, operation: impl Into<Arc<str>>) -> Self {
        Self { inner: self.inner.method(operation), replayed: self.replayed }
    }

    /// The same view with another total deadline; zero refuses every request.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { inner: self.inner.deadline(deadline), replayed: self.replayed }
    }

    /// The same view for requests that may be processed twice, whatever their method.
    #[must_use]
    pub fn idempotent(self) -> Self {
        Self { inner: self.inner.idempotent(), replayed: self.replayed }
    }

    /// The same view for requests that must not be processed twice, whatever their method.
    #[must_use]
    pub fn not_idempotent(self) -> Self {
        Self { inner: self.inner.not_idempotent(), replayed: self.replayed }
    }

    /// The same view with another number of attempts in all; 0 and 1 mean no retry.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        Self { inner: self.inner.max_attempts(attempts), replayed: self.replayed }
    }

    /// The same view behind a breaker of its own, which all its clones share.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn guarded_by(self, options: BreakerOptions) -> Result<Self, Invalid> {
        Ok(Self { inner: self.inner.guarded_by(options)?, replayed: self.replayed })
    }

    /// The breaker of this view, or the client's if the view has none of its own.
    pub fn breaker(&self) -> Option<BreakerHandle> {
        self.inner.breaker()
    }

    /// Waits until there is a connected endpoint that may be given requests.
    ///
    /// # Errors
    /// As [`Client::ready`](crate::Client::ready).
    pub async fn ready(&self) -> Result<(), Error> {
        self.inner.ready().await
    }

    /// Refuses new requests, waits for those in flight, and ends the background task; see
    /// [`Client::close`](crate::Client::close).
    pub async fn close(&self, within: Duration) -> bool {
        self.inner.close(within).await
    }

    /// Replaces the options: all of them, or none if they do not hold together. All state is kept.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn update(&self, options: ClientOptions) -> Result<(), Invalid> {
        self.inner.update(options)
    }

    /// The options that are in force.
    pub fn options(&self) -> ClientOptions {
        self.inner.options()
    }

    /// What the client knows, does and has done.
    pub fn status(&self) -> ClientStatus {
        self.inner.status()
    }

    /// The stack in effect: every option, where its value comes from, and the worst that a request can meet.
    pub fn explain(&self) -> Explanation {
        self.inner.explain()
    }

    /// Has `observer` told about everything that happens from now on.
    pub fn observe(&self, observer: impl Observer) {
        self.inner.observe(observer);
    }
}

impl<B> Service<Request<B>> for Client
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Tracked<Incoming>>;
    type Error = BoxError;
    type Future = ClientFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.send(request)
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), replayed: self.replayed }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Builds a [`Client`].
pub struct ClientBuilder {
    inner: crate::client::ClientBuilder<Transport<Replay<Body>>, Sent>,
    connector: ConnectorOptions,
    replayed: usize,
    description: DescriptionOptions,
}

impl ClientBuilder {
    fn with(
        mut self,
        change: impl FnOnce(
            crate::client::ClientBuilder<Transport<Replay<Body>>, Sent>,
        ) -> crate::client::ClientBuilder<Transport<Replay<Body>>, Sent>,
    ) -> Self {
        self.inner = change(self.inner);
        self
    }

    /// What tells the endpoints. Needed.
    #[must_use]
    pub fn resolve(self, resolver: impl Resolve) -> Self {
        self.with(|inner| inner.resolve(resolver))
    }

    /// How connections are made and kept.
    #[must_use]
    pub fn connector(mut self, options: ConnectorOptions) -> Self {
        self.connector = options;
        self
    }

    /// How many bytes of a request's body are kept to be sent again \[64 KiB\]. Larger bodies are sent once.
    #[must_use]
    pub fn replayed_body(mut self, bytes: usize) -> Self {
        self.replayed = bytes;
        self
    }

    /// What is written onto requests \[the attempt number into `x-attempt-count`, from the second attempt on\].
    #[must_use]
    pub fn description(mut self, options: DescriptionOptions) -> Self {
        self.description = options;
        self
    }

    /// Asks each endpoint whether it is well, over its connections, at the times of
    /// [`CheckOptions`](crate::health::CheckOptions) \[no checks\].
    #[must_use]
    pub fn check(self, check: HttpCheck) -> Self {
        self.with(|inner| inner.check(move |service, _| check.ask(service)))
    }

    /// What tells failures from successes \[errors and 5xx fail; 429, and 503 with `Retry-After`, are back-off\].
    #[must_use]
    pub fn classify(self, classify: impl Classify<Response<Tracked<Incoming>>>) -> Self {
        self.with(|inner| inner.classify(classify))
    }

    /// How long a request may take in all \[10 s\].
    #[must_use]
    pub fn deadline(self, deadline: impl Into<Option<Duration>>) -> Self {
        self.with(|inner| inner.deadline(deadline))
    }

    /// How long one attempt may take to its head \[what is left, at most 3 s\].
    #[must_use]
    pub fn attempt_limit(self, limit: impl Into<Option<Duration>>) -> Self {
        self.with(|inner| inner.attempt_limit(limit))
    }

    /// How long the body of a response may take \[as long as it likes\].
    #[must_use]
    pub fn body(self, body: BodyOptions) -> Self {
        self.with(|inner| inner.body(body))
    }

    /// How often a request is tried \[3 attempts\].
    #[must_use]
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.with(|inner| inner.retry(policy))
    }

    /// When a request is sent a second time while its first attempt goes on \[never\].
    #[must_use]
    pub fn hedge(self, options: impl Into<Option<HedgeOptions>>) -> Self {
        self.with(|inner| inner.hedge(options))
    }

    /// How many requests go in a time \[any number\].
    #[must_use]
    pub fn rate(self, options: impl Into<Option<RateLimitOptions>>) -> Self {
        self.with(|inner| inner.rate(options))
    }

    /// How much is kept back of what the servers turn away \[nothing\].
    #[must_use]
    pub fn throttle(self, options: impl Into<Option<ThrottleOptions>>) -> Self {
        self.with(|inner| inner.throttle(options))
    }

    /// How many attempts of the client run at a time \[any number\].
    #[must_use]
    pub fn limit(self, options: impl Into<Option<ConcurrencyLimitOptions>>) -> Self {
        self.with(|inner| inner.limit(options))
    }

    /// A breaker for the whole client \[none\].
    #[must_use]
    pub fn breaker(self, options: impl Into<Option<BreakerOptions>>) -> Self {
        self.with(|inner| inner.breaker(options))
    }

    /// How much extra load retries may make \[20 % of successes over 10 s + 1 per 10 s\].
    #[must_use]
    pub fn budget(self, budget: BudgetOptions) -> Self {
        self.with(|inner| inner.budget(budget))
    }

    /// A budget that several clients share, instead of one of its own.
    #[must_use]
    pub fn shared_budget(self, budget: Budget) -> Self {
        self.with(|inner| inner.shared_budget(budget))
    }

    /// How endpoints are picked, and when they are set aside.
    #[must_use]
    pub fn balance(self, options: BalanceOptions) -> Self {
        self.with(|inner| inner.balance(options))
    }

    /// All the numbers at once.
    #[must_use]
    pub fn options(self, options: ClientOptions) -> Self {
        self.with(|inner| inner.options(options))
    }

    /// Tells other clients of this process that share it of dead endpoints, and is told by them \[nobody\].
    #[must_use]
    pub fn share_health(self, shared: SharedHealth) -> Self {
        self.with(|inner| inner.share_health(shared))
    }

    /// Somebody to be told events.
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.with(|inner| inner.observe(observer))
    }

    /// Where chance comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(self, random: impl Random) -> Self {
        self.with(|inner| inner.random(random))
    }

    /// Builds the client. It needs no runtime, and does nothing until its first call.
    ///
    /// # Errors
    /// [`Invalid`] with every mistake at once.
    pub fn build(self) -> Result<Client, Invalid> {
        let mut check = Check::default();
        check.absorb("connector", self.connector.check()).absorb("description", self.description.check());
        let inner = self.inner;
        // The parts are made of defaults if their options are wrong, so that what else is wrong is found, too.
        let connector = Connector::new(self.connector).unwrap_or_default();
        let description = Description::new(self.description).unwrap_or_default();
        let built = inner.describe(description).connect_with(connector).build();
        match built {
            Ok(inner) => check.finish().map(|()| Client { inner, replayed: self.replayed }),
            Err(invalid) => {
                check.absorb("", Err(invalid));
                Err(check.finish().err().unwrap_or_else(|| Check::missing("options")))
            }
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("inner", &self.inner)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}
