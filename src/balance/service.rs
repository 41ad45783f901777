//! The handle.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::Stream;
use tower::{BoxError, Service};

use super::{
    attempt::{Attempt, Untimed},
    check::Checker,
    connect::Connector,
    fleet::Fleet,
    hearsay::SharedHealth,
    lane::Lane,
    options::BalanceOptions,
    roster::Roster,
    status::BalanceStatus,
};
use crate::{
    Endpoint,
    budget::Budget,
    context::Timer,
    describe::{Describe, Opaque},
    error::ErrorsFail,
    error::{Error, Reason},
    health::ServingStatus,
    invalid::{Check, Invalid},
    outcome::Classify,
    random::{Entropy, Random},
    report::Report,
    resolve::Resolve,
    sync::Ordering::Relaxed,
    sync::{stripe, stripes},
    telemetry::{Counter, Event, Observer, Observers},
    track::Track,
};

/// A balancer over the endpoints of a resolution: a handle that is cheap to clone and to share.
///
/// As a [`tower::Service`] it is always ready and reserves nothing; see [`send`](Self::send) for a call through `&self`.
/// Spawns nothing until the first call.
pub struct Balance<S, Req>
where
    S: Service<Req>,
{
    lanes: Arc<[Arc<Lane<S, Req>>]>,
}

