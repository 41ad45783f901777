//! Row 19: many clients of a large fleet, each of which uses a small part of it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use mainstay::{
    Endpoint,
    balance::{Balance, BalanceOptions, Distribution, Subset},
    resolve::{self, Endpoints, Feed, Resolution},
    testing::{World, simulate},
};
use tower::Service;

use crate::scenario::{Claim, Outcome, Parameter, Results, Run, Scenario};

pub struct Scale;

/// Endpoints of a client.
const SIZE: u32 = 20;
/// Requests of a client: each of its endpoints has its turn so many times.
const TURNS: u32 = 4;
/// Single servers that go, one after the other.
const SINGLE: usize = 3;

impl Scenario for Scale {
    fn number(&self) -> u32 {
        19
    }

    fn name(&self) -> &'static str {
        "scale"
    }

    fn question(&self) -> &'static str {
        "A thousand clients of ten thousand endpoints, twenty each: how even, and what does a change cost?"
    }

    fn setup(&self) -> String {
        "1,000 balancers share one resolution of 10,000 endpoints, with a subset of 20 each, and send 80 requests in turn. \
         `connections_cv` is the standard deviation of the clients of a server by the mean, `load_max` the busiest server's requests by \
         the mean. Then three servers go, one after the other (`entries_of_one`: the most new connections of a client for one of \
         them), and then one in a hundred is replaced (`connections_of_1pct`: new connections of a client, on average). `random` draws \
         anew at each change."
            .to_owned()
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[
            Parameter { name: "clients", values: &[1_000.0], means: "clients" },
            Parameter { name: "endpoints", values: &[10_000.0], means: "endpoints behind the name" },
        ]
    }

    fn contenders(&self) -> &'static [&'static str] {
        &["random", "rendezvous", "deterministic"]
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["connections_cv", "load_max", "entries_of_one", "connections_of_1pct"]
    }

    fn seeds(&self) -> u64 {
        1
    }

    fn run(&self, run: &Run) -> Outcome {
        let share = |of: f64, least: f64| (of * run.scale).max(least) as usize;
        let clients = share(run.point.get("clients"), 20.0);
        let servers = share(run.point.get("endpoints"), 200.0);
        let mut outcome = Outcome::default();
        simulate(run.seed, async |world| {
            let fleet: Arc<Vec<Server>> =
                Arc::new((0..servers + servers / 100).map(|_| Server::default()).collect());
            let mut set: Vec<Arc<Endpoint>> =
                (0..fleet.len()).map(|server| Arc::new(endpoint(server))).collect();
            let replacements = set.split_off(servers);
            let clients: Vec<One> =
                (0..clients).map(|client| One::new(run.contender, client, clients, &world, &fleet)).collect();
            tell(&clients, set.clone().into()).await;
            let made: Vec<f64> =
                fleet[..servers].iter().map(|server| server.made.load(Relaxed) as f64).collect();
            let (mean, spread) = moments(&made);
            outcome.metrics.insert("connections_cv", spread / mean);
            for client in &clients {
                for _ in 0..SIZE * TURNS {
                    client.balance.send(()).await.expect("servers that answer");
                }
            }
            let served: Vec<f64> =
                fleet[..servers].iter().map(|server| server.served.load(Relaxed) as f64).collect();
            let most = served.iter().copied().fold(0.0, f64::max);
            outcome.metrics.insert("load_max", most / moments(&served).0);
            let mut worst = 0;
            for gone in 0..SINGLE {
                let before: Vec<u64> = clients.iter().map(One::made).collect();
                set.remove((gone * 37) % set.len());
                tell(&clients, set.clone().into()).await;
                let new = clients.iter().zip(before).map(|(client, before)| client.made() - before);
                worst = worst.max(new.max().unwrap_or(0));
            }
            outcome.metrics.insert("entries_of_one", worst as f64);
            let before: u64 = clients.iter().map(One::made).sum();
            let count = replacements.len();
            set.drain(..count);
            set.extend(replacements);
            tell(&clients, set.into()).await;
            let new = clients.iter().map(One::made).sum::<u64>() - before;
            outcome.metrics.insert("connections_of_1pct", new as f64 / clients.len() as f64);
        });
        outcome
    }

    fn judge(&self, results: &Results) -> Vec<Claim> {
        let mut claims = Vec::new();
        for point in results.points() {
            for (contender, metric, owed, bound) in [
                ("rendezvous", "connections_cv", "connections scatter by at most 0.75", 0.75),
                ("rendezvous", "entries_of_one", "at most one entry of a client changes with a server", 1.0),
                ("deterministic", "load_max", "the busiest server has at most 1.1 of the mean", 1.1),
            ] {
                let found = results.spread(&point, contender, metric).map(|spread| spread.greatest);
                claims.push(Claim::at_most(format!("{contender}: {owed}"), found, bound));
            }
        }
        claims
    }

    fn remarks(&self) -> &'static str {
        "By theory the clients of a server scatter by sqrt((1 - 20 / 10,000) x 10,000 / (1,000 x 20)) = 0.71 of the mean where each \
         client draws by chance, and `load_max` is what that comes to for the unluckiest of ten thousand. What a client costs in memory \
         is not measured here: a run has to give the same numbers on every machine."
    }
}

