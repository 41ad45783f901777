//! Hosts and services that DNS knows.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{join, join_all};
use hickory_resolver::proto::rr::RecordType;
use tokio::runtime::Handle;

#[cfg(feature = "tonic")]
use super::config::ServiceConfigs;
use super::{
    answer::{Answer, Target, endpoints},
    ask::{Pool, pool},
    options::{DnsOptions, Families},
};
use crate::{
    Invalid,
    error::Cause,
    invalid::Check,
    random::Random,
    resolve::{
        Resolution, Resolve, Target as NameTarget,
        periodic::{Periodic, Told},
        system::{has_route, is_host, is_host_and_port, routed},
    },
};

/// Resolves `name`, a host and a port such as `users.internal:8080`, through DNS. Every address is one endpoint.
///
/// - **A, AAAA and CNAME** records, by the system's servers, search domains and hosts file, which are read again when they
///   change, or by the servers of [`DnsOptions`]. Where an answer has both families, addresses that this host has no route
///   to are left out. If one family cannot be looked up its last addresses stay beside those of the other.
/// - **How long an answer holds** is what its records say, the shortest of the chain, at least \[5 s\] and at most
///   \[5 min\], spread by \[10 %\]. An early look-up, which a failure to connect asks for, is made at most once per floor.
/// - **That there is nothing** holds as long as the SOA says. A name that does not exist is [`Resolution::Absent`]; one that
///   has no addresses is an empty set. Whatever else is answered, or nothing, is [`Resolution::Failed`] and tried again after a
///   back-off; it takes nothing away.
/// - **One question at a time** for all clients of the process that ask the same servers, and at most 32 questions in all.
///   An answer serves others for the floor, or a fifth of its time if that is longer.
///
/// Two names of one host are two sets of endpoints; nothing is known of a server that answers what is not true.
///
/// ```
/// use std::time::Duration;
/// use mainstay::resolve::{self, DnsOptions, Resolve};
///
/// let users = resolve::dns("users.internal:8080")
///     .options(DnsOptions::default().cap(Duration::from_secs(60)));
/// assert!(users.validate().is_ok());
/// assert!(resolve::dns("users.internal").validate().is_err()); // no port
/// ```
pub fn dns(name: impl Into<String>) -> Dns {
    let name = name.into();
    let question = match name.parse::<SocketAddr>() {
        Ok(address) => Question::Known(address),
        Err(_) => match name.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => Question::Host { host: host.to_owned(), port },
            _ => Question::Wrong,
        },
    };
    Dns::new("dns", name, question)
}

/// Resolves the service `name`, such as `_users._tcp.internal`, by its SRV records: port, priority and weight are theirs.
///
/// Everything that is said of [`dns`] holds here. A target's addresses are those that the server sends along, or are looked
/// up; each is an endpoint, and together they have the target's weight. A target of weight 0 has a small chance beside
/// others (RFC 2782). A target that cannot be looked up keeps its last addresses.
///
/// ```
/// use mainstay::resolve::{self, Resolve};
///
/// assert!(resolve::srv("_users._tcp.internal").validate().is_ok());
/// assert!(resolve::srv("_users._tcp.internal:80").validate().is_err()); // the records know the port
/// ```
pub fn srv(name: impl Into<String>) -> Dns {
    let name = name.into();
    let question = if is_host(&name) { Question::Service(name.clone()) } else { Question::Wrong };
    Dns::new("srv", name, question)
}

/// The resolver made by [`dns`] and [`srv`].
#[derive(Debug)]
pub struct Dns {
    scheme: &'static str,
    name: String,
    options: DnsOptions,
    question: Question,
    early: Arc<AtomicBool>,
    #[cfg(feature = "tonic")]
    configs: Option<Arc<Configs>>,
    periodic: Periodic,
}