impl<S, Req> Balance<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// A balancer with default options, whose endpoints' services `connect` makes. Errors of those services are
    /// failures, and attempts end with their response.
    pub fn new(resolver: impl Resolve, connect: impl FnMut(&Endpoint) -> S + Send + 'static) -> Self {
        Self::assemble(Parts {
            label: "balance".into(),
            resolver: Box::new(resolver),
            connector: Connector::each(connect),
            describe: Arc::new(Opaque),
            checker: None,
            classify: Arc::new(ErrorsFail),
            track: None,
            options: BalanceOptions::default(),
            observers: Arc::new(Observers::default()),
            random: Arc::new(Entropy),
            shared: None,
            probe_budget: None,
        })
    }

    /// A balancer with more to say about it.
    pub fn builder(resolver: impl Resolve) -> BalanceBuilder<S, Req> {
        BalanceBuilder {
            label: "balance".into(),
            resolver: Box::new(resolver),
            connector: None,
            describe: Arc::new(Opaque),
            checker: None,
            classify: Arc::new(ErrorsFail),
            track: None,
            options: BalanceOptions::default(),
            observers: Arc::new(Observers::default()),
            random: Arc::new(Entropy),
            shared: None,
            probe_budget: None,
        }
    }

    fn assemble(parts: Parts<S, Req>) -> Self {
        let fleet =
            Arc::new(Fleet::new(parts.label, parts.options, parts.observers, parts.random, parts.shared));
        if let Some(budget) = parts.probe_budget {
            fleet.pay_probes(budget);
        }
        let roster = Arc::new(Roster::new(fleet, parts.resolver, parts.connector, parts.checker));
        let lane = |_| {
            Arc::new(Lane {
                roster: roster.clone(),
                describe: parts.describe.clone(),
                classify: parts.classify.clone(),
                track: parts.track.clone(),
            })
        };
        Self { lanes: (0..stripes()).map(lane).collect() }
    }

    /// Sends `request` to the best endpoint. The future does nothing until it is polled.
    #[inline]
    pub fn send(&self, request: Req) -> Attempt<S, Req> {
        Attempt::new(self.lane().clone(), request)
    }

    /// The same for a layer above that keeps the time.
    #[inline]
    pub(crate) fn start(&self, request: Req) -> Untimed<S, Req> {
        Untimed::new(self.lane().clone(), request)
    }

    /// Waits until there is an endpoint that may be given requests.
    ///
    /// # Errors
    /// [`Reason::Closed`] once the balancer is closed, [`Reason::Absent`] if the name stands for nothing,
    /// [`Reason::NoRuntime`] outside of a tokio runtime.
    pub async fn ready(&self) -> Result<(), Error> {
        let roster = &self.lane().roster;
        roster.ensure_running()?;
        let mut timer = std::pin::pin!(Timer::default());
        let mut waiting = super::wake::Waiter::new(&roster.fleet.watchers);
        std::future::poll_fn(|cx| {
            timer.as_mut().poll(cx, |cx| {
                waiting.register(cx);
                // Its runtime may have ended while we waited.
                if let Err(error) = roster.ensure_running() {
                    return Poll::Ready(Err(error));
                }
                if roster.fleet.is_closed() {
                    return Poll::Ready(Err(roster.refusal(Reason::Closed)));
                }
                let snapshot = roster.snapshot.load();
                if snapshot.has_available() {
                    return Poll::Ready(Ok(()));
                }
                if snapshot.is_absent() {
                    return Poll::Ready(Err(roster.refusal(Reason::Absent)));
                }
                Poll::Pending
            })
        })
        .await
    }

    /// What the balancer knows, does and has done.
    pub fn status(&self) -> BalanceStatus {
        BalanceStatus::of(&self.lane().roster)
    }

    /// Replaces the options: all of them, or none if they do not hold together. All state is kept.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn update(&self, options: BalanceOptions) -> Result<(), Invalid> {
        self.replace(options)?;
        self.tell_updated();
        Ok(())
    }

    /// The same, for one that tells of it when it has let go of its locks.
    pub(crate) fn replace(&self, options: BalanceOptions) -> Result<(), Invalid> {
        self.lane().roster.replace(options)
    }

    pub(crate) fn tell_updated(&self) {
        self.fleet().tell(&Event::Updated);
    }

    /// The options that are in force.
    pub fn options(&self) -> BalanceOptions {
        BalanceOptions::clone(&self.lane().roster.fleet.options.load())
    }

    /// Has `observer` told about everything that happens from now on.
    pub fn observe(&self, observer: impl Observer) {
        self.lane().roster.fleet.observers.add(Arc::new(observer));
    }

    /// Refuses new requests, waits for those in flight, and ends the background task. Returns whether all was done
    /// within `within`; what is not goes on.
    pub async fn close(&self, within: Duration) -> bool {
        self.close_with(within, || self.in_flight()).await
    }

    /// The same, for one that has more in flight than attempts.
    pub(crate) async fn close_with(&self, within: Duration, in_flight: impl Fn() -> usize) -> bool {
        self.lane().roster.close();
        let drained = async {
            // Closing is rare, and its end need not be exact.
            while in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(within, drained).await.is_ok();
        if done {
            self.lane().roster.let_go();
        }
        done
    }

    /// Attempts that have not ended yet, waiting ones included, and bodies that are still being read.
    pub fn in_flight(&self) -> usize {
        let attempts: usize = self.lanes.iter().map(|lane| Arc::strong_count(lane) - 1).sum();
        let tally = &self.fleet().tally;
        // Read in this order a body may be counted that has just ended, never one missed that goes on.
        let ended = tally.sum(Counter::BodiesEnded);
        let begun = tally.sum(Counter::BodiesBegun);
        attempts + usize::try_from(begun.saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.lane().roster.fleet
    }

    /// Which part of the places at the endpoints that are available is taken, where these are limited; counted at most
    /// every 100 ms.
    pub(crate) fn utilisation(&self, now: Instant) -> Option<f64> {
        let roster = &self.lane().roster;
        roster.fleet.utilisation(now, || {
            let snapshot = roster.snapshot.load();
            let most = snapshot.most;
            let available = snapshot.entries.iter().filter(|entry| entry.member.health.is_available());
            available.fold((0, 0), |(taken, places), entry| {
                let member = &entry.member;
                let own = member.width.as_ref().map_or(most, |width| width.most().min(most));
                let taken_here = member.in_flight.load(Relaxed);
                (taken + u64::from(taken_here), places + u64::from(own))
            })
        })
    }
}

impl<S, Req> Balance<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn lane(&self) -> &Arc<Lane<S, Req>> {
        &self.lanes[stripe() & (self.lanes.len() - 1)]
    }
}

impl<S, Req> Service<Req> for Balance<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Attempt<S, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.send(request)
    }
}

impl<S, Req> Clone for Balance<S, Req>
where
    S: Service<Req>,
{
    fn clone(&self) -> Self {
        Self { lanes: self.lanes.clone() }
    }
}

impl<S, Req> fmt::Debug for Balance<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("roster", &self.lane().roster).finish_non_exhaustive()
    }
}

