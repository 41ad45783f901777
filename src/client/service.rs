//! The handle.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tower::{BoxError, Service};

use super::{
    admission::{Admission, Rate},
    attempt::{Gates, Guarded},
    builder::ClientBuilder,
    explain::Explanation,
    future::ResponseFuture,
    hedged::{Beside, race},
    options::ClientOptions,
    status::ClientStatus,
    terms::Terms,
};
use crate::{
    balance::Balance,
    breaker::{BreakerHandle, BreakerOptions, Judge, Owner},
    budget::Budget,
    context,
    describe::Describe,
    error::Error,
    estimate::{Counts, Recent, bucket_of},
    hedge::{Pace, Race},
    invalid::{Check, Invalid},
    limit::{Algorithm, Limiter, throttle::Throttle},
    random::Random,
    retry::{Env, Parts, RetryPolicy, Underway},
    sync::{AtomicU32, AtomicU64, Mutex, Ordering::Relaxed, Padded, lock, stripe, stripes},
    telemetry::{Observer, Tally},
};

/// The bits of [`Core::gates`].
const BREAKER: u32 = 1;
const LIMIT: u32 = 2;
const RATE: u32 = 4;
const THROTTLE: u32 = 8;
const HEDGE: u32 = 16;

/// What all handles and requests of a client share.
pub(super) struct Core<S, Req>
where
    S: Service<Req>,
{
    pub(super) label: Arc<str>,
    pub(super) balance: Balance<S, Req>,
    pub(super) parts: Parts<Req, S::Response>,
    pub(super) options: ArcSwap<ClientOptions>,
    /// The options it was built with, to tell what was changed since.
    pub(super) built: ClientOptions,
    pub(super) shares_budget: bool,
    /// How a breaker judges what comes out of the balancer.
    pub(super) judge: Judge<S::Response>,
    /// The breaker of the whole client, from the first time on that one was wanted.
    breaker: OnceLock<BreakerHandle>,
    /// The limit of the whole client, in the same way.
    limiter: OnceLock<Arc<Limiter>>,
    rate: OnceLock<Arc<Rate>>,
    throttle: OnceLock<Arc<Throttle>>,
    pace: OnceLock<Pace>,
    /// Which of them are wanted: the bits below.
    gates: AtomicU32,
    /// What each request asks of the options, where it can be read without touching their reference count.
    deadline: AtomicU64,
    max_attempts: AtomicU32,
    /// Latencies of whole requests, striped by thread.
    latencies: Box<[Padded<Recent>]>,
    /// Held while options are replaced: the algorithm that `limiter` goes by, wanted or not.
    updating: Mutex<Option<Algorithm>>,
}