/// Who takes service configs, and what was given last.
#[cfg(feature = "tonic")]
#[derive(Debug)]
struct Configs {
    configs: ServiceConfigs,
    /// Which share of the clients this one is among, from 0 to 99, for as long as it lives.
    percent: u8,
    given: Mutex<Option<String>>,
}

#[derive(Clone, Debug)]
enum Question {
    Known(SocketAddr),
    Host { host: String, port: u16 },
    Service(String),
    Wrong,
}

impl Dns {
    fn new(scheme: &'static str, name: String, question: Question) -> Self {
        let periodic =
            Periodic::new(DnsOptions::default().pace(), || Box::pin(async { Resolution::Pending.into() }));
        let dns = Self {
            scheme,
            name,
            options: DnsOptions::default(),
            question,
            early: Arc::default(),
            #[cfg(feature = "tonic")]
            configs: None,
            periodic,
        };
        dns.options(DnsOptions::default())
    }

    /// The schemes: `dns://10.0.0.53/users.internal:8080`, `srv:///_users._tcp.internal`.
    pub(in crate::resolve) fn of(target: &NameTarget) -> Result<Self, Invalid> {
        target.only(&[])?;
        let mut servers = Vec::new();
        for server in target.authority().split(',').filter(|server| !server.is_empty()) {
            let socket = server.parse().or_else(|_| {
                let ip: Result<IpAddr, _> = server.trim_matches(['[', ']']).parse();
                ip.map(|ip| SocketAddr::new(ip, 53))
            });
            let rule = "addresses of servers, with or without a port, separated by commas";
            servers.push(socket.map_err(|_| target.invalid("authority", target.authority(), rule))?);
        }
        let dns = if target.scheme() == "srv" { srv(target.path()) } else { dns(target.path()) };
        Ok(dns.options(DnsOptions::default().servers(servers)))
    }

    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: DnsOptions) -> Self {
        let asking = Arc::new(Asking {
            question: self.question.clone(),
            options: options.clone(),
            early: self.early.clone(),
            #[cfg(feature = "tonic")]
            configs: self.configs.clone(),
            last: Mutex::default(),
            pool: Mutex::default(),
        });
        self.periodic.set_options(options.pace());
        self.periodic.set_ask(move || {
            let asking = asking.clone();
            Box::pin(async move { asking.ask().await })
        });
        self.options = options;
        self
    }

    /// Looks up the service config of gRPC, too \[no\].
    #[cfg(feature = "tonic")]
    #[must_use]
    pub fn service_configs(mut self, configs: ServiceConfigs) -> Self {
        let percent = (crate::random::Entropy.next() % 100) as u8;
        self.configs = Some(Arc::new(Configs { configs, percent, given: Mutex::default() }));
        let options = self.options.clone();
        self.options(options)
    }

    /// Draws jitter from `random` instead of [`Entropy`](crate::random::Entropy).
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.periodic.set_random(Arc::new(random));
        self
    }
}

impl Resolve for Dns {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.periodic.is_new()
            && let Err(invalid) = self.validate()
        {
            return self.periodic.refuse(invalid);
        }
        self.periodic.poll(cx)
    }

    fn refresh(&mut self) {
        self.early.store(true, Relaxed);
        self.periodic.refresh();
    }

    fn describe(&self) -> String {
        format!("{} {}", self.scheme, self.name)
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part(self.scheme, |check| {
                if self.scheme == "srv" {
                    let rule = "a service, such as _users._tcp.internal; its records know the port";
                    check.rule(is_host(&self.name), "name", &self.name, rule);
                } else {
                    let rule = "a host and a port from 1 to 65535, such as users.internal:8080; no scheme, \
                                an IPv6 address in brackets";
                    check.rule(is_host_and_port(&self.name), "name", &self.name, rule);
                }
                self.options.check(check);
            });
        })
    }
}

