//! The resolver, and how it is asked for.

use std::{
    path::PathBuf,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    config::Source,
    follow::{LONGEST, follow},
    name::Name,
};
use crate::{
    Invalid,
    invalid::Check,
    resolve::{
        Resolution, Resolve, Target, WatchOptions, Watched, watch,
        watched::Begun,
        web::{Access, Base},
    },
};

/// Resolves to the pods behind a service of Kubernetes: `users.prod:http`.
///
/// **Problem.** A service's own address balances connections, not requests, and knows nothing of retries, latency and
/// zones. **Idea.** Its EndpointSlices (`discovery.k8s.io/v1`) are listed, then watched from the version that was listed,
/// so that a change is here as soon as the API tells it and none is missed in between. **When.** In a cluster, for every
/// service that is called often. A headless service over [`dns`](fn@super::super::dns) needs no right to read slices, and
/// is told later and without readiness, zones and ports.
///
/// ```
/// use mainstay::resolve::{self, KubernetesOptions, Resolve};
///
/// let users = resolve::kubernetes("users.prod:http");
/// assert!(users.validate().is_ok());
/// // The same by name, with the hints of a zone: kubernetes:///users.prod:http?zone=eu-west-1a
/// let near = users.options(KubernetesOptions::default().zone("eu-west-1a"));
/// # let _ = near;
/// ```
///
/// **The name** is `service[.namespace][:port]`. Without a namespace it is that of the pod or the kubeconfig. The port is
/// the name of a port of the service, or the number of the pods' own port (`targetPort`), which need not be listed; it may
/// be left out where there is only one. UDP and SCTP are not looked at.
///
/// **Who is told.** As kube-proxy has it: a pod that is ready, which is what a missing condition means, is
/// [`Healthy`](crate::endpoint::Reported::Healthy); one that is on its way out and still serves is `Draining`, unless no
/// other is left; any other is not told. A pod with an IPv4 and an IPv6 address is one endpoint, by its uid. The zone and,
/// as sub-zone, the node are its locality; the region is not known from slices. Metadata: `pod`, and `for-zones` for
/// topology hints, which are honoured if [`zone`](KubernetesOptions::zone) is said. A service without slices is absent; one
/// that is scaled to nothing is empty.
///
/// **Credentials**, of which each is read anew as it rotates: in a pod those of its account, elsewhere those of the
/// kubeconfig (`KUBECONFIG`, `~/.kube/config`) with tokens, token files and client certificates; or
/// [`server`](Kubernetes::server). A kubeconfig that asks for an exec plugin, an `auth-provider`, a password or a proxy is
/// refused, and says so. The account needs the verbs `list` and `watch` on `endpointslices` in the namespace.
///
/// **Cost.** One connection, HTTP/1.1. A list is paged by 500 slices.
///
/// **What is not known.** This was tested against a stand-in that was written from the protocol's documentation, not
/// against a real API server.
///
/// Sources: the Kubernetes API concepts on efficient detection of changes, the reference of EndpointSlice v1, and kube-proxy's
/// rules for terminating endpoints (KEP-1669) and hints (KEP-2433).
pub fn kubernetes(name: impl Into<String>) -> Kubernetes {
    Kubernetes {
        name: name.into(),
        source: Ok(Source::Infer),
        options: KubernetesOptions::default(),
        begun: Begun::default(),
    }
}

/// How slices are watched, and what is made of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KubernetesOptions {
    /// How the API is borne with.
    pub watch: WatchOptions,
    /// The zone whose topology hints are honoured \[none: hints are metadata\]. As with kube-proxy they count only while
    /// every ready endpoint has some, and some are for this zone.
    pub zone: Option<String>,
    /// The longest that a watch may last, half of it at the least \[10 min\]. Then the next goes on where it ended.
    pub longest: Duration,
    /// For how long a watch may be silent before another one is begun in its stead, from where it was \[150 s\]. The API
    /// sends bookmarks about once a minute.
    pub silence: Duration,
    /// The largest single event, in bytes \[8 MiB\].
    pub largest_event: usize,
}