impl<S, Req> Core<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    #[allow(clippy::too_many_arguments, reason = "called once, by the builder")]
    pub(super) fn new(
        label: Arc<str>,
        balance: Balance<S, Req>,
        budget: Budget,
        shares_budget: bool,
        describe: Arc<dyn Describe<Req>>,
        judge: Judge<S::Response>,
        random: Arc<dyn Random>,
        options: ClientOptions,
    ) -> Self {
        let epoch = balance.fleet().epoch;
        let core = Self {
            label,
            balance,
            deadline: AtomicU64::new(0),
            max_attempts: AtomicU32::new(0),
            parts: Parts { budget, describe, classify: judge.classify.clone(), random, tally: Tally::new() },
            judge,
            breaker: OnceLock::new(),
            limiter: OnceLock::new(),
            rate: OnceLock::new(),
            throttle: OnceLock::new(),
            pace: OnceLock::new(),
            gates: AtomicU32::new(0),
            built: options.clone(),
            options: ArcSwap::from_pointee(options),
            shares_budget,
            latencies: (0..stripes()).map(|_| Padded(Recent::new(epoch, Recent::PERIOD))).collect(),
            updating: Mutex::new(None),
        };
        core.take_over(&mut lock(&core.updating));
        core
    }

    /// Puts what each request asks of the options where it is read. A request that begins meanwhile may go by the old
    /// deadline and the new number of attempts; both are sound.
    ///
    /// A limit whose `algorithm` stays keeps what it has learnt, even if it was not wanted for a time.
    fn take_over(&self, algorithm: &mut Option<Algorithm>) {
        let options = self.options.load();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.deadline.store(options.deadline.map_or(u64::MAX, nanos), Relaxed);
        self.max_attempts.store(options.retry.max_attempts, Relaxed);
        if let Some(options) = &options.breaker {
            let breaker = self.breaker.get_or_init(|| self.new_breaker(self.label.clone(), options.clone()));
            breaker.update(options.clone()).expect("the options were checked");
        }
        if let Some(limit) = &options.limit {
            let make = || Arc::new(Limiter::new(limit, None).expect("the options were checked"));
            let before = algorithm.replace(limit.algorithm.clone());
            let same = before.is_none_or(|before| before == limit.algorithm);
            self.limiter.get_or_init(make).update(limit, same).expect("the options were checked");
        }
        if let Some(rate) = &options.rate {
            self.rate.get_or_init(|| Arc::new(Rate::new(rate))).set(rate);
        }
        if let Some(throttle) = &options.throttle {
            let make = || Arc::new(Throttle::new(throttle.clone(), self.balance.fleet().epoch));
            self.throttle.get_or_init(make).set(throttle.clone());
        }
        if let Some(hedge) = &options.hedge {
            let make = || Pace::new(hedge, self.balance.fleet().epoch).expect("the options were checked");
            self.pace.get_or_init(make).set(hedge);
        }
        let gates = if options.breaker.is_some() { BREAKER } else { 0 }
            | if options.limit.is_some() { LIMIT } else { 0 }
            | if options.rate.is_some() { RATE } else { 0 }
            | if options.throttle.is_some() { THROTTLE } else { 0 }
            | if options.hedge.is_some() { HEDGE } else { 0 };
        self.gates.store(gates, Relaxed);
    }

    fn new_breaker(&self, name: Arc<str>, options: BreakerOptions) -> BreakerHandle {
        self.breaker_of(name, options).expect("the options were checked")
    }

    fn breaker_of(&self, name: Arc<str>, options: BreakerOptions) -> Result<BreakerHandle, Invalid> {
        let owner = Owner {
            client: self.label.clone(),
            observers: self.balance.fleet().observers.clone(),
            random: self.parts.random.clone(),
        };
        BreakerHandle::new(name, options, owner)
    }

    /// Notes the latency of a request that began so many nanoseconds after the epoch, and ends now.
    #[inline]
    pub(super) fn latency(&self, began: u64) {
        let fleet = self.balance.fleet();
        let nanos = context::nanos_since(fleet.epoch);
        let bucket = bucket_of(nanos.saturating_sub(began));
        self.latencies[stripe() & (self.latencies.len() - 1)].0.record_in(fleet.period(nanos), bucket);
    }

    pub(super) fn latencies(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.latencies {
            counts.add(&stripe.0.counts(now));
        }
        counts
    }
}

