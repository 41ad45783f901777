//! Questions, each asked once at a time for all clients of the process.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
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

/// A resolver, the questions under way, and the answers of late.
pub(super) struct Pool {
    resolver: TokioResolver,
    /// Asks over TCP, where nothing comes over UDP: some networks let nothing else through.
    over_tcp: Option<TokioResolver>,
    questions: Mutex<HashMap<(String, RecordType), Question>>,
}

#[derive(Default)]
struct Question {
    flight: Option<WeakShared<BoxFuture<'static, Answer>>>,
    answered: Option<(Instant, Answer)>,
}

/// More answers than this are not kept.
const KEPT: usize = 1024;

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
    let over_tcp = (!options.tcp).then(|| resolver(&options.clone().tcp(true))).transpose()?;
    let pool = Arc::new(Pool { resolver: resolver(options)?, over_tcp, questions: Mutex::default() });
    pools.retain(|_, pool| pool.strong_count() > 0);
    pools.insert(key, Arc::downgrade(&pool));
    Ok(pool)
}

fn resolver(options: &DnsOptions) -> Result<TokioResolver, NetError> {
    let (mut config, mut how) = if options.servers.is_empty() {
        read_system_conf()?
    } else {
        let servers = options.servers.iter().map(|server| name_server(*server, options.tcp)).collect();
        (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
    };
    if options.servers.is_empty() && options.tcp {
        let (domain, search, servers) = config.into_parts();
        let servers = servers.into_iter().map(|server| {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            name_server(SocketAddr::new(server.ip, port), true)
        });
        config = ResolverConfig::from_parts(domain, search, servers.collect());
    }
    if let Some(domains) = &options.search {
        let (_, _, servers) = config.into_parts();
        let domains = domains.iter().map(Name::from_ascii).collect::<Result<_, _>>()?;
        config = ResolverConfig::from_parts(None, domains, servers);
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
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = how;
    builder.build()
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
                if ttl.is_some_and(|ttl| age < window(ttl)) {
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
        let mut answered = self.resolver.lookup(name.as_str(), kind).await;
        if matches!(answered, Err(NetError::Timeout))
            && let Some(over_tcp) = &self.over_tcp
            && let Ok(answer) = over_tcp.lookup(name.as_str(), kind).await
        {
            answered = Ok(answer);
        }
        let parts = answered.map(|answer| (answer.answers().to_vec(), answer.additionals().to_vec()));
        let answer = Answer::of(parts, &question);
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
