//! The resolver, and how it is asked for.

use std::{
    env,
    task::{Context, Poll},
    time::Duration,
};

use super::follow::follow;
use crate::{
    Invalid,
    invalid::Check,
    resolve::{
        Resolution, Resolve, Target, WatchOptions, Watched, watch,
        watched::Begun,
        web::{Access, Base, Secret},
    },
};

/// The port of an agent.
const PORT: u16 = 8500;

/// Resolves to the instances of a service in Consul that are not critical.
///
/// **Problem.** Consul's DNS tells a few addresses of many, without weights, and old ones for as long as their TTL says.
/// **Idea.** The health endpoint (`/v1/health/service/users`) is asked by blocking queries: each waits at the agent until
/// something is newer than the index that was told last, so that a change is here at once. **When.** Wherever there is an
/// agent to ask.
///
/// ```
/// use mainstay::resolve::{self, ConsulOptions, Resolve};
///
/// let users = resolve::consul("users").options(ConsulOptions::default().tag("v2").passing(true));
/// assert!(users.validate().is_ok());
/// assert!(resolve::name("consul://10.0.0.1:8500/users?tag=v2&passing").validate().is_ok());
/// ```
///
/// **In a name**: `tag` (several: all of them), `passing`, `dc`, `near`, `ns`, `partition`, `filter`, `tagged`, and one of
/// `stale`, `consistent`, `cached`. The authority is the agent's; without one, and without [`server`](Consul::server), it is
/// what `CONSUL_HTTP_ADDR` says, with TLS if `CONSUL_HTTP_SSL` is `true`, or `127.0.0.1:8500`. The ACL token is that of
/// [`Access`], or else of the file `CONSUL_HTTP_TOKEN_FILE`, which is read for each question, or of `CONSUL_HTTP_TOKEN`.
///
/// **Who is told.** An instance whose checks, with those of its node, all pass, with the weight `Passing` of its service; one
/// with a warning, with the weight `Warning`, unless only [`passing`](ConsulOptions::passing) ones are asked for. Critical
/// ones and those in maintenance are not told, nor those whose weight is 0. Without an address of its own an instance has
/// that of its node. Locality: Consul's own, else metadata of the service, else of the node; the sub-zone is the node.
/// Metadata is the service's, and `tags`. Consul does not tell a service that it does not know from one without instances:
/// both are absent.
///
/// **The index** must be more than 0; one that goes backwards, and any error, make the next question one that does not wait.
/// Questions that are answered at once for ever are spread by [`pace`](ConsulOptions::pace).
///
/// **Cost.** One connection, HTTP/1.1, and one question in every [`wait`](ConsulOptions::wait). The whole answer is sent
/// whenever anything about the service changes.
///
/// **What is not known.** This was tested against a stand-in that was written from the protocol's documentation, not
/// against a real agent.
///
/// Sources: Consul's API documentation on blocking queries, consistency modes and the health endpoint.
pub fn consul(service: impl Into<String>) -> Consul {
    Consul {
        service: service.into(),
        server: None,
        access: Access::default(),
        options: ConsulOptions::default(),
        begun: Begun::default(),
    }
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// What Consul does unless told otherwise: the leader answers, by its lease.
    #[default]
    Default,
    /// Any server answers, even while there is no leader.
    Stale,
    /// The leader asks the others first.
    Consistent,
    /// The agent answers from its cache, which it keeps fresh in the background.
    Cached,
}

