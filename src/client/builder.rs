//! Builds a client.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::Stream;
use tower::{BoxError, Service};

use super::{
    options::ClientOptions,
    service::{Client, Core},
};
use crate::{
    Endpoint,
    balance::{Balance, BalanceOptions, BodyOptions, Checker, Connector, SharedHealth},
    breaker::{BreakerOptions, Judge},
    budget::{Budget, BudgetOptions},
    deadline::AttemptFit,
    describe::{Describe, Opaque},
    error::ErrorsFail,
    health::ServingStatus,
    hedge::HedgeOptions,
    invalid::{Check, Invalid},
    limit::{ConcurrencyLimitOptions, rate::RateLimitOptions, throttle::ThrottleOptions},
    outcome::Classify,
    random::{Entropy, Random},
    report::Report,
    resolve::Resolve,
    retry::RetryPolicy,
    telemetry::{Observer, Observers},
    track::Track,
};

/// Builds a [`Client`]; from [`Client::builder`].
pub struct ClientBuilder<S, Req>
where
    S: Service<Req>,
{
    label: Arc<str>,
    resolver: Option<Box<dyn Resolve>>,
    connector: Option<Connector<S>>,
    checker: Option<Checker<S>>,
    shared_health: Option<SharedHealth>,
    classify: Arc<dyn Classify<S::Response>>,
    describe: Arc<dyn Describe<Req>>,
    track: Option<Arc<dyn Track<S::Response>>>,
    options: ClientOptions,
    budget: Option<Budget>,
    observers: Arc<Observers>,
    random: Arc<dyn Random>,
}

