//! Who is tried: each a client of the same fleet, as one boxed service.

use std::{
    collections::HashMap,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use mainstay::{
    Client, Endpoint, Ratio,
    balance::{BalanceOptions, Candidates, Load},
    budget::BudgetOptions,
    client::ClientBuilder,
    hedge::{Delay, HedgeOptions},
    random::{Random, Seeded},
    report::Report,
    retry::RetryPolicy,
    testing::{Classifier, Connection, Description, Fleet, Reporting, Request, Response, World},
};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt as _,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma, PendingRequests},
    retry::{
        Policy, Retry,
        budget::{Budget as _, TpsBudget},
    },
    timeout::Timeout,
    util::BoxService,
};

/// A client of a fleet.
pub type Sender = BoxService<Request, Response, BoxError>;

/// What every contender of a scenario is given.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long an attempt may take.
    pub attempt_limit: Duration,
    /// How long a request may take in all.
    pub deadline: Duration,
    /// How often a request may be tried, by those that try again.
    pub attempts: u32,
    /// Where the client stands.
    pub place: u32,
    /// How many attempts of the client the fleet can work on at a time, for those that are told.
    pub capacity: Option<u32>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            attempt_limit: Duration::from_secs(1),
            deadline: Duration::from_secs(3),
            attempts: 3,
            place: 0,
            capacity: None,
        }
    }
}