impl<S, Req> Core<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn deadline(&self) -> Option<Duration> {
        let nanos = self.deadline.load(Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    /// The breaker of the whole client, if one is wanted.
    #[inline]
    pub(super) fn breaker(&self) -> Option<&BreakerHandle> {
        if self.gates.load(Relaxed) & BREAKER != 0 { self.breaker.get() } else { None }
    }

    /// The limit of the whole client, if one is wanted.
    pub(super) fn limiter(&self) -> Option<&Arc<Limiter>> {
        if self.gates.load(Relaxed) & LIMIT != 0 { self.limiter.get() } else { None }
    }

    /// The rate of the client, if one is wanted.
    pub(super) fn rate(&self) -> Option<&Arc<Rate>> {
        if self.gates.load(Relaxed) & RATE != 0 { self.rate.get() } else { None }
    }

    /// The throttle of the client, if one is wanted.
    pub(super) fn throttle(&self) -> Option<&Arc<Throttle>> {
        if self.gates.load(Relaxed) & THROTTLE != 0 { self.throttle.get() } else { None }
    }

    /// The pace of hedges, if they are wanted.
    pub(super) fn pace(&self) -> Option<&Pace> {
        if self.gates.load(Relaxed) & HEDGE != 0 { self.pace.get() } else { None }
    }

    /// What lets requests in, if there is anything.
    #[inline]
    pub(super) fn admission(&self) -> Option<Box<Admission>> {
        if self.gates.load(Relaxed) & (RATE | THROTTLE) == 0 {
            return None;
        }
        Some(Box::new(Admission::new(self.rate().cloned(), self.throttle().cloned())))
    }

    #[inline]
    pub(super) fn max_attempts(&self) -> u32 {
        self.max_attempts.load(Relaxed)
    }
}

/// What a handle wishes for its requests, over the client's options.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) operation: Option<Arc<str>>,
    pub(super) deadline: Option<Duration>,
    pub(super) idempotent: Option<bool>,
    pub(super) max_attempts: Option<u32>,
    pub(super) breaker: Option<BreakerHandle>,
    /// In place of the client's retries and hedges.
    pub(super) terms: Option<Terms>,
}

/// A client: finds the instances behind a name, sends each request to the best of them, and keeps working while they are
/// slow, dead, overloaded, redeployed or gone.
///
/// A handle is cheap to clone and to share; it is called through `&self` with [`send`](Self::send), or as a
/// [`tower::Service`] that is always ready.
pub struct Client<S, Req>
where
    S: Service<Req>,
{
    /// One for each stripe of threads, so that requests on different threads do not write the same reference count.
    lanes: Arc<[Arc<Lane<S, Req>>]>,
    view: View,
}

pub(super) struct Lane<S, Req>(pub(super) Arc<Core<S, Req>>)
where
    S: Service<Req>;