/// What is asked of Consul, and what is made of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsulOptions {
    /// How the agent is borne with.
    pub watch: WatchOptions,
    /// Tags that an instance must have, all of them \[none\].
    pub tags: Vec<String>,
    /// Whether instances with a warning are left out \[false\].
    pub passing: bool,
    /// The datacenter \[the agent's\].
    pub datacenter: Option<String>,
    /// The node by whose round-trip times Consul sorts, `_agent` for the agent's \[none\]. The order means nothing here.
    pub near: Option<String>,
    /// The namespace (Enterprise) \[the token's\].
    pub namespace: Option<String>,
    /// The partition (Enterprise) \[the agent's\].
    pub partition: Option<String>,
    /// An expression of Consul's filter language \[none\].
    pub filter: Option<String>,
    /// Which tagged address, such as `wan` or `lan_ipv6`, stands before the plain one \[none\].
    pub tagged_address: Option<String>,
    /// The metadata of service or node that is the region, where Consul has no locality \[`region`\].
    pub region_key: String,
    /// The metadata of service or node that is the zone, where Consul has no locality \[`zone`\].
    pub zone_key: String,
    /// How fresh an answer must be.
    pub reading: Reading,
    /// For how long a question waits \[60 s, at most 10 min\]. An agent that is gone without a word is noticed after this, a
    /// sixteenth more, and the timeout.
    pub wait: Duration,
    /// The time between two questions, after eight that may follow each other at once \[250 ms\].
    pub pace: Duration,
}

/// Setters of options that are texts.
macro_rules! texts {
    ($($name:ident,)*) => {$(
        #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), ").")]
        pub fn $name(mut self, $name: impl Into<String>) -> Self {
            self.$name = Some($name.into());
            self
        }
    )*};
}

impl ConsulOptions {
    texts! { datacenter, near, namespace, partition, filter, tagged_address, }

    /// Sets [`watch`](Self::watch).
    pub const fn watch(mut self, watch: WatchOptions) -> Self {
        self.watch = watch;
        self
    }

    /// Adds to [`tags`](Self::tags).
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets [`passing`](Self::passing).
    pub const fn passing(mut self, passing: bool) -> Self {
        self.passing = passing;
        self
    }

    /// Sets [`region_key`](Self::region_key).
    pub fn region_key(mut self, key: impl Into<String>) -> Self {
        self.region_key = key.into();
        self
    }

    /// Sets [`zone_key`](Self::zone_key).
    pub fn zone_key(mut self, key: impl Into<String>) -> Self {
        self.zone_key = key.into();
        self
    }

    /// Sets [`reading`](Self::reading).
    pub const fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Sets [`wait`](Self::wait).
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets [`pace`](Self::pace).
    pub const fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    fn check(&self, check: &mut Check) {
        let longest = Duration::from_secs(600);
        let waits = self.wait >= Duration::from_millis(1) && self.wait <= longest;
        check
            .absorb("watch", self.watch.validate())
            .rule(waits, "wait", self.wait, "1 ms to 10 min")
            .duration("pace", self.pace)
            .rule(self.pace <= longest, "pace", self.pace, "at most 10 min");
        for tag in &self.tags {
            check.rule(!tag.is_empty(), "tags", tag, "not empty");
        }
    }
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self {
            watch: WatchOptions::default(),
            tags: Vec::new(),
            passing: false,
            datacenter: None,
            near: None,
            namespace: None,
            partition: None,
            filter: None,
            tagged_address: None,
            region_key: "region".to_owned(),
            zone_key: "zone".to_owned(),
            reading: Reading::Default,
            wait: Duration::from_secs(60),
            pace: Duration::from_millis(250),
        }
    }
}

/// The resolver made by [`consul`].
#[derive(Debug)]
pub struct Consul {
    service: String,
    /// Where it is said to be, if it is, or the text that is no address.
    server: Option<Result<Base, String>>,
    access: Access,
    options: ConsulOptions,
    begun: Begun,
}