/// Makes client number `number` of a contender.
///
/// | name | is |
/// |---|---|
/// | `random`, `round_robin` | what they say |
/// | `tower_pending`, `tower_ewma` | tower's `Balance` (two choices) over `PendingRequests`, or over `PeakEwma` with 30 ms and 10 s |
/// | `mainstay` | `Client` with its defaults, retries included, within the terms |
/// | `mainstay_once` | the same without retries, to be compared with those that have none |
/// | `mainstay_reports` | the same, where servers say on each answer how much they have in flight |
/// | `mainstay_in_flight`, `mainstay_in_flight_3` | the same, by requests in flight alone, the best of two or three |
/// | `mainstay_peak` | the same, by requests in flight times peak EWMA, the best of four |
/// | `mainstay_probes` | the same where answers say nothing, and a server is asked how much it has in flight for each two requests |
/// | `mainstay_quantile` | the same, by requests in flight times the 90th percentile of latency |
/// | `mainstay_hot_cold`, `mainstay_hot_cold_reports` | the same, by Prequal's rule, the best of eight; where servers say what they have in flight |
/// | `mainstay_answered`, `mainstay_answered_reports` | with the default load, the best of four of those that have answered in the last second; where servers say what they have in flight |
/// | `mainstay_hot_cold_answered` | by Prequal's rule, the best of eight of those |
/// | `mainstay_two`, `mainstay_six` | the same, with the default load and the best of two, or of six |
/// | `oracle_p2c`, `oracle_p3c`, `oracle_all` | two draws, three, or all servers, by the true queue and speed |
/// | `nothing` | one attempt, at random |
/// | `naive` | all the attempts at once after each other, at random |
/// | `token_bucket` | as `naive`, within a bucket of 10 tokens: a success pays in 0.1, a retry takes out 1 |
/// | `mainstay_hedged` | `mainstay_once` with default hedging: 2 % of the requests, after the 99th percentile |
/// | `hedge_always` | the same, everything to two servers at once, whatever it costs |
/// | `hedge_p95`, `hedge_p98` | the same, after this percentile, without a share or a budget |
/// | `hedge_spare` | the same, three attempts at a time and as many hedges as requests, as far as there is capacity to spare; it is told its part of that |
/// | `tower_retry` | tower's `Retry` with `TpsBudget` over `Buffer(tower_ewma)` |
///
/// # Panics
/// For any other name.
pub fn sender(name: &str, world: &World, fleet: &Fleet, number: u32, terms: Terms) -> Sender {
    let random = world.random(format!("client {number}"));
    let once = |load, choices| {
        let mut options = BalanceOptions::default();
        (options.load, options.choices) = (load, choices);
        boxed(mainstay(
            fleet,
            Terms { attempts: 1, ..terms },
            world.random(format!("client {number}")),
            options,
        ))
    };
    let limit = |picker: Picker| Timeout::new(picker, terms.attempt_limit);
    match name {
        "random" | "nothing" => boxed(limit(Picker::new(fleet, terms.place, random, pick_random))),
        "round_robin" => boxed(limit(Picker::new(fleet, terms.place, random, pick_in_turn))),
        "oracle_p2c" => boxed(limit(Picker::new(fleet, terms.place, random, pick_of_two))),
        "oracle_p3c" => boxed(limit(Picker::new(fleet, terms.place, random, pick_of_three))),
        "oracle_all" => boxed(limit(Picker::new(fleet, terms.place, random, pick_of_all))),
        "naive" => {
            let retry = Naive::new(terms.attempts);
            let service = Retry::new(retry, limit(Picker::new(fleet, terms.place, random, pick_random)));
            boxed(Timeout::new(service, terms.deadline))
        }
        "token_bucket" => {
            let retry = Bucketed { left: terms.attempts - 1, tenths: Arc::new(AtomicUsize::new(BUCKET)) };
            let service = Retry::new(retry, limit(Picker::new(fleet, terms.place, random, pick_random)));
            boxed(Timeout::new(service, terms.deadline))
        }
        "tower_pending" => {
            let done = CompleteOnResponse::default();
            let services: Vec<_> =
                connections(fleet, terms.place).map(|one| PendingRequests::new(one, done)).collect();
            let services = ServiceList::new::<Request>(services.into_iter());
            boxed(Timeout::new(Balance::from_rng(services, Rng(random)), terms.attempt_limit))
        }
        "tower_ewma" => boxed(Timeout::new(tower_ewma(fleet, terms, random), terms.attempt_limit)),
        "tower_retry" => {
            let balance = Timeout::new(tower_ewma(fleet, terms, random), terms.attempt_limit);
            let service = ServiceBuilder::new()
                .timeout(terms.deadline)
                .retry(Budgeted { left: terms.attempts - 1, budget: Arc::new(TpsBudget::default()) })
                .service(Buffer::new(balance, 1024));
            boxed(service)
        }
        "mainstay" => boxed(mainstay(fleet, terms, random, BalanceOptions::default())),
        "mainstay_once" => {
            boxed(mainstay(fleet, Terms { attempts: 1, ..terms }, random, BalanceOptions::default()))
        }
        "mainstay_probes" => {
            let mut options = BalanceOptions::default();
            options.reports = true;
            // Half of a budget that nothing else draws on.
            options.probes = options.probes.share(Ratio::percent::<50>());
            let budget = BudgetOptions::default().share(Ratio::percent::<50>());
            let client = client(fleet, Terms { attempts: 1, ..terms }, random, options);
            let client = client.budget(budget).probe(probe(fleet));
            boxed(client.build().expect("the terms of the scenarios hold together"))
        }
        "mainstay_reports" | "mainstay_hot_cold_reports" | "mainstay_answered_reports" => {
            let mut options = BalanceOptions::default();
            options.reports = true;
            if name == "mainstay_hot_cold_reports" {
                (options.load, options.choices) = (prequal(), 8);
            }
            if name == "mainstay_answered_reports" {
                options.candidates = answered();
            }
            let client = client(fleet, Terms { attempts: 1, ..terms }, random, options).classify(Reporting);
            boxed(client.build().expect("the terms of the scenarios hold together"))
        }
        "mainstay_hedged" => hedged(fleet, terms, random, HedgeOptions::default()),
        "hedge_always" => {
            let at_once = HedgeOptions::default().delay(Delay::Fixed(Duration::ZERO)).share(None);
            hedged(fleet, terms, random, at_once)
        }
        "hedge_p95" => hedged(fleet, terms, random, after_percentile(Ratio::percent::<95>())),
        "hedge_p98" => hedged(fleet, terms, random, after_percentile(Ratio::percent::<98>())),
        "hedge_spare" => {
            let options = HedgeOptions::default().share(Ratio::ONE).capacity(terms.capacity);
            // A client with eight requests a second is warm after four.
            hedged(
                fleet,
                terms,
                random,
                options.max_attempts(3).samples(30).max_utilisation(Ratio::percent::<75>()),
            )
        }
        "mainstay_in_flight" => once(Load::InFlight, 2),
        "mainstay_in_flight_3" => once(Load::InFlight, 3),
        "mainstay_peak" => once(Load::PeakEwma { decay: Duration::from_secs(10) }, 4),
        "mainstay_quantile" => {
            once(Load::Quantile { share: Ratio::percent::<90>(), half_life: Duration::from_secs(10) }, 4)
        }
        "mainstay_hot_cold" => once(prequal(), 8),
        "mainstay_answered" => {
            let mut options = BalanceOptions::default();
            options.candidates = answered();
            boxed(mainstay(fleet, Terms { attempts: 1, ..terms }, random, options))
        }
        "mainstay_hot_cold_answered" => {
            let mut options = BalanceOptions::default();
            (options.load, options.choices, options.candidates) = (prequal(), 8, answered());
            boxed(mainstay(fleet, Terms { attempts: 1, ..terms }, random, options))
        }
        "mainstay_two" => once(Load::default(), 2),
        "mainstay_six" => once(Load::default(), 6),
        _ => panic!("there is no contender {name}"),
    }
}