impl<S, Req> ClientBuilder<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    pub(super) fn new(label: Arc<str>) -> Self {
        Self {
            label,
            resolver: None,
            connector: None,
            checker: None,
            shared_health: None,
            classify: Arc::new(ErrorsFail),
            describe: Arc::new(Opaque),
            track: None,
            options: ClientOptions::default(),
            budget: None,
            observers: Arc::new(Observers::default()),
            random: Arc::new(Entropy),
        }
    }

    /// What tells the endpoints. Needed.
    #[must_use]
    pub fn resolve(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Box::new(resolver));
        self
    }

    /// How the service of an endpoint is made, by a function, for services that dial by themselves. This or
    /// [`connect_with`](Self::connect_with) is needed.
    #[must_use]
    pub fn connect(mut self, connect: impl FnMut(&Endpoint) -> S + Send + 'static) -> Self {
        self.connector = Some(Connector::each(connect));
        self
    }

    /// How the service of an endpoint is made, by a service whose response is a service with a standing connection.
    #[must_use]
    pub fn connect_with<M>(mut self, make: M) -> Self
    where
        M: Service<Arc<Endpoint>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
    {
        self.connector = Some(Connector::make(make));
        self
    }

    /// Has each endpoint asked whether it is well, over a clone of its service: see
    /// [`BalanceBuilder::check`](crate::balance::BalanceBuilder::check) \[no checks\].
    #[must_use]
    pub fn check<F, A>(mut self, ask: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_ask(ask);
        self
    }

    /// Has each endpoint listened to, over a clone of its service, for what it says of itself unasked: see
    /// [`BalanceBuilder::watch`](crate::balance::BalanceBuilder::watch) \[no endpoint\].
    #[must_use]
    pub fn watch<F, W>(mut self, watch: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> W + Send + Sync + 'static,
        W: Stream<Item = ServingStatus> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_watch(watch);
        self
    }

    /// Asks endpoints for their load beside the requests, over a clone of the service, out of the budget of the retries, as often as
    /// [`BalanceOptions::probes`](crate::balance::BalanceOptions::probes) says \[nobody is asked\]; see
    /// [`BalanceBuilder::probe`](crate::balance::BalanceBuilder::probe).
    #[must_use]
    pub fn probe<F, A>(mut self, probe: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Option<Report>> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_probe(probe);
        self
    }

    /// Tells other clients of this process that share it of dead endpoints, and is told by them \[nobody\].
    #[must_use]
    pub fn share_health(mut self, shared: SharedHealth) -> Self {
        self.shared_health = Some(shared);
        self
    }

    /// What tells failures from successes \[errors fail\].
    #[must_use]
    pub fn classify(mut self, classify: impl Classify<S::Response>) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// What is known of requests \[nothing: they are sent once\].
    #[must_use]
    pub fn describe(mut self, describe: impl Describe<Req>) -> Self {
        self.describe = Arc::new(describe);
        self
    }

    /// Changes how endpoints are picked, as it is set so far.
    #[cfg(feature = "tonic")]
    pub(crate) fn map_balance(mut self, change: impl FnOnce(BalanceOptions) -> BalanceOptions) -> Self {
        self.options.balance = change(self.options.balance);
        self
    }

    /// Until when an attempt counts \[the head of the response\].
    #[must_use]
    pub fn track(mut self, track: impl Track<S::Response>) -> Self {
        self.track = Some(Arc::new(track));
        self
    }

    /// How long a request may take in all \[10 s\].
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.options.deadline = deadline.into();
        self
    }

    /// How long one attempt may take \[what is left, at most 3 s\].
    #[must_use]
    pub fn attempt_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.options.balance.attempt_limit = limit.into();
        self
    }

    /// What else an attempt limit goes by: latency, or what is left of the deadline \[nothing\].
    #[must_use]
    pub fn attempt_fit(mut self, fit: AttemptFit) -> Self {
        self.options.balance.attempt_fit = fit;
        self
    }

    /// How long the body of a response may take, where bodies are tracked \[as long as it likes\].
    #[must_use]
    pub fn body(mut self, body: BodyOptions) -> Self {
        self.options.balance.body = body;
        self
    }

    /// How often a request is tried \[3 attempts\].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// How much extra load retries may make \[20 % of successes over 10 s + 1 per 10 s\].
    #[must_use]
    pub fn budget(mut self, budget: BudgetOptions) -> Self {
        self.options.budget = budget;
        self
    }

    /// When a request is sent a second time while its first attempt goes on \[never\].
    #[must_use]
    pub fn hedge(mut self, options: impl Into<Option<HedgeOptions>>) -> Self {
        self.options.hedge = options.into();
        self
    }

    /// A budget that several clients share, instead of one of its own.
    #[must_use]
    pub fn shared_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// How many requests go in a time \[any number\].
    #[must_use]
    pub fn rate(mut self, options: impl Into<Option<RateLimitOptions>>) -> Self {
        self.options.rate = options.into();
        self
    }

    /// How much is kept back of what the servers turn away \[nothing\].
    #[must_use]
    pub fn throttle(mut self, options: impl Into<Option<ThrottleOptions>>) -> Self {
        self.options.throttle = options.into();
        self
    }

    /// How many attempts of the client run at a time \[any number\].
    #[must_use]
    pub fn limit(mut self, options: impl Into<Option<ConcurrencyLimitOptions>>) -> Self {
        self.options.limit = options.into();
        self
    }

    /// A breaker for the whole client \[none\].
    #[must_use]
    pub fn breaker(mut self, options: impl Into<Option<BreakerOptions>>) -> Self {
        self.options.breaker = options.into();
        self
    }

    /// How endpoints are picked, and when they are set aside. Replaces an [`attempt_limit`](Self::attempt_limit) set
    /// before.
    #[must_use]
    pub fn balance(mut self, options: BalanceOptions) -> Self {
        self.options.balance = options;
        self
    }

    /// All the numbers at once.
    #[must_use]
    pub fn options(mut self, options: ClientOptions) -> Self {
        self.options = options;
        self
    }

    /// Somebody to be told events.
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.observers.add(Arc::new(observer));
        self
    }

    /// Where chance comes from \[the operating system, a generator per thread\].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Builds the client. It needs no runtime, and does nothing until its first call.
    ///
    /// # Errors
    /// [`Invalid`] with every mistake at once: options out of range, options that contradict each other, and what was
    /// not said but is needed.
    pub fn build(self) -> Result<Client<S, Req>, Invalid> {
        let mut check = Check::default();
        check
            .rule(
                self.resolver.is_some(),
                "resolve",
                "nothing",
                "needed: resolve(..) says where the endpoints are",
            )
            .rule(
                self.connector.is_some(),
                "connect",
                "nothing",
                "needed: connect(..) or connect_with(..) says how to reach them",
            );
        if let Some(resolver) = &self.resolver {
            check.absorb("resolve", resolver.validate());
        }
        self.options.check(&mut check);
        check.finish()?;
        let (Some(resolver), Some(connector)) = (self.resolver, self.connector) else {
            return Err(Check::missing("resolve and connect"));
        };
        let balance = Balance::builder(resolver)
            .label(self.label.clone())
            .connector(connector)
            .checker(self.checker)
            .shared_health(self.shared_health)
            .options(self.options.balance.clone())
            .shared(
                self.describe.clone(),
                self.classify.clone(),
                self.track.clone(),
                self.observers,
                self.random.clone(),
            )
            .build()?;
        let shares = self.budget.is_some();
        let budget = match self.budget {
            Some(budget) => budget,
            // It counts time as the balancer does.
            None => Budget::starting(self.options.budget.clone(), balance.fleet().epoch)?,
        };
        balance.fleet().pay_probes(budget.clone());
        Ok(Client::of(Core::new(
            self.label,
            balance,
            budget,
            shares,
            self.describe,
            Judge { classify: self.classify, track: self.track },
            self.random,
            self.options,
        )))
    }
}

impl<S, Req> fmt::Debug for ClientBuilder<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("label", &self.label)
            .field("resolver", &self.resolver)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
