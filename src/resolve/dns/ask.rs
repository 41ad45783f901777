//! Questions, each asked once at a time for all clients of the process.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
    system_conf::read_system_conf,
};
use tokio::{
    runtime::{Handle, Id},
    sync::Semaphore,
};

use super::{answer::Answer, options::DnsOptions};
use crate::clock;

/// Questions that are asked at the same time, by all clients of the process.
pub(super) const AT_ONCE: usize = 32;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// What is asked of the same servers in the same way on the same runtime is asked by the same pool.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    runtime: Id,
    servers: Vec<SocketAddr>,
    search: Option<Vec<String>>,
    ndots: Option<usize>,
    tcp: bool,
    timeout: Duration,
    attempts: usize,
    /// What the system says of DNS, and which hosts it knows.
    system: Vec<u8>,
    hosts: Vec<u8>,
}

type Pools = Mutex<HashMap<Key, Weak<Pool>>>;

/// The servers, the questions under way, and the answers of late.
pub(super) struct Pool {
    servers: Vec<Server>,
    /// The one that answered last.
    preferred: AtomicUsize,
    questions: Mutex<HashMap<(String, RecordType), Question>>,
}

/// One server, asked by itself: what one cannot say another may, and who could not is told by name.
struct Server {
    name: String,
    resolver: TokioResolver,
    /// Asks over TCP, where nothing comes over UDP: some networks let nothing else through.
    over_tcp: Option<TokioResolver>,
}

#[derive(Default)]
struct Question {
    flight: Option<WeakShared<BoxFuture<'static, Answer>>>,
    answered: Option<(Instant, Answer)>,
}

/// More answers than this are not kept.
const KEPT: usize = 1024;
/// For so long a failure serves others, too (RFC 9520): servers in trouble are not asked by each client for itself.
const FAILED: Duration = Duration::from_secs(1);

/// The pool for `options` as the system is set up now. It blocks: files are read.
pub(super) fn pool(options: &DnsOptions, handle: &Handle) -> Result<Arc<Pool>, NetError> {
    static POOLS: OnceLock<Pools> = OnceLock::new();
    let read = |path: &str| fs::read(Path::new(path)).unwrap_or_default();
    let key = Key {
        runtime: handle.id(),
        servers: options.servers.clone(),
        search: options.search.clone(),
        ndots: options.ndots,
        tcp: options.tcp,
        timeout: options.timeout,
        attempts: options.attempts,
        system: if options.servers.is_empty() { read("/etc/resolv.conf") } else { Vec::new() },
        hosts: read("/etc/hosts"),
    };
    let mut pools = POOLS.get_or_init(Pools::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
        return Ok(pool);
    }
    let servers = servers(options)?;
    let pool = Arc::new(Pool { servers, preferred: AtomicUsize::new(0), questions: Mutex::default() });
    pools.retain(|_, pool| pool.strong_count() > 0);
    pools.insert(key, Arc::downgrade(&pool));
    Ok(pool)
}

