//! The client that generated tonic clients run on, with good defaults.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{Request, Response};
use ::tonic::{Status, body::Body, transport::Endpoint};
use pin_project::pin_project;
use tower::Service;

use super::{
    AnswerBody, Connector, Transport,
    policy::{ByMethod, Plan},
    status::status,
    watch::Watching,
};
use crate::{
    balance::{BalanceOptions, BodyOptions, SharedHealth},
    breaker::{BreakerHandle, BreakerOptions},
    budget::{Budget, BudgetOptions},
    client::{ClientOptions, ClientStatus, Explanation, ResponseFuture},
    clock,
    error::Error,
    grpc::{
        BodyTrack, Classifier, Description, DescriptionOptions, HealthCheck, HealthWatch, Methods,
        RetryThrottling, ServiceConfig, read_timeout,
    },
    hedge::HedgeOptions,
    http::{Idempotent, Replay, Tracked},
    invalid::{Check, Invalid},
    limit::{ConcurrencyLimitOptions, rate::RateLimitOptions, throttle::ThrottleOptions},
    outcome::Classify,
    random::Random,
    resolve::Resolve,
    retry::RetryPolicy,
    sync::{Mutex, Swap, lock},
    telemetry::Observer,
};

type Call = Request<Replay<Body>>;
type Inner = crate::Client<Transport, Call>;
type InnerBuilder = crate::client::ClientBuilder<Transport, Call>;

/// A gRPC client over the instances behind a name: what a generated client is made of.
///
/// A handle is cheap to clone. As a service it is always ready, and its errors are [`Status`]es. The views
/// ([`deadline`](Self::deadline), [`idempotent`](Self::idempotent) and so on) share endpoints, health and budget: give each
/// generated client the one that it needs.
pub struct Client {
    inner: Inner,
    replayed: usize,
    policies: Arc<Policies>,
}

/// What a service config says, which all views go by.
struct Policies {
    plans: Swap<Methods<Plan>>,
    /// The throttle that the budget was made of. Held while a document is replaced.
    throttling: Mutex<Option<RetryThrottling>>,
    watching: Watching,
}

impl Client {
    /// Begins to build a client. `label` names it in errors, events and metrics; `endpoint` is what its channels are made
    /// of, under the logical name that is its URI: see [`endpoint`](super::endpoint).
    pub fn builder(label: impl Into<Arc<str>>, endpoint: Endpoint) -> ClientBuilder {
        let inner = Inner::builder(label).classify(ByMethod(Classifier)).track(BodyTrack);
        ClientBuilder {
            inner,
            connector: Connector::new(endpoint),
            replayed: Replay::<Body>::LIMIT,
            description: DescriptionOptions::default(),
            config: None,
            watch: None,
            shares_budget: false,
        }
    }

    /// Makes the call. The future does nothing until it is polled; dropping it cancels the call.
    ///
    /// A `grpc-timeout` that the call has, from `tonic::Request::set_timeout`, is its deadline, if no other is earlier.
    pub fn send(&self, request: Request<Body>) -> CallFuture {
        let own = read_timeout(request.headers());
        let mut call = request.map(|body| Replay::with_limit(body, self.replayed));
        let plans = self.policies.plans.load();
        let plan = plans.get(call.uri().path());
        let inner = match (own, plan) {
            (None, None) => self.inner.send(call),
            _ => {
                let view = self.view(own, plan, &mut call);
                view.send(call)
            }
        };
        CallFuture { inner }
    }

    /// The view for one call, as its method's policy and its own timeout say.
    fn view(&self, own: Option<Duration>, plan: Option<&Plan>, call: &mut Call) -> Inner {
        let inner = &self.inner;
        let total = match plan.and_then(|plan| plan.timeout) {
            None => inner.total(),
            Some(timeout) => Some(inner.own_deadline().map_or(timeout, |own| own.min(timeout))),
        };
        let mut view = inner.clone();
        if let Some(total) = total.into_iter().chain(own).min() {
            view = view.deadline(total);
        }
        let forbidden = inner.is_said_not_idempotent() || call.extensions().get() == Some(&Idempotent(false));
        if let Some(planned) = plan.and_then(|plan| plan.attempts.as_ref()).filter(|_| !forbidden) {
            call.extensions_mut().insert(planned.on);
            view = view.with_terms(planned.terms.clone(), planned.without_an_answer);
        }
        view
    }