impl Consul {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: ConsulOptions) -> Self {
        self.options = options;
        self
    }

    /// Asks the agent or server at `url`: `10.0.0.1:8500`, `https://consul.internal:8501`.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        self.server = Some(base(url, false));
        self
    }

    /// Replaces what the agent is shown, and by what it is known.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The scheme: `consul:///users?tag=v2`.
    pub(in crate::resolve) fn of(target: &Target) -> Result<Self, Invalid> {
        const READINGS: [(&str, Reading); 3] =
            [("stale", Reading::Stale), ("consistent", Reading::Consistent), ("cached", Reading::Cached)];
        target.only(&[
            "tag",
            "passing",
            "dc",
            "near",
            "ns",
            "partition",
            "filter",
            "tagged",
            "stale",
            "consistent",
            "cached",
        ])?;
        let mut check = Check::default();
        let mut flag = |key: &str| match target.value(key) {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(value) => {
                check.rule(false, &format!("name.query.{key}"), value, "nothing, true or false");
                false
            }
        };
        let passing = flag("passing");
        let readings: Vec<_> = READINGS.into_iter().filter(|(key, _)| flag(key)).collect();
        let names: Vec<&str> = readings.iter().map(|(key, _)| *key).collect();
        check.rule(readings.len() <= 1, "name.query", names, "one of stale, consistent, cached");
        check.finish()?;
        let text = |key: &str| target.value(key).filter(|value| !value.is_empty()).map(str::to_owned);
        let mut resolver = consul(target.path());
        resolver.options = ConsulOptions {
            tags: target.values("tag").map(str::to_owned).collect(),
            passing,
            datacenter: text("dc"),
            near: text("near"),
            namespace: text("ns"),
            partition: text("partition"),
            filter: text("filter"),
            tagged_address: text("tagged"),
            reading: readings.first().map_or(Reading::Default, |(_, reading)| *reading),
            ..ConsulOptions::default()
        };
        if !target.authority().is_empty() {
            resolver = resolver.server(target.authority());
        }
        Ok(resolver)
    }

    fn base(&self) -> Result<Base, String> {
        match &self.server {
            Some(server) => server.clone(),
            None => {
                let said = env::var("CONSUL_HTTP_ADDR").ok().filter(|address| !address.is_empty());
                let is_tls = env::var("CONSUL_HTTP_SSL").is_ok_and(|said| said == "true" || said == "1");
                base(said.as_deref().unwrap_or("127.0.0.1"), is_tls)
            }
        }
    }

    /// With the token that Consul's own tools would show, if no other was said.
    fn shown(&self) -> Access {
        let mut access = self.access.clone();
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if access.token.is_none() {
            access.token = match env::var_os("CONSUL_HTTP_TOKEN_FILE").filter(|path| !path.is_empty()) {
                Some(path) => Some(Secret::file(path)),
                None => is_set("CONSUL_HTTP_TOKEN").then(|| Secret::variable("CONSUL_HTTP_TOKEN")),
            };
        }
        access
    }
}

/// Or what may be shown of a text that is no address.
fn base(url: &str, is_tls: bool) -> Result<Base, String> {
    let whole = if is_tls && !url.contains("://") { format!("https://{url}") } else { url.to_owned() };
    Base::parse(&whole, PORT).ok_or_else(|| url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned())
}

impl Consul {
    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let base = self.base().map_err(|url| Check::problem("consul.server", url, "an address"))?;
        let (access, service, options) = (self.shown(), self.service.clone(), self.options.clone());
        let begin = move |tell| follow(base.clone(), access.clone(), service.clone(), options.clone(), tell);
        Ok(watch(self.describe(), begin))
    }
}

impl Resolve for Consul {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.begun.is_new() {
            self.begun = self.begin().into();
        }
        self.begun.poll_next(cx)
    }

    fn describe(&self) -> String {
        match self.base() {
            Ok(base) => format!("consul {} at {base}", self.service),
            Err(_) => format!("consul {}", self.service),
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("consul", |check| {
                check.rule(!self.service.is_empty(), "service", &self.service, "the name of a service");
                if let Err(url) = self.base() {
                    check.rule(false, "server", url, "host:port, http://host:port or https://host:port");
                }
                check.part("access", |check| self.access.check(check));
                self.options.check(check);
            });
        })
    }
}