fn servers(options: &DnsOptions) -> Result<Vec<Server>, NetError> {
    let (config, mut how) = if options.servers.is_empty() {
        read_system_conf()?
    } else {
        (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
    };
    let (mut domain, mut search, found) = config.into_parts();
    if let Some(domains) = &options.search {
        domain = None;
        search = domains.iter().map(Name::from_ascii).collect::<Result<_, _>>()?;
    }
    if let Some(ndots) = options.ndots {
        how.ndots = ndots;
    }
    how.timeout = options.timeout;
    how.attempts = options.attempts.saturating_sub(1);
    // How long an answer holds is decided here, by the records as they came.
    how.cache_size = 0;
    how.preserve_intermediates = true;
    how.use_hosts_file = ResolveHosts::Always;
    let mut addresses: Vec<SocketAddr> = options.servers.clone();
    // The system lists a server once for each protocol that it speaks.
    for server in found {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        let address = SocketAddr::new(server.ip, port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let build = |server: SocketAddr, tcp: bool| {
        let servers = vec![name_server(server, tcp)];
        let config = ResolverConfig::from_parts(domain.clone(), search.clone(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = how.clone();
        builder.build()
    };
    let one = |server: &SocketAddr| {
        let over_tcp = (!options.tcp).then(|| build(*server, true)).transpose()?;
        Ok(Server { name: server.to_string(), resolver: build(*server, options.tcp)?, over_tcp })
    };
    addresses.iter().map(one).collect()
}

fn name_server(server: SocketAddr, tcp: bool) -> NameServerConfig {
    let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
    let connections = if tcp { vec![ConnectionConfig::tcp()] } else { name_server.connections };
    name_server.connections = connections
        .into_iter()
        .map(|mut connection| {
            connection.port = server.port();
            connection
        })
        .collect();
    name_server
}

impl Server {
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Lookup, NetError> {
        let answered = self.resolver.lookup(name, kind).await;
        match (&answered, &self.over_tcp) {
            (Err(NetError::Timeout), Some(over_tcp)) => over_tcp.lookup(name, kind).await.or(answered),
            _ => answered,
        }
    }
}

impl Pool {
    /// Asks for the records of `kind` that `name` has, unless there is an answer younger than `window` says for its time to
    /// live. The answer, and how old it is.
    pub(super) async fn ask(
        self: &Arc<Self>,
        name: &str,
        kind: RecordType,
        window: impl Fn(Duration) -> Duration,
    ) -> (Answer, Duration) {
        let flight = {
            let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
            if questions.len() > KEPT {
                questions.retain(|_, question| {
                    question.flight.as_ref().is_some_and(|flight| flight.upgrade().is_some())
                });
            }
            let question = questions.entry((name.to_owned(), kind)).or_default();
            if let Some((at, answer)) = &question.answered {
                let age = clock::now().saturating_duration_since(*at);
                let ttl = match answer {
                    Answer::Records { ttl, .. } => Some(*ttl),
                    Answer::Nothing { ttl, .. } => Some(ttl.unwrap_or_default()),
                    Answer::Failed(_) => None,
                };
                if age < ttl.map_or(FAILED, &window) {
                    return (answer.clone(), age);
                }
            }
            match question.flight.as_ref().and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = self.clone().look_up(name.to_owned(), kind).boxed().shared();
                    question.flight = flight.downgrade();
                    flight
                }
            }
        };
        (flight.await, Duration::ZERO)
    }

    async fn look_up(self: Arc<Self>, name: String, kind: RecordType) -> Answer {
        let question = format!("{kind} {name}");
        let Ok(_turn) = TURNS.acquire().await else { return Answer::failed(&question, "no turn") };
        let (first, count) = (self.preferred.load(Relaxed), self.servers.len());
        let (mut answer, mut why) = (None, Vec::new());
        for turn in 0..count {
            let index = (first + turn) % count;
            let server = &self.servers[index];
            let answered = server.ask(&name, kind).await;
            let parts = answered.map(|answer| (answer.answers().to_vec(), answer.additionals().to_vec()));
            match Answer::of(parts) {
                Ok(found) => {
                    self.preferred.store(index, Relaxed);
                    answer = Some(found);
                    break;
                }
                Err(reason) => why.push(format!("{}: {reason}", server.name)),
            }
        }
        let answer = answer.unwrap_or_else(|| match why.as_slice() {
            [] => Answer::failed(&question, "there is no server to ask"),
            why => Answer::failed(&question, &why.join("; ")),
        });
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = questions.get_mut(&(name, kind)) {
            question.answered = Some((clock::now(), answer.clone()));
            question.flight = None;
        }
        answer
    }
}

/// So that the type of a flight is known to be shared between threads.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Shared<BoxFuture<'static, Answer>>>();
};