/// What a server has seen.
#[derive(Default)]
struct Server {
    made: AtomicU64,
    served: AtomicU64,
}

fn endpoint(server: usize) -> Endpoint {
    Endpoint::new(format!("server-{server}"))
}

/// A client with what it was told.
struct One {
    balance: Balance<Counted, ()>,
    feed: Feed,
    made: Arc<AtomicU64>,
    draws_anew: bool,
}

impl One {
    fn new(contender: &str, number: usize, clients: usize, world: &World, fleet: &Arc<Vec<Server>>) -> Self {
        let (feed, channel) = resolve::channel();
        let mut options = BalanceOptions::default();
        options.distribution = Distribution::RoundRobin;
        options.slow_start.lasts = Duration::ZERO;
        options.subset = match contender {
            "deterministic" => Subset::deterministic(number as u32, clients as u32, SIZE),
            _ => Subset::rendezvous(SIZE),
        };
        let made = Arc::new(AtomicU64::new(0));
        let (fleet, count) = (fleet.clone(), made.clone());
        let balance = Balance::builder(channel)
            .connect(move |endpoint: &Endpoint| {
                let name = endpoint.address().to_string();
                let server = name.strip_prefix("server-").and_then(|number| number.parse().ok());
                let server: usize = server.expect("one of the fleet's");
                count.fetch_add(1, Relaxed);
                fleet[server].made.fetch_add(1, Relaxed);
                Counted { fleet: fleet.clone(), server }
            })
            .options(options)
            .random(world.random(format!("client {number}")))
            .build()
            .expect("valid options");
        Self { balance, feed, made, draws_anew: contender == "random" }
    }

    fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }
}

/// Tells all clients of a resolution, and waits until they have taken it in.
async fn tell(clients: &[One], set: Endpoints) {
    for (number, client) in (0_u64..).zip(clients) {
        if client.draws_anew {
            let mut options = client.balance.options();
            let seed = client.made().wrapping_mul(0x9E37_79B9_7F4A_7C15)
                ^ number.wrapping_mul(0xBF58_476D_1CE4_E5B9);
            if let Subset::Rendezvous(subset) = Subset::rendezvous(SIZE) {
                options.subset = Subset::Rendezvous(subset.seed(seed));
            }
            client.balance.update(options).expect("valid options");
        }
        client.feed.send(Resolution::Bound(set.clone()));
        client.balance.ready().await.expect("endpoints");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Mean and standard deviation.
fn moments(of: &[f64]) -> (f64, f64) {
    let mean = of.iter().sum::<f64>() / of.len() as f64;
    let variance = of.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / of.len() as f64;
    (mean, variance.sqrt())
}

/// The service of a server: it counts and answers at once.
#[derive(Clone)]
struct Counted {
    fleet: Arc<Vec<Server>>,
    server: usize,
}

impl Service<()> for Counted {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.fleet[self.server].served.fetch_add(1, Relaxed);
        ready(Ok(()))
    }
}