/// Asks a server how much it has in flight, over the same network.
fn probe(fleet: &Fleet) -> impl Fn(Connection, Arc<Endpoint>) -> Probed + Send + Sync + 'static {
    const NETWORK: Duration = Duration::from_millis(1);
    let servers: Arc<HashMap<String, usize>> = Arc::new(
        fleet.endpoints().iter().enumerate().map(|(index, one)| (one.address().to_string(), index)).collect(),
    );
    let fleet = fleet.clone();
    move |_, endpoint| {
        let server = servers.get(&endpoint.address().to_string()).map(|index| fleet.server(*index));
        Box::pin(async move {
            tokio::time::sleep(NETWORK).await;
            let in_flight = server?.in_flight();
            tokio::time::sleep(NETWORK).await;
            Some(Report::default().in_flight(in_flight as u32))
        })
    }
}

type Probed = Pin<Box<dyn Future<Output = Option<Report>> + Send>>;

/// With Prequal's age.
fn answered() -> Candidates {
    Candidates::Answered { within: Duration::from_secs(1) }
}

fn prequal() -> Load {
    Load::HotCold { cold: Ratio::percent::<84>(), half_life: Duration::from_secs(10) }
}

fn mainstay(
    fleet: &Fleet,
    terms: Terms,
    random: Seeded,
    options: BalanceOptions,
) -> Client<Connection, Request> {
    client(fleet, terms, random, options).build().expect("the terms of the scenarios hold together")
}

fn after_percentile(percentile: Ratio) -> HedgeOptions {
    HedgeOptions::default().delay(Delay::Percentile(percentile)).share(None)
}

/// A client with one attempt and those beside it. Its budget is no bound: what is looked at is the hedges' own.
fn hedged(fleet: &Fleet, terms: Terms, random: Seeded, options: HedgeOptions) -> Sender {
    let budget = BudgetOptions::default().share(Ratio::ONE).reserve(1_000);
    let client = client(fleet, Terms { attempts: 1, ..terms }, random, BalanceOptions::default());
    boxed(client.hedge(options).budget(budget).build().expect("the terms of the scenarios hold together"))
}

/// mainstay's client with default options but for the terms.
pub fn client(
    fleet: &Fleet,
    terms: Terms,
    random: Seeded,
    options: BalanceOptions,
) -> ClientBuilder<Connection, Request> {
    unconnected(fleet, terms, random, options).connect(fleet.connect_from(terms.place))
}

/// The same without a word on how it connects.
pub fn unconnected(
    fleet: &Fleet,
    terms: Terms,
    random: Seeded,
    mut options: BalanceOptions,
) -> ClientBuilder<Connection, Request> {
    options.attempt_limit = Some(terms.attempt_limit);
    Client::builder("lab")
        .resolve(fleet.resolver())
        .describe(Description)
        .classify(Classifier)
        .deadline(terms.deadline)
        .balance(options)
        .retry(RetryPolicy::default().max_attempts(terms.attempts))
        .random(random)
}

fn boxed<S>(service: S) -> Sender
where
    S: Service<Request, Response = Response> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    BoxService::new(service.map_err(Into::into))
}

fn connections(fleet: &Fleet, place: u32) -> impl Iterator<Item = Connection> {
    let connect = fleet.connect_from(place);
    fleet.endpoints().into_iter().map(move |endpoint| connect(&endpoint))
}

type TowerEwma = Balance<ServiceList<std::vec::IntoIter<PeakEwma<Connection>>>, Request>;

fn tower_ewma(fleet: &Fleet, terms: Terms, random: Seeded) -> TowerEwma {
    let start = Duration::from_millis(30);
    let decay_ns = Duration::from_secs(10).as_nanos() as f64;
    let done = CompleteOnResponse::default();
    let services: Vec<_> =
        connections(fleet, terms.place).map(|one| PeakEwma::new(one, start, decay_ns, done)).collect();
    Balance::from_rng(ServiceList::new::<Request>(services.into_iter()), Rng(random))
}

/// Chance for tower.
struct Rng(Seeded);

impl tower::util::rng::Rng for Rng {
    fn next_u64(&mut self) -> u64 {
        self.0.next()
    }
}