struct Parts<S, Req>
where
    S: Service<Req>,
{
    label: Arc<str>,
    resolver: Box<dyn Resolve>,
    connector: Connector<S>,
    describe: Arc<dyn Describe<Req>>,
    checker: Option<Checker<S>>,
    classify: Arc<dyn Classify<S::Response>>,
    track: Option<Arc<dyn Track<S::Response>>>,
    options: BalanceOptions,
    observers: Arc<Observers>,
    random: Arc<dyn Random>,
    shared: Option<SharedHealth>,
    probe_budget: Option<Budget>,
}

/// Builds a [`Balance`].
pub struct BalanceBuilder<S, Req>
where
    S: Service<Req>,
{
    label: Arc<str>,
    resolver: Box<dyn Resolve>,
    connector: Option<Connector<S>>,
    describe: Arc<dyn Describe<Req>>,
    checker: Option<Checker<S>>,
    classify: Arc<dyn Classify<S::Response>>,
    track: Option<Arc<dyn Track<S::Response>>>,
    options: BalanceOptions,
    observers: Arc<Observers>,
    random: Arc<dyn Random>,
    shared: Option<SharedHealth>,
    probe_budget: Option<Budget>,
}

impl<S, Req> BalanceBuilder<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// The label in errors, events and metrics \["balance"\].
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = label.into();
        self
    }

    /// How the services of endpoints are made: a function for services that dial by themselves.
    #[must_use]
    pub fn connect(self, connect: impl FnMut(&Endpoint) -> S + Send + 'static) -> Self {
        self.connector(Connector::each(connect))
    }

    /// How the services of endpoints are made: a service whose response is a service with a standing connection.
    #[must_use]
    pub fn connect_with<M>(self, make: M) -> Self
    where
        M: Service<Arc<Endpoint>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
    {
        self.connector(Connector::make(make))
    }

    /// How the services of endpoints are made.
    #[must_use]
    pub fn connector(mut self, connector: Connector<S>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// What is known of requests \[nothing\]: their keys and the endpoints that they name, where
    /// [`distribution`](BalanceOptions::distribution) and [`sticky`](BalanceOptions::sticky) ask for that.
    #[must_use]
    pub fn describe(mut self, describe: impl Describe<Req>) -> Self {
        self.describe = Arc::new(describe);
        self
    }

    /// Has each endpoint asked whether it is well, over a clone of its service, whether there are requests or not: at the times, and
    /// with the thresholds, of [`CheckOptions`](crate::health::CheckOptions) \[no checks\].
    ///
    /// An error, or no answer within the timeout, is a failed check. The service is not readied for it, and what it asks counts as no
    /// request: not in the load, not in the statistics, not in the budget. Checks take out only what no request has
    /// shown to be well since they began to fail, under the cap of judgements, and bring back only what they have taken out.
    ///
    /// ```
    /// # use mainstay::{Endpoint, balance::Balance, resolve};
    /// # use tower::{BoxError, ServiceExt as _, service_fn};
    /// let balance = Balance::builder(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
    ///     .connect(|_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, BoxError>(n) }))
    ///     .check(|service, _| async move {
    ///         match service.oneshot(7).await? {
    ///             7 => Ok(()),
    ///             other => Err(format!("it answers {other}").into()),
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok::<_, mainstay::Invalid>(())
    /// ```
    #[must_use]
    pub fn check<F, A>(mut self, ask: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_ask(ask);
        self
    }

    /// Has each endpoint listened to, over a clone of its service, from when it is connected until it is not: what it says of itself,
    /// unasked \[no endpoint\].
    ///
    /// One word counts as much as a run of [checks](Self::check): that it does not serve sets it aside, under the cap of judgements, and
    /// goes on to hold as checks that fail do, so that a request which succeeds afterwards is the better witness; that it serves brings
    /// back what checks, or its own word, have taken out. Where both are there it comes back when neither is against it. A new endpoint does not
    /// wait for its first word. A stream that ends is not begun again while the connection stands.
    #[must_use]
    pub fn watch<F, W>(mut self, watch: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> W + Send + Sync + 'static,
        W: Stream<Item = ServingStatus> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_watch(watch);
        self
    }

    /// Asks endpoints for their load beside the requests, over a clone of the service, as often as
    /// [`BalanceOptions::probes`](super::BalanceOptions::probes) says; what comes back counts as a [report](super::BalanceOptions::reports)
    /// \[nobody is asked\]. No answer within the timeout, and `None`, say nothing. The service is not readied for it, and what it asks counts as
    /// no request. `budget` pays for each question, as for a retry; without room there none is asked. It is to be one that
    /// successes are paid into, of a [`RetryLayer`](crate::retry::RetryLayer) around this or by [`Budget::deposit`]: of its own it has
    /// a reserve of next to nothing.
    ///
    /// ```
    /// # use mainstay::{Endpoint, balance::{Balance, BalanceOptions}, budget::{Budget, BudgetOptions}, report::Report, resolve};
    /// # use tower::{BoxError, ServiceExt as _, service_fn};
    /// # let mut options = BalanceOptions::default();
    /// options.reports = true;
    /// let budget = Budget::new(BudgetOptions::default())?;
    /// let balance = Balance::builder(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
    ///     .connect(|_: &Endpoint| service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }))
    ///     .options(options)
    ///     .probe(budget, |service, _| async move {
    ///         let in_flight = service.oneshot(0).await.ok()?;
    ///         Some(Report::default().in_flight(in_flight))
    ///     })
    ///     .build()?;
    /// # Ok::<_, mainstay::Invalid>(())
    /// ```
    #[must_use]
    pub fn probe<F, A>(mut self, budget: Budget, probe: F) -> Self
    where
        F: Fn(S, Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Option<Report>> + Send + 'static,
    {
        self.checker.get_or_insert_default().set_probe(probe);
        self.probe_budget = Some(budget);
        self
    }

    pub(crate) fn checker(mut self, checker: Option<Checker<S>>) -> Self {
        self.checker = checker;
        self
    }

    /// Tells other clients of this process that share it of dead endpoints, and is told by them \[nobody\].
    #[must_use]
    pub fn share_health(mut self, shared: SharedHealth) -> Self {
        self.shared = Some(shared);
        self
    }

    pub(crate) fn shared_health(mut self, shared: Option<SharedHealth>) -> Self {
        self.shared = shared;
        self
    }

    /// What tells failures from successes \[errors fail\].
    #[must_use]
    pub fn classify(mut self, classify: impl Classify<S::Response>) -> Self {
        self.classify = Arc::new(classify);
        self
    }

    /// Until when an attempt counts \[the head of the response\].
    #[must_use]
    pub fn track(mut self, track: impl Track<S::Response>) -> Self {
        self.track = Some(Arc::new(track));
        self
    }

    /// All the numbers.
    #[must_use]
    pub fn options(mut self, options: BalanceOptions) -> Self {
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

    pub(crate) fn shared(
        mut self,
        describe: Arc<dyn Describe<Req>>,
        classify: Arc<dyn Classify<S::Response>>,
        track: Option<Arc<dyn Track<S::Response>>>,
        observers: Arc<Observers>,
        random: Arc<dyn Random>,
    ) -> Self {
        self.describe = describe;
        self.classify = classify;
        self.track = track;
        self.observers = observers;
        self.random = random;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong with the options, and if nothing says how to connect.
    pub fn build(self) -> Result<Balance<S, Req>, Invalid> {
        let mut check = Check::default();
        self.check_options(&mut check);
        check.finish()?;
        let Some(connector) = self.connector else {
            return Err(Check::missing("connect"));
        };
        Ok(Balance::assemble(Parts {
            label: self.label,
            resolver: self.resolver,
            connector,
            describe: self.describe,
            checker: self.checker,
            classify: self.classify,
            track: self.track,
            options: self.options,
            observers: self.observers,
            random: self.random,
            shared: self.shared,
            probe_budget: self.probe_budget,
        }))
    }

    fn check_options(&self, check: &mut Check) {
        check.rule(
            self.connector.is_some(),
            "connect",
            "nothing",
            "connect, connect_with or connector is called",
        );
        check.absorb("resolve", self.resolver.validate());
        self.options.check(check);
    }
}

impl<S, Req> fmt::Debug for BalanceBuilder<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceBuilder")
            .field("label", &self.label)
            .field("resolver", &self.resolver)
            .field("connector", &self.connector)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