impl KubernetesOptions {
    /// Sets [`watch`](Self::watch).
    pub const fn watch(mut self, watch: WatchOptions) -> Self {
        self.watch = watch;
        self
    }

    /// Sets [`zone`](Self::zone).
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets [`longest`](Self::longest).
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Sets [`silence`](Self::silence).
    pub const fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sets [`largest_event`](Self::largest_event).
    pub const fn largest_event(mut self, largest_event: usize) -> Self {
        self.largest_event = largest_event;
        self
    }

    fn check(&self, check: &mut Check) {
        check
            .absorb("watch", self.watch.validate())
            .duration("longest", self.longest)
            .duration("silence", self.silence)
            .rule(self.largest_event > 0, "largest_event", self.largest_event, "at least one byte");
    }
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            watch: WatchOptions::default(),
            zone: None,
            longest: LONGEST,
            silence: Duration::from_secs(150),
            largest_event: 8 << 20,
        }
    }
}

/// The resolver made by [`kubernetes`].
#[derive(Debug)]
pub struct Kubernetes {
    name: String,
    /// Or the text that is no address.
    source: Result<Source, String>,
    options: KubernetesOptions,
    begun: Begun,
}

impl Kubernetes {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: KubernetesOptions) -> Self {
        self.options = options;
        self
    }

    /// Takes the account of the pod that this process runs in, and never a kubeconfig.
    #[must_use]
    pub fn in_cluster(mut self) -> Self {
        self.source = Ok(Source::Cluster);
        self
    }

    /// Takes the cluster and user that the kubeconfig at `path` has as its current context.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Ok(Source::Kubeconfig(path.into()));
        self
    }

    /// Asks the API at `url`, with `access`. The namespace is `default` unless the name says it.
    #[must_use]
    pub fn server(mut self, url: &str, access: Access) -> Self {
        let port = if url.starts_with("https://") { 443 } else { 80 };
        self.source = Base::parse(url, port)
            .map(|base| Source::Server(base, Box::new(access)))
            .ok_or_else(|| without_login(url));
        self
    }

    /// The scheme: `kubernetes:///users.prod:http`.
    pub(in crate::resolve) fn of(target: &Target) -> Result<Self, Invalid> {
        target.only(&["zone"])?;
        if !target.authority().is_empty() {
            let rule =
                "the API's address comes with credentials: kubernetes:///users.prod:http, with three slashes";
            return Err(target.invalid("authority", target.authority(), rule));
        }
        let mut resolver = kubernetes(target.path());
        resolver.options.zone = target.value("zone").map(str::to_owned);
        Ok(resolver)
    }
}

/// What may be shown of a text that is no address.
fn without_login(text: &str) -> String {
    text.rsplit_once('@').map_or(text, |(_, host)| host).to_owned()
}

impl Kubernetes {
    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let name = Name::parse(&self.name)?;
        let source =
            self.source.clone().map_err(|url| Check::problem("kubernetes.server", url, "an address"))?;
        let options = self.options.clone();
        let begin = move |tell| follow(source.clone(), name.clone(), options.clone(), tell);
        Ok(watch(self.describe(), begin))
    }
}

impl Resolve for Kubernetes {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.begun.is_new() {
            self.begun = self.begin().into();
        }
        self.begun.poll_next(cx)
    }

    fn describe(&self) -> String {
        match &self.source {
            Ok(source) => format!("kubernetes {} in {source}", self.name),
            Err(_) => format!("kubernetes {}", self.name),
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("kubernetes", |check| {
                check.absorb("name", Name::parse(&self.name).map(drop));
                match &self.source {
                    Ok(Source::Server(_, access)) => {
                        check.part("access", |check| access.check(check));
                    }
                    Ok(_) => {}
                    Err(url) => {
                        check.rule(false, "server", url, "http://host:port or https://host:port");
                    }
                }
                self.options.check(check);
            });
        })
    }
}