/// A balancer that knows what no client knows, or nothing.
#[derive(Clone)]
struct Picker {
    fleet: Fleet,
    place: u32,
    servers: usize,
    random: Arc<Seeded>,
    turn: Arc<AtomicUsize>,
    pick: fn(&Picker) -> usize,
}

impl Picker {
    fn new(fleet: &Fleet, place: u32, random: Seeded, pick: fn(&Self) -> usize) -> Self {
        let servers = fleet.len();
        let turn = Arc::new(AtomicUsize::new((random.next() % servers as u64) as usize));
        Self { fleet: fleet.clone(), place, servers, random: Arc::new(random), turn, pick }
    }

    fn draw(&self, among: usize) -> usize {
        (self.random.next() % among as u64) as usize
    }

    fn expected(&self, server: usize) -> f64 {
        self.fleet.server(server).expected()
    }
}

fn pick_random(picker: &Picker) -> usize {
    picker.draw(picker.servers)
}

fn pick_in_turn(picker: &Picker) -> usize {
    picker.turn.fetch_add(1, Relaxed) % picker.servers
}

fn pick_of_two(picker: &Picker) -> usize {
    let first = picker.draw(picker.servers);
    let second = picker.draw(picker.servers - 1);
    let second = second + usize::from(second >= first);
    if picker.expected(second) < picker.expected(first) { second } else { first }
}

fn pick_of_three(picker: &Picker) -> usize {
    let mut best: Option<(f64, usize)> = None;
    let mut seen = [usize::MAX; 3];
    for place in 0..3 {
        let server = loop {
            let drawn = picker.draw(picker.servers);
            if !seen.contains(&drawn) {
                break drawn;
            }
        };
        seen[place] = server;
        let expected = picker.expected(server);
        if best.is_none_or(|(least, _)| expected < least) {
            best = Some((expected, server));
        }
    }
    best.map_or(0, |(_, server)| server)
}

fn pick_of_all(picker: &Picker) -> usize {
    // From a random place on, so that a tie is one at random.
    let start = picker.draw(picker.servers);
    let servers = (0..picker.servers).map(|offset| (start + offset) % picker.servers);
    let expected = servers.map(|server| (picker.expected(server), server));
    expected.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(start, |(_, server)| server)
}

impl Service<Request> for Picker {
    type Response = Response;
    type Error = <Connection as Service<Request>>::Error;
    type Future = <Connection as Service<Request>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let server = (self.pick)(self);
        self.fleet.reach(self.place, server).call(request)
    }
}

/// Tries again whatever happened, at once.
#[derive(Clone)]
pub struct Naive {
    left: u32,
}

impl Naive {
    /// So many attempts in all.
    pub fn new(attempts: u32) -> Self {
        Self { left: attempts.saturating_sub(1) }
    }
}

impl<E> Policy<Request, Response, E> for Naive {
    type Future = Ready<()>;

    fn retry(&mut self, request: &mut Request, result: &mut Result<Response, E>) -> Option<Ready<()>> {
        if result.is_ok() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        *request = request.again();
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(*request)
    }
}

/// What tower's documentation shows: tries again within its budget.
#[derive(Clone)]
struct Budgeted {
    left: u32,
    budget: Arc<TpsBudget>,
}

impl<E> Policy<Request, Response, E> for Budgeted {
    type Future = Ready<()>;

    fn retry(&mut self, request: &mut Request, result: &mut Result<Response, E>) -> Option<Ready<()>> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        if !self.budget.withdraw() {
            return None;
        }
        *request = request.again();
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(*request)
    }
}

/// A full bucket, in tenths of a token: what gRPC's throttle and the AWS SDKs start with, scaled to ten.
const BUCKET: usize = 100;

/// Tries again as long as there is a token.
#[derive(Clone)]
struct Bucketed {
    left: u32,
    tenths: Arc<AtomicUsize>,
}

impl<E> Policy<Request, Response, E> for Bucketed {
    type Future = Ready<()>;

    fn retry(&mut self, request: &mut Request, result: &mut Result<Response, E>) -> Option<Ready<()>> {
        let change = |by: fn(usize) -> Option<usize>| self.tenths.fetch_update(Relaxed, Relaxed, by).is_ok();
        if result.is_ok() {
            change(|tenths| Some((tenths + 1).min(BUCKET)));
            return None;
        }
        let left = self.left.checked_sub(1)?;
        if !change(|tenths| tenths.checked_sub(10)) {
            return None;
        }
        self.left = left;
        *request = request.again();
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(*request)
    }
}
