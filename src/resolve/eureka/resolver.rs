//! The resolver, and how it is asked for.

use std::task::{Context, Poll};

use super::follow::follow;
use crate::{
    Invalid,
    invalid::Check,
    resolve::{
        PollOptions, Resolution, Resolve, Target, Watched, watch,
        watched::Begun,
        web::{Access, Base},
    },
};

/// The port of a server, unless it is said.
const PORT: u16 = 8761;

/// What is looked for: all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) application: Option<String>,
    pub(super) vip: Option<String>,
    pub(super) secure_vip: Option<String>,
}

/// Resolves to the instances of `application` in Eureka that are `UP`.
///
/// **Problem.** Eureka tells whole registries, from caches that are half a minute old, and a server that has just begun
/// tells an empty one. **Idea.** The registry is fetched once, then what changed of it (`/apps/delta`); a copy whose hash is
/// not the server's, or that is older than two minutes, is thrown away and fetched in full. **When.** Where Eureka is there
/// already.
///
/// ```
/// use mainstay::resolve::{self, Resolve};
///
/// let users = resolve::eureka("USERS").server("http://10.0.0.1:8761/eureka").server("http://10.0.0.2:8761/eureka");
/// assert!(users.validate().is_ok());
/// assert!(resolve::name("eureka://10.0.0.1:8761,10.0.0.2:8761/USERS").validate().is_ok());
/// assert!(resolve::name("eureka://10.0.0.1:8761/?vip=users.internal").validate().is_ok());
/// ```
///
/// **In a name** the authority is one server or several, which are tried in turn; without it, it is `127.0.0.1:8761`. The
/// path is an application; `vip` and `svip` are virtual addresses, of which an instance may have several, and may stand in
/// its place. `svip` means the secure port, and so does `secure`. `region` (several) adds remote regions. An address
/// without a path gets `/eureka`; Netflix' own servers want `/eureka/v2`. A user and a password in the address are shown
/// to the server and to nobody else.
///
/// **Who is told.** Instances that are `UP`; with [`all`](EurekaOptions::all) those that are `OUT_OF_SERVICE` as `Draining`,
/// and `DOWN`, `STARTING` and `UNKNOWN` ones as `Unhealthy`. A port that is not enabled is none. The zone is
/// `availability-zone` of the datacenter's metadata, or else `zone` of the instance's, the region its `region`.
///
/// **What is not believed at once.** A set that lost more than half of its endpoints since the last look is asked for once
/// more, in full and of the next server, before it is told: servers that have just begun, or that lost their peers, know of
/// less than there is. After that it is told, and what it means for requests is
/// [`Steady`](crate::resolve::Steady)'s to decide. Eureka's self-preservation keeps instances that are gone: that they fail is for the
/// health of endpoints to find.
///
/// **Cost.** A question every 30 s, and a copy of every instance's status, since the hash is made of them.
///
/// **What is not known.** This was tested against a stand-in that was written from the protocol's documentation, which was
/// in turn held against the independent client `py-eureka-client`; not against a real server.
///
/// Sources: Eureka's REST operations; Netflix' `eureka-client` for the order of deltas, hashes and full fetches.
pub fn eureka(application: impl Into<String>) -> Eureka {
    let wanted = Wanted { application: Some(application.into()), ..Wanted::default() };
    Eureka {
        wanted,
        servers: Vec::new(),
        access: Access::default(),
        options: EurekaOptions::default(),
        begun: Begun::default(),
    }
}

/// What is asked of Eureka, and what is made of it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EurekaOptions {
    /// When it is asked again \[every 30 s, 10 % more or less\].
    pub poll: PollOptions,
    /// Whether instances that are not `UP` are told, too, as what they are \[false\].
    pub all: bool,
    /// Whether their secure port is taken \[false; true for a secure virtual address\].
    pub secure: bool,
    /// Whether their host name is taken in place of their address \[false\].
    pub host_name: bool,
    /// Remote regions whose instances are told, too \[none\].
    pub regions: Vec<String>,
}

impl EurekaOptions {
    /// Sets [`poll`](Self::poll).
    pub const fn poll(mut self, poll: PollOptions) -> Self {
        self.poll = poll;
        self
    }

    /// Sets [`all`](Self::all).
    pub const fn all(mut self, all: bool) -> Self {
        self.all = all;
        self
    }