    fn with(self, change: impl FnOnce(Inner) -> Inner) -> Self {
        Self { inner: change(self.inner), ..self }
    }

    /// A view for one method: the same endpoints, health and budget. `operation` names it in traces.
    #[must_use]
    pub fn method(&self, operation: impl Into<Arc<str>>) -> Self {
        self.clone().with(|inner| inner.method(operation))
    }

    /// The same view with another total deadline; zero refuses every request.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|inner| inner.deadline(deadline))
    }

    /// The same view for calls that may be processed twice, whatever their method.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.with(|inner| inner.idempotent())
    }

    /// The same view for calls that must not be processed twice, whatever their method.
    #[must_use]
    pub fn not_idempotent(self) -> Self {
        self.with(|inner| inner.not_idempotent())
    }

    /// The same view with another number of attempts in all; 0 and 1 mean no retry.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.with(|inner| inner.max_attempts(attempts))
    }

    /// The same view behind a breaker of its own, which all its clones share.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn guarded_by(self, options: BreakerOptions) -> Result<Self, Invalid> {
        Ok(Self { inner: self.inner.guarded_by(options)?, ..self })
    }

    /// The breaker of this view, or the client's if the view has none of its own.
    pub fn breaker(&self) -> Option<BreakerHandle> {
        self.inner.breaker()
    }

    /// Waits until there is a connected endpoint that may be given calls.
    ///
    /// # Errors
    /// As [`Client::ready`](crate::Client::ready).
    pub async fn ready(&self) -> Result<(), Error> {
        self.inner.ready().await
    }

    /// Refuses new calls, waits for those in flight, and ends the background task; see
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

    /// Goes by another service config from now on: timeouts, retries and hedges of its methods, its balancing policy if it
    /// names one, and whose health is listened to. Calls that have begun keep what they began with; all state is kept.
    ///
    /// # Errors
    /// [`Invalid`] if the document's `retryThrottling` is not the one that the client was built with, or the balancing policy
    /// does not go with the client's other options. The config that was in force stays so.
    pub fn update_config(&self, config: &ServiceConfig) -> Result<(), Invalid> {
        let throttling = lock(&self.policies.throttling);
        let mut check = Check::default();
        check.rule(
            config.retry_throttling() == *throttling,
            "retryThrottling",
            config.retry_throttling(),
            format!("cannot change while the client runs ({throttling:?})"),
        );
        check.finish()?;
        let plans = Plan::of(config, clock::now())?;
        let watch = self.policies.watching.wanted(config)?;
        if let Some(balancing) = config.load_balancing() {
            let mut options = self.options();
            options.balance = balancing.over(options.balance);
            self.update(options)?;
        }
        self.policies.plans.store(plans);
        self.policies.watching.go_by(watch);
        Ok(())
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

impl Service<Request<Body>> for Client {
    type Response = Response<AnswerBody>;
    type Error = Status;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        self.send(request)
    }
}

/// The future of [`Client`].
#[pin_project]
pub struct CallFuture {
    #[pin]
    inner: ResponseFuture<Transport, Call>,
}

impl Future for CallFuture {
    type Output = Result<Response<AnswerBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().inner.poll(cx)).map_err(status)?;
        Poll::Ready(Ok(answer.map(AnswerBody::new)))
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), replayed: self.replayed, policies: self.policies.clone() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Builds a [`Client`].
pub struct ClientBuilder {
    inner: InnerBuilder,
    connector: Connector,
    replayed: usize,
    description: DescriptionOptions,
    config: Option<ServiceConfig>,
    watch: Option<HealthWatch>,
    shares_budget: bool,
}

impl ClientBuilder {
    fn with(mut self, change: impl FnOnce(InnerBuilder) -> InnerBuilder) -> Self {
        self.inner = change(self.inner);
        self
    }

    /// What tells the endpoints. Needed.
    #[must_use]
    pub fn resolve(self, resolver: impl Resolve) -> Self {
        self.with(|inner| inner.resolve(resolver))
    }