impl<S, Req> Client<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// Begins to build a client. `label` names it in errors, events and metrics.
    pub fn builder(label: impl Into<Arc<str>>) -> ClientBuilder<S, Req> {
        ClientBuilder::new(label.into())
    }

    pub(super) fn of(core: Core<S, Req>) -> Self {
        let core = Arc::new(core);
        Self { lanes: (0..stripes()).map(|_| Arc::new(Lane(core.clone()))).collect(), view: View::default() }
    }

    /// Sends `request`. The future does nothing until it is polled; dropping it cancels the request.
    #[inline(always)]
    pub fn send(&self, request: Req) -> ResponseFuture<S, Req> {
        ResponseFuture::new(self.lane(), &self.view, request)
    }

    /// A view for one method: the same endpoints, health and budget. `operation` names it in traces.
    #[must_use]
    pub fn method(&self, operation: impl Into<Arc<str>>) -> Self {
        let view = View { operation: Some(operation.into()), ..self.view.clone() };
        Self { lanes: self.lanes.clone(), view }
    }

    /// The same view with another total deadline; zero refuses every request.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.view.deadline = Some(deadline);
        self
    }

    /// The same view for requests that may be processed twice, whatever their description says.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.view.idempotent = Some(true);
        self
    }

    /// The same view for requests that must not be processed twice, whatever their description says.
    #[must_use]
    pub fn not_idempotent(mut self) -> Self {
        self.view.idempotent = Some(false);
        self
    }

    /// The same view with another number of attempts in all; 0 and 1 mean no retry, and more than 10 count as 10.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.view.max_attempts = Some(attempts.min(RetryPolicy::MOST));
        self
    }

    /// The same view behind a breaker of its own, which all its clones share; a call has to pass the client's, if there is
    /// one, and this one. It is named after the method in events.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn guarded_by(mut self, options: BreakerOptions) -> Result<Self, Invalid> {
        let core = self.core();
        let name = self.view.operation.clone().unwrap_or_else(|| core.label.clone());
        let breaker = core.breaker_of(name, options)?;
        self.view.breaker = Some(breaker);
        Ok(self)
    }

    /// The breaker of this view, or the client's if the view has none of its own.
    pub fn breaker(&self) -> Option<BreakerHandle> {
        self.view.breaker.as_ref().or_else(|| self.core().breaker()).cloned()
    }

    /// Waits until there is an endpoint that may be given requests.
    ///
    /// # Errors
    /// [`Reason::Closed`](crate::Reason::Closed) once the client is closed, [`Reason::Absent`](crate::Reason::Absent) if
    /// the name stands for nothing, [`Reason::NoRuntime`](crate::Reason::NoRuntime) outside of a tokio runtime.
    pub async fn ready(&self) -> Result<(), Error> {
        self.core().balance.ready().await
    }

    /// Refuses new requests, waits for those in flight, and ends the background task. Returns whether all was done within
    /// `within`; what is not goes on.
    ///
    /// In flight are requests whose futures exist, waiting for their next attempt included, and bodies that are still
    /// being read. Their further attempts are made where an endpoint can take them at once; a request that waits for an
    /// endpoint is refused.
    pub async fn close(&self, within: Duration) -> bool {
        self.core().balance.close_with(within, || self.in_flight()).await
    }

    /// Requests that have not ended yet, and bodies that are still being read.
    fn in_flight(&self) -> usize {
        let requests: usize = self.lanes.iter().map(|lane| Arc::strong_count(lane) - 1).sum();
        requests.max(self.core().balance.in_flight())
    }

    /// Replaces the options: all of them, or none if they do not hold together. All state is kept.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong. The windows and time constants that running counts are made of cannot change.
    pub fn update(&self, options: ClientOptions) -> Result<(), Invalid> {
        let core = self.core();
        let mut updating = lock(&core.updating);
        let mut check = Check::default();
        // A throttle that is not wanted now keeps its counts, and would go on with them.
        let window = core.throttle.get().map(|throttle| throttle.window());
        core.options.load().check_update(&options, window, &mut check);
        check.finish()?;
        core.balance.replace(options.balance.clone())?;
        if !core.shares_budget {
            core.parts.budget.update(&options.budget)?;
        }
        core.options.store(Arc::new(options));
        core.take_over(&mut updating);
        drop(updating);
        // An observer may well update again.
        core.balance.tell_updated();
        Ok(())
    }

    /// The options that are in force.
    pub fn options(&self) -> ClientOptions {
        ClientOptions::clone(&self.core().options.load())
    }

    /// What the client knows, does and has done.
    pub fn status(&self) -> ClientStatus {
        ClientStatus::of(self.core())
    }

    /// The stack in effect: every option, where its value comes from, and the worst that a request can meet.
    pub fn explain(&self) -> Explanation {
        Explanation::of(self.core(), &self.view)
    }

    /// Has `observer` told about everything that happens from now on.
    pub fn observe(&self, observer: impl Observer) {
        self.core().balance.observe(observer);
    }

    pub(super) fn core(&self) -> &Core<S, Req> {
        &self.lane().0
    }

    /// The same view with retries and hedges of its own. A number of attempts that the view was given before stands.
    #[cfg(feature = "tonic")]
    pub(crate) fn with_terms(mut self, terms: Terms, idempotent: bool) -> Self {
        self.view.max_attempts.get_or_insert(terms.retry().max_attempts);
        self.view.idempotent.get_or_insert(idempotent);
        self.view.terms = Some(terms);
        self
    }

    /// Whether this view was told that its requests must not be processed twice.
    #[cfg(feature = "tonic")]
    pub(crate) fn is_said_not_idempotent(&self) -> bool {
        self.view.idempotent == Some(false)
    }

    /// The deadline of this view, where it was given one.
    #[cfg(feature = "tonic")]
    pub(crate) fn own_deadline(&self) -> Option<Duration> {
        self.view.deadline
    }

    /// How long a request of this view may take in all.
    #[cfg(feature = "tonic")]
    pub(crate) fn total(&self) -> Option<Duration> {
        self.view.deadline.or_else(|| self.core().deadline())
    }
}