    /// Sets [`secure`](Self::secure).
    pub const fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets [`host_name`](Self::host_name).
    pub const fn host_name(mut self, host_name: bool) -> Self {
        self.host_name = host_name;
        self
    }

    /// Adds to [`regions`](Self::regions).
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.regions.push(region.into());
        self
    }
}

/// The resolver made by [`eureka`].
#[derive(Debug)]
pub struct Eureka {
    wanted: Wanted,
    /// Or the text that is no address.
    servers: Vec<Result<Base, String>>,
    access: Access,
    options: EurekaOptions,
    begun: Begun,
}

impl Eureka {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: EurekaOptions) -> Self {
        self.options = options;
        self
    }

    /// Asks the server at `url`, too. The next is asked when one does not answer.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
        let whole = if bare.contains('/') { url.to_owned() } else { format!("{url}/eureka") };
        let shown = || url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned();
        self.servers.push(Base::parse(&whole, PORT).ok_or_else(shown));
        self
    }

    /// Looks for instances with this virtual address, whatever their application is if that is empty.
    #[must_use]
    pub fn vip(mut self, vip: impl Into<String>) -> Self {
        self.wanted.vip = Some(vip.into());
        self
    }

    /// Looks for instances with this secure virtual address, at their secure ports.
    #[must_use]
    pub fn secure_vip(mut self, vip: impl Into<String>) -> Self {
        self.wanted.secure_vip = Some(vip.into());
        self
    }

    /// Replaces what the servers are shown, and by what they are known.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The scheme: `eureka://10.0.0.1:8761/USERS`.
    pub(in crate::resolve) fn of(target: &Target) -> Result<Self, Invalid> {
        target.only(&["vip", "svip", "secure", "region"])?;
        let mut resolver = eureka(target.path());
        resolver.wanted.vip = target.value("vip").map(str::to_owned);
        resolver.wanted.secure_vip = target.value("svip").map(str::to_owned);
        resolver.options.regions = target.values("region").map(str::to_owned).collect();
        resolver.options.secure = match target.value("secure") {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(value) => return Err(target.invalid("query.secure", value, "nothing, true or false")),
        };
        for server in target.authority().split(',').map(str::trim).filter(|server| !server.is_empty()) {
            resolver = resolver.server(server);
        }
        Ok(resolver)
    }

    fn bases(&self) -> Vec<Base> {
        if self.servers.is_empty() {
            return Base::parse("http://127.0.0.1/eureka", PORT).into_iter().collect();
        }
        self.servers.iter().flatten().cloned().collect()
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = self.wanted.clone();
        wanted.application = wanted.application.filter(|name| !name.is_empty());
        wanted
    }
}

impl Eureka {
    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let (bases, access) = (self.bases(), self.access.clone());
        let (wanted, options) = (self.wanted(), self.options.clone());
        let begin = move |tell| follow(bases.clone(), access.clone(), wanted.clone(), options.clone(), tell);
        Ok(watch(self.describe(), begin))
    }
}

impl Resolve for Eureka {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.begun.is_new() {
            self.begun = self.begin().into();
        }
        self.begun.poll_next(cx)
    }

    fn refresh(&mut self) {
        self.begun.refresh();
    }

    fn describe(&self) -> String {
        let wanted = &self.wanted;
        let names = [&wanted.application, &wanted.vip, &wanted.secure_vip];
        let names: Vec<&str> =
            names.into_iter().flatten().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let servers: Vec<String> = self.bases().iter().map(Base::to_string).collect();
        format!("eureka {} at {}", names.join(" "), servers.join(", "))
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("eureka", |check| {
                let wanted = self.wanted();
                let names = [&wanted.application, &wanted.vip, &wanted.secure_vip];
                let is_said = names.iter().any(|name| name.is_some());
                check.rule(is_said, "application", "", "an application, a vip or an svip");
                for vip in [&wanted.vip, &wanted.secure_vip].into_iter().flatten() {
                    check.rule(!vip.is_empty(), "vip", vip, "not empty");
                }
                for url in self.servers.iter().filter_map(|server| server.as_ref().err()) {
                    check.rule(
                        false,
                        "server",
                        url,
                        "host:port, http://host:port/eureka or https://host:port/eureka",
                    );
                }
                check.part("access", |check| self.access.check(check));
                check.part("poll", |check| self.options.poll.check(check));
            });
        })
    }
}