    /// Adds methods that may be processed twice, as `package.Service/Method`, or `package.Service/*` for all of a service
    /// \[none\].
    #[must_use]
    pub fn idempotent_methods<T: Into<String>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.description = self.description.idempotent(methods);
        self
    }

    /// What is known of methods, and written onto calls.
    #[must_use]
    pub fn description(mut self, options: DescriptionOptions) -> Self {
        self.description = options;
        self
    }

    /// How many bytes of what a call sends are kept to be sent again \[64 KiB\]. Longer calls are sent once.
    #[must_use]
    pub fn replayed_body(mut self, bytes: usize) -> Self {
        self.replayed = bytes;
        self
    }

    /// Asks each endpoint whether it is well, over its connection, at the times of
    /// [`CheckOptions`](crate::health::CheckOptions) \[no checks\]. What is asked is whether it serves, by gRPC's health protocol.
    #[must_use]
    pub fn check(self, check: HealthCheck) -> Self {
        self.with(|inner| {
            inner.check(move |service, _| check.ask(service, |question| Replay::new(Body::new(question))))
        })
    }

    /// Listens to what each endpoint says of its health, over its connection \[nothing, unless a
    /// [service config](Self::service_config) says so\]: see [`ClientBuilder::watch`](crate::client::ClientBuilder::watch) for what comes
    /// of it. Where a service config names a service, that one is listened to.
    #[must_use]
    pub fn watch(mut self, watch: HealthWatch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// What tells failures from successes, at the head \[[`grpc::Classifier`](Classifier)\].
    #[must_use]
    pub fn classify(self, classify: impl Classify<Response<Tracked<Body>>>) -> Self {
        self.with(|inner| inner.classify(ByMethod(classify)))
    }

    /// How long a call may take in all \[10 s\].
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

    /// How often a call is tried \[3 attempts\].
    #[must_use]
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.with(|inner| inner.retry(policy))
    }

    /// How many calls go in a time \[any number\].
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

    /// When a call is made a second time while its first attempt goes on \[never\].
    #[must_use]
    pub fn hedge(self, options: impl Into<Option<HedgeOptions>>) -> Self {
        self.with(|inner| inner.hedge(options))
    }

    /// A budget that several clients share, instead of one of its own.
    #[must_use]
    pub fn shared_budget(mut self, budget: Budget) -> Self {
        self.shares_budget = true;
        self.with(|inner| inner.shared_budget(budget))
    }

    /// What the owner of the service says of its methods \[nothing\]: see [the module](super) for what is done of it. Its
    /// balancing policy comes over what the options say, whichever was given first.
    #[must_use]
    pub fn service_config(mut self, config: &ServiceConfig) -> Self {
        self.config = Some(config.clone());
        self
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
        check.absorb("description", self.description.check());
        // The part is made of defaults if its options are wrong, so that what else is wrong is found, too.
        let description = Description::new(self.description).unwrap_or_default();
        let config = self.config.unwrap_or_default();
        let mut inner = self.inner;
        if let Some(balancing) = config.load_balancing() {
            inner = inner.map_balance(|options| balancing.over(options));
        }
        if let Some(budget) = config.retry_throttling().filter(|_| !self.shares_budget).map(|it| it.budget())
        {
            match budget {
                Ok(budget) => inner = inner.shared_budget(budget),
                Err(invalid) => _ = check.absorb("service_config.retryThrottling", Err(invalid)),
            }
        }
        let plans = Plan::of(&config, clock::now()).unwrap_or_else(|invalid| {
            check.absorb("service_config", Err(invalid));
            Methods::default()
        });
        let throttling = Mutex::new(config.retry_throttling());
        if let Some(watch) = &self.watch {
            check.absorb("watch", watch.validate());
        }
        let watching = Watching::new(self.watch, self.connector.template());
        match watching.wanted(&config) {
            Ok(wanted) => watching.go_by(wanted),
            Err(invalid) => _ = check.absorb("service_config.healthCheckConfig", Err(invalid)),
        }
        let inner = inner.watch(watching.listener());
        let policies = Arc::new(Policies { plans: Swap::new(plans), throttling, watching });
        match inner.describe(description).connect_with(self.connector).build() {
            Ok(inner) => check.finish().map(|()| Client { inner, replayed: self.replayed, policies }),
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