impl<S, Req> Client<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    fn lane(&self) -> &Arc<Lane<S, Req>> {
        &self.lanes[stripe() & (self.lanes.len() - 1)]
    }
}

impl<S, Req> Service<Req> for Client<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        self.send(request)
    }
}

impl<S, Req> Clone for Client<S, Req>
where
    S: Service<Req>,
{
    fn clone(&self) -> Self {
        Self { lanes: self.lanes.clone(), view: self.view.clone() }
    }
}

impl<S, Req> fmt::Debug for Client<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("label", &self.lane().0.label)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// Where the retries of a client's request run.
pub(super) struct ClientEnv<S, Req>
where
    S: Service<Req>,
{
    pub(super) lane: Arc<Lane<S, Req>>,
    /// The breaker of the method.
    pub(super) method: Option<BreakerHandle>,
    /// The retries and hedges of the method, in place of the client's.
    pub(super) terms: Option<Terms>,
}

impl<S, Req> ClientEnv<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn core(&self) -> &Core<S, Req> {
        &self.lane.0
    }

    /// The pace of hedges, if they are wanted.
    #[inline]
    pub(super) fn pace(&self) -> Option<&Pace> {
        match &self.terms {
            None => self.core().pace(),
            Some(terms) => terms.pace(),
        }
    }
}

impl<S, Req> ClientEnv<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    #[inline]
    pub(super) fn attempt(&self, request: Req) -> Guarded<S, Req> {
        let core = self.core();
        let gates = core.gates.load(Relaxed) & (BREAKER | LIMIT) != 0 || self.method.is_some();
        Guarded::new(core.balance.start(request), if gates { Some(self.gates()) } else { None })
    }

    #[cold]
    fn gates(&self) -> Box<Gates<S, Req>> {
        let core = self.core();
        let (limit, breaker) = (core.limiter().cloned(), core.breaker().cloned());
        Box::new(Gates::new(self.lane.clone(), limit, breaker, self.method.clone()))
    }
}

impl<S, Req> Env<Req> for ClientEnv<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Future = Guarded<S, Req>;
    type Beside = Beside<S, Req>;

    #[inline]
    fn first(&mut self, request: Req) -> Self::Future {
        self.attempt(request)
    }

    fn again(&mut self, request: Req) -> Self::Future {
        self.attempt(request)
    }

    #[inline]
    fn beside(&self) -> Option<Self::Beside> {
        match &self.terms {
            None => (self.core().gates.load(Relaxed) & HEDGE != 0).then(Race::new),
            Some(terms) => terms.pace().map(|_| Race::new()),
        }
    }

    fn poll_beside(
        &mut self,
        first: Pin<&mut Option<Self::Future>>,
        request: Underway<'_, Req, Self::Beside>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        race(self, first, request, cx)
    }

    #[inline]
    fn parts(&self) -> &Parts<Req, S::Response> {
        &self.lane.0.parts
    }

    fn policy(&self) -> RetryPolicy {
        match &self.terms {
            None => self.lane.0.options.load().retry.clone(),
            Some(terms) => terms.retry().clone(),
        }
    }

    #[inline]
    fn succeeded(&self, _: Instant) {}

    fn has_room(&self, now: Instant) -> bool {
        let most = self.lane.0.options.load().retry.max_utilisation;
        most.is_none_or(|most| self.core().utilisation(now).is_none_or(|used| used < most.get()))
    }

    fn fastest(&self, now: Instant) -> Option<Duration> {
        self.lane.0.balance.fleet().latencies(now).quantile(0.1)
    }
}
