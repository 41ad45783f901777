//! What is to be announced, where and how.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tower::BoxError;

#[cfg(feature = "etcd")]
use super::etcd;
#[cfg(feature = "zookeeper")]
use super::zookeeper;
use super::{
    Announcement, CheckOptions,
    check::{Ask, erased},
    task::Registrar,
};
#[cfg(feature = "etcd")]
use crate::registry::EtcdCluster;
#[cfg(feature = "zookeeper")]
use crate::registry::{Acl, Ensemble};
use crate::{
    Invalid,
    backoff::Backoff,
    invalid::Check,
    random::{Entropy, Random},
    registry::{Encoding, Instance},
};

/// How an entry is kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AnnounceOptions {
    /// How long an entry in etcd lasts without a word \[30 s\], in whole seconds. ZooKeeper has its
    /// `Ensemble::session_timeout`.
    pub lease: Duration,
    /// Who may do what with the node in ZooKeeper \[everybody everything\].
    #[cfg(feature = "zookeeper")]
    pub acl: Acl,
    /// How long to rest before a registry that was lost is tried again \[100 ms, doubling to 5 s, full jitter\].
    pub backoff: Backoff,
}

impl AnnounceOptions {
    /// Sets [`lease`](Self::lease).
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets [`acl`](Self::acl).
    #[cfg(feature = "zookeeper")]
    pub const fn acl(mut self, acl: Acl) -> Self {
        self.acl = acl;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    fn check(&self, check: &mut Check) {
        let whole = self.lease >= Duration::from_secs(1) && self.lease.subsec_nanos() == 0;
        check
            .duration("lease", self.lease)
            .rule(whole, "lease", self.lease, "whole seconds")
            .part("backoff", |check| self.backoff.check(check));
    }
}

impl Default for AnnounceOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            #[cfg(feature = "zookeeper")]
            acl: Acl::Open,
            backoff: Backoff::exponential(Duration::from_millis(100)).cap(Duration::from_secs(5)),
        }
    }
}

/// What is to be announced, where and how. Nothing happens before it is [started](Self::start).
pub struct Announce {
    place: Place,
    pub(super) instance: Instance,
    pub(super) encoding: Encoding,
    pub(super) options: AnnounceOptions,
    pub(super) check: Option<(CheckOptions, Ask)>,
    pub(super) random: Arc<dyn Random>,
}

/// Where.
#[derive(Debug)]
enum Place {
    #[cfg(feature = "etcd")]
    Etcd { cluster: Arc<EtcdCluster>, prefix: String },
    #[cfg(feature = "zookeeper")]
    ZooKeeper { ensemble: Arc<Ensemble>, path: String },
}

impl Announce {
    /// Announces `instance` in etcd, under `prefix` and a slash, by gRPC's naming unless another encoding is asked for. It is
    /// found by `resolve::etcd` of the same prefix.
    #[cfg(feature = "etcd")]
    pub fn etcd(cluster: EtcdCluster, prefix: impl Into<String>, instance: Instance) -> Self {
        let place = Place::Etcd { cluster: Arc::new(cluster), prefix: prefix.into() };
        Self::new(place, instance, Encoding::Grpc)
    }

    /// Announces `instance` in ZooKeeper, as a child of the node `path`, which is made if it is not there; as a member of a
    /// serverset unless another encoding is asked for. It is found by `resolve::zookeeper` of the same path.
    #[cfg(feature = "zookeeper")]
    pub fn zookeeper(ensemble: Ensemble, path: impl Into<String>, instance: Instance) -> Self {
        let place = Place::ZooKeeper { ensemble: Arc::new(ensemble), path: path.into() };
        Self::new(place, instance, Encoding::Serverset)
    }

    fn new(place: Place, instance: Instance, encoding: Encoding) -> Self {
        let (options, random) = (AnnounceOptions::default(), Arc::new(Entropy));
        Self { place, instance, encoding, options, check: None, random }
    }

    /// How it is written.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: AnnounceOptions) -> Self {
        self.options = options;
        self
    }

    /// Announces it only while `ask` answers that it is well. Without a check it is announced from start to withdrawal.
    #[must_use]
    pub fn check<F, A, E>(mut self, options: CheckOptions, ask: F) -> Self
    where
        F: FnMut() -> A + Send + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.check = Some((options, erased(ask)));
        self
    }

    /// Draws jitter and the first server from `random` instead of [`Entropy`].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Starts the task that announces it, on the current runtime.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule, or if there is no runtime of tokio here.
    pub fn start(mut self) -> Result<Announcement, Invalid> {
        self.validate()?;
        self.instance = named(self.instance, self.encoding);
        let runtime = Handle::try_current().map_err(|_| Check::missing("announce.runtime"))?;
        Ok(Announcement::start(self, &runtime))
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with each option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("announce", |check| {
                match &self.place {
                    #[cfg(feature = "etcd")]
                    Place::Etcd { cluster, prefix } => {
                        let fits = !prefix.trim_end_matches('/').is_empty();
                        let rule = "what keys begin with, before a slash, such as services/users";
                        check.rule(fits, "prefix", prefix, rule).part("etcd", |check| cluster.check(check));
                    }
                    #[cfg(feature = "zookeeper")]
                    Place::ZooKeeper { ensemble, path } => {
                        let fits =
                            crate::registry::zookeeper::is_path(path) && !ensemble.node(path).is_empty();
                        let rule = "the path of a node, such as /services/users";
                        check.rule(fits, "path", path, rule).part("zookeeper", |check| ensemble.check(check));
                        let rule = "needs Ensemble::digest: the creator must be somebody";
                        let fits = self.options.acl == Acl::Open || ensemble.has_digest();
                        check.rule(fits, "acl", self.options.acl, rule);
                    }
                }
                check.part("instance", |check| self.instance.check(check, self.encoding));
                self.options.check(check);
                if let Some((options, _)) = &self.check {
                    check.part("check", |check| options.check(check));
                }
            });
        })
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match &self.place {
            #[cfg(feature = "etcd")]
            Place::Etcd { cluster, prefix } => {
                format!("{} in etcd {}/{prefix}", self.instance.id(), cluster.shown())
            }
            #[cfg(feature = "zookeeper")]
            Place::ZooKeeper { ensemble, path } => {
                format!("{} in zookeeper {}{}", self.instance.id(), ensemble.shown(), ensemble.node(path))
            }
        }
    }

    pub(super) fn registrar(&self) -> Registrar {
        match &self.place {
            #[cfg(feature = "etcd")]
            Place::Etcd { cluster, prefix } => Registrar::Etcd(etcd::Entry::new(
                cluster.clone(),
                prefix.trim_end_matches('/').to_owned(),
                &self.instance,
                self.encoding,
                self.options.lease,
            )),
            #[cfg(feature = "zookeeper")]
            Place::ZooKeeper { ensemble, path } => Registrar::ZooKeeper(Box::new(zookeeper::Entry::new(
                ensemble.clone(),
                ensemble.node(path),
                self.instance.clone(),
                self.encoding,
                self.options.acl,
            ))),
        }
    }
}

/// `instance` with all that `encoding` says of each: Nerve gives every one a name.
pub(super) fn named(instance: Instance, encoding: Encoding) -> Instance {
    match encoding {
        Encoding::Nerve | Encoding::NervePath => {
            let name = instance.id().to_owned();
            instance.name(name)
        }
        _ => instance,
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announce")
            .field("place", &self.place)
            .field("instance", &self.instance)
            .field("encoding", &self.encoding)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