/// What one resolver asks.
struct Asking {
    question: Question,
    options: DnsOptions,
    /// Whether an early look-up was asked for: an answer that others had before it is not good enough.
    early: Arc<AtomicBool>,
    #[cfg(feature = "tonic")]
    configs: Option<Arc<Configs>>,
    /// The last good addresses of each name and family.
    last: Mutex<HashMap<(String, RecordType), Vec<IpAddr>>>,
    /// Kept from one look-up to the next, with its connections and answers.
    pool: Mutex<Option<Arc<Pool>>>,
}

/// The addresses of one name.
#[derive(Default)]
struct Found {
    addresses: Vec<IpAddr>,
    holds: Option<Duration>,
    /// The name does not exist.
    absent: bool,
    /// Nothing could be looked up.
    failure: Option<Cause>,
    /// One family could not: its last addresses, if any, are among the others.
    trouble: Option<Cause>,
}

impl Asking {
    async fn ask(&self) -> Told {
        let early = self.early.swap(false, Relaxed);
        if let Question::Known(address) = &self.question {
            return self.told(Resolution::bound([*address]), Some(self.options.cap), None);
        }
        let (options, handle) = (self.options.clone(), Handle::current());
        let pool = match tokio::task::spawn_blocking(move || pool(&options, &handle)).await {
            Ok(Ok(pool)) => pool,
            Ok(Err(error)) => return Resolution::Failed(Arc::new(error)).into(),
            Err(error) => return Resolution::Failed(Arc::new(error)).into(),
        };
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
        #[cfg(feature = "tonic")]
        self.configure(&pool, early).await;
        match &self.question {
            Question::Host { host, port } => self.host(&pool, host, *port, early).await,
            Question::Service(name) => self.service(&pool, name, early).await,
            Question::Known(_) | Question::Wrong => Resolution::Pending.into(),
        }
    }

    /// Gives the service config of the name, if it is another one. What cannot be had or read changes nothing.
    #[cfg(feature = "tonic")]
    async fn configure(&self, pool: &Arc<Pool>, early: bool) {
        let Some(taker) = &self.configs else { return };
        let (Question::Host { host: name, .. } | Question::Service(name)) = &self.question else { return };
        let records = match self.answer(pool, &format!("_grpc_config.{name}"), RecordType::TXT, early).await.0
        {
            Answer::Failed(_) => return,
            answer => answer.texts(),
        };
        let chosen = match taker.configs.choose_here(&records, taker.percent) {
            Ok(chosen) => chosen,
            Err(error) => {
                tracing::warn!(target: "mainstay", %name, %error, "the service config stays as it is");
                return;
            }
        };
        let mut given = taker.given.lock().unwrap_or_else(PoisonError::into_inner);
        if *given != chosen {
            taker.configs.give(chosen.as_deref());
            *given = chosen;
        }
    }

    async fn host(&self, pool: &Arc<Pool>, host: &str, port: u16, early: bool) -> Told {
        let found = self.addresses(pool, host, early).await;
        let resolution = match found.failure {
            Some(cause) => Resolution::Failed(cause),
            None if found.absent => Resolution::Absent,
            None => Resolution::bound(self.routed(&found.addresses, port)),
        };
        self.told(resolution, found.holds, found.trouble)
    }

    /// What is told, with how long it holds by its records.
    fn told(&self, resolution: Resolution, ttl: Option<Duration>, trouble: Option<Cause>) -> Told {
        let holds = ttl.map(|ttl| self.options.holds(ttl));
        Told { resolution, holds, trouble: trouble.map(Resolution::Failed) }
    }

