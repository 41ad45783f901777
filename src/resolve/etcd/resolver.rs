//! Endpoints from the keys of etcd.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use super::follow::follow;
use crate::{
    Invalid,
    invalid::Check,
    random::{Entropy, Random},
    registry::{Encoding, EtcdCluster, Source, Tls},
    resolve::{
        Resolution, Resolve, Target, WatchOptions, Watched,
        reading::{Reading, hosts, login},
        watch,
        watched::Begun,
    },
};

/// Resolves the instances whose keys begin with `prefix` and a slash, in etcd's v3 store: `services/users` stands for
/// `services/users/10.0.0.7:8080` and all the others, not for `services/users-old/..`.
///
/// **Problem.** A registry that pushes changes can lose them on the way: between a look-up and the watch after it, over a
/// lost connection, by compaction. **Idea.** List all keys at one revision, watch from the next one on; whenever the watch
/// is lost or what it needs has been compacted, list again. So no change is missed, and what is told is always all there is.
///
/// | option | default |
/// |---|---|
/// | [`cluster`](Etcd::cluster): members, user, TLS, [timeout](EtcdCluster::timeout), [keep-alive](EtcdCluster::keep_alive) | `127.0.0.1:2379`, no user, no TLS, 5 s, 10 s |
/// | [`encoding`](Etcd::encoding) | what each value looks like |
/// | [`endpoint`](Etcd::endpoint): the additional endpoint of serversets that is meant | the service's own |
/// | [`options`](Etcd::options): [`WatchOptions::backoff`] between connections | 100 ms, doubling to 30 s, full jitter |
///
/// A name (`etcd://host:2379,host2:2379/services/users?encoding=nerve`) may say `encoding` (`plain`, `grpc`, `nerve`,
/// `nerve_path`, `serverset`), `endpoint`, `user` and `password_file`, `tls=true`, `ca_file`, `cert_file` and `key_file`, and
/// `server_name`. A key that begins with a slash is named with one more: `etcd:////nerve/users`.
///
/// **A key that cannot be read** is skipped, and told as a failure after the set of the others, so that the status names it
/// while they are used. Where no key at all can be read, the last good set stays. **No keys** are told as an empty set: etcd
/// cannot tell a service without instances from one that it does not know.
///
/// What it cannot know: a process that dies without a goodbye stays until its lease ends, so dead instances are found out
/// by their requests first. The timeout of [`WatchOptions`] is not used: [`EtcdCluster::timeout`] stands. Early look-ups change
/// nothing: what changes is told anyway.
///
/// **Cost.** One connection with one stream, in tasks of tonic's that end with the resolver. Each value is read once for each
/// change of it; a set of 10,000 is put together in turns of 64.
///
/// **Sources.** etcd's API v3 (`rpc.proto`, `kv.proto`) and `client/v3/naming`; airbnb/nerve and twitter/finagle for their encodings.
///
/// ```
/// use mainstay::{registry::{Encoding, EtcdCluster, Source}, resolve::{self, Resolve}};
///
/// let cluster = EtcdCluster::new(["etcd-1:2379", "etcd-2:2379"]).user("reader", Source::file("/run/secrets/etcd"));
/// let users = resolve::etcd("services/users").cluster(cluster).encoding(Encoding::Grpc);
/// assert!(users.validate().is_ok());
/// assert!(resolve::name("etcd:///services/users?encoding=nerve").validate().is_ok());
/// ```
pub fn etcd(prefix: impl Into<String>) -> Etcd {
    Etcd {
        asked: Asked {
            prefix: prefix.into(),
            cluster: Arc::default(),
            reading: Reading::default(),
            options: WatchOptions::default(),
            random: Arc::new(Entropy),
        },
        begun: Begun::default(),
    }
}

/// The resolver made by [`etcd`].
pub struct Etcd {
    asked: Asked,
    begun: Begun,
}

/// What is to be resolved, and how.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) prefix: String,
    pub(super) cluster: Arc<EtcdCluster>,
    pub(super) reading: Reading,
    pub(super) options: WatchOptions,
    pub(super) random: Arc<dyn Random>,
}

impl Etcd {
    /// Where etcd is \[`127.0.0.1:2379`\].
    #[must_use]
    pub fn cluster(mut self, cluster: EtcdCluster) -> Self {
        self.asked.cluster = Arc::new(cluster);
        self
    }

    /// How instances are written there \[found out for each value\].
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.asked.reading.encoding = Some(encoding);
        self
    }

    /// The additional endpoint of serversets that is meant, such as `http` \[the service's own\].
    #[must_use]
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.asked.reading.endpoint = Some(name.into());
        self
    }

    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: WatchOptions) -> Self {
        self.asked.options = options;
        self
    }

    /// Draws jitter and the first member from `random` instead of [`Entropy`].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.asked.random = Arc::new(random);
        self
    }

    /// What a name asks for.
    pub(in crate::resolve) fn named(target: &Target) -> Result<Self, Invalid> {
        let mut check = Check::default();
        const TLS: [&str; 5] = ["tls", "ca_file", "cert_file", "key_file", "server_name"];
        let known = [&Reading::OPTIONS[..], &TLS].concat();
        check.absorb("", target.only(&known));
        let said = |key: &str| target.value(key);
        let mut etcd = etcd(target.path());
        let mut cluster = match target.authority() {
            "" => EtcdCluster::default(),
            members => EtcdCluster::new(hosts(members)),
        };
        if let Some((user, password)) = login(target, &mut check) {
            cluster = cluster.user(user, password);
        }
        if TLS.iter().any(|key| said(key).is_some()) {
            let rule = "true, or leave it out";
            check.rule(matches!(said("tls"), None | Some("true")), "name.tls", said("tls"), rule);
            let mut tls = Tls::new();
            tls.ca = said("ca_file").map(Source::file);
            tls.server_name = said("server_name").map(str::to_owned);
            match (said("cert_file"), said("key_file")) {
                (Some(certificate), Some(key)) => {
                    tls = tls.identity(Source::file(certificate), Source::file(key))
                }
                (one, other) => {
                    let rule = "cert_file and key_file go together";
                    check.rule(one.or(other).is_none(), "name.cert_file", one.unwrap_or_default(), rule);
                }
            }
            cluster = cluster.tls(tls);
        }
        etcd.asked.reading = Reading::of(target, &mut check);
        check.finish().map(|()| etcd.cluster(cluster))
    }

    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let asked = self.asked.clone();
        Ok(watch(self.describe(), move |tell| follow(asked.clone(), tell)))
    }
}

impl Resolve for Etcd {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.begun.is_new() {
            self.begun = self.begin().into();
        }
        self.begun.poll_next(cx)
    }

    fn describe(&self) -> String {
        self.asked.shown()
    }

    fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("etcd", |check| {
                let asked = &self.asked;
                let rule = "what keys begin with, before a slash, such as services/users";
                check.rule(!asked.prefix.trim_end_matches('/').is_empty(), "prefix", &asked.prefix, rule);
                asked.cluster.check(check);
                check.absorb("", asked.options.validate());
            });
        })
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("prefix", &self.asked.prefix)
            .field("cluster", &self.asked.cluster)
            .field("reading", &self.asked.reading)
            .finish_non_exhaustive()
    }
}

impl Asked {
    pub(super) fn shown(&self) -> String {
        format!("etcd {}/{}", self.cluster.shown(), self.prefix)
    }
}