    async fn service(&self, pool: &Arc<Pool>, name: &str, early: bool) -> Told {
        let (answer, age) = self.answer(pool, name, RecordType::SRV, early).await;
        let mut holds = match &answer {
            Answer::Failed(cause) => return Resolution::Failed(cause.clone()).into(),
            Answer::Nothing { absent, ttl } => {
                let nothing = Resolution::bound(Vec::<SocketAddr>::new());
                let resolution = if *absent { Resolution::Absent } else { nothing };
                return self.told(resolution, *ttl, None);
            }
            Answer::Records { ttl, .. } => ttl.saturating_sub(age),
        };
        let found = join_all(answer.targets().into_iter().map(|target| async {
            let found = match answer.along(&target.name) {
                Some((addresses, ttl)) => Found { addresses, holds: Some(ttl), ..Found::default() },
                None => self.addresses(pool, &target.name, early).await,
            };
            (target, found)
        }))
        .await;
        let (mut targets, mut failure) = (Vec::<(Target, Vec<IpAddr>)>::new(), None);
        for (target, found) in found {
            holds = holds.min(found.holds.unwrap_or(holds));
            failure = failure.or(found.failure).or(found.trouble);
            let sockets = self.routed(&found.addresses, target.port);
            targets.push((target, sockets.iter().map(SocketAddr::ip).collect()));
        }
        let endpoints = endpoints(&targets);
        match failure {
            // Of some targets nothing was ever known; those of which something is are better than none.
            Some(cause) if endpoints.is_empty() => Resolution::Failed(cause).into(),
            trouble => self.told(Resolution::bound(endpoints), Some(holds), trouble),
        }
    }

    async fn addresses(&self, pool: &Arc<Pool>, host: &str, early: bool) -> Found {
        let ask = async |kind| match (self.options.families, kind) {
            (Families::V4, RecordType::AAAA) | (Families::V6, RecordType::A) => None,
            _ => Some((kind, self.answer(pool, host, kind, early).await)),
        };
        let (four, six) = join(ask(RecordType::A), ask(RecordType::AAAA)).await;
        let (mut found, mut nothing, mut failures) = (Found { absent: true, ..Found::default() }, None, 0);
        let answers: Vec<_> = four.into_iter().chain(six).collect();
        let asked = answers.len();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, (answer, age)) in answers {
            let key = (host.to_owned(), kind);
            match &answer {
                Answer::Records { ttl, .. } => {
                    let (left, addresses) = (ttl.saturating_sub(age), answer.addresses());
                    found.addresses.extend(&addresses);
                    found.holds = Some(found.holds.map_or(left, |holds| holds.min(left)));
                    found.absent = false;
                    last.insert(key, addresses);
                }
                Answer::Nothing { absent, ttl } => {
                    let left = ttl.map(|ttl| ttl.saturating_sub(age));
                    nothing = nothing.into_iter().chain(left).min();
                    found.absent &= *absent;
                    last.remove(&key);
                }
                Answer::Failed(cause) => {
                    failures += 1;
                    found.absent = false;
                    found.failure = Some(cause.clone());
                    found.addresses.extend(last.get(&key).into_iter().flatten());
                }
            }
        }
        // That a host has no address of one family says nothing about how long those of the other hold.
        found.holds = found.holds.or(nothing);
        // Of a host with addresses of one family, that those of the other are not known is borne with.
        if failures > 0 && failures < asked && !found.addresses.is_empty() {
            found.trouble = found.failure.take();
            found.holds = Some(self.options.floor);
        }
        // A server that knows that there is nothing says for how long. An alias that leads nowhere, or to itself, says nothing.
        if found.addresses.is_empty() && !found.absent && found.failure.is_none() && found.holds.is_none() {
            let why = "neither an address nor a SOA that says that there is none";
            if let Answer::Failed(cause) = Answer::failed(host, why) {
                found.failure = Some(cause);
            }
        }
        found
    }

    async fn answer(
        &self,
        pool: &Arc<Pool>,
        name: &str,
        kind: RecordType,
        early: bool,
    ) -> (Answer, Duration) {
        let floor = self.options.floor;
        pool.ask(name, kind, |ttl| if early { floor } else { floor.max(ttl.min(self.options.cap) / 5) }).await
    }

    fn routed(&self, addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
        let sockets = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        routed(sockets, has_route)
    }
}
