//! Endpoints from the children of a node of ZooKeeper.

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
    registry::{Encoding, Ensemble, zookeeper::is_path},
    resolve::{
        Resolution, Resolve, Target, WatchOptions, Watched,
        reading::{Reading, hosts, login},
        watch,
        watched::Begun,
    },
};

/// Resolves the instances that are children of the node `path`, such as `/services/users`: Twitter's serversets, or what
/// Airbnb's Nerve writes.
///
/// **Problem.** A watch of ZooKeeper tells one change, and then no more; a session can end while nobody looks. **Idea.** A
/// watch is set by the same request that reads, so that what is told next is what changed after it; on every new connection
/// everything is listed anew. So no change is missed, and what is told is always all there is. The connection is driven by
/// the resolver itself: there is no task, and when it is dropped it ends its session.
///
/// | option | default |
/// |---|---|
/// | [`ensemble`](ZooKeeper::ensemble): servers, user, chroot, [session timeout](Ensemble::session_timeout), [timeout](Ensemble::timeout) | `127.0.0.1:2181`, no user, `/`, 10 s, 5 s |
/// | [`encoding`](ZooKeeper::encoding) | what each node looks like |
/// | [`endpoint`](ZooKeeper::endpoint): the additional endpoint of serversets that is meant | the service's own |
/// | [`options`](ZooKeeper::options): [`WatchOptions::backoff`] between connections | 100 ms, doubling to 30 s, full jitter |
///
/// A name (`zookeeper://zk1:2181,zk2:2181/services/users?endpoint=http`) may say `encoding` (`plain`, `grpc`, `nerve`,
/// `nerve_path`, `serverset`), `endpoint`, `chroot`, `user` and `password_file`.
///
/// **A child that cannot be read** is skipped, and told as a failure after the set of the others, so that the status names it
/// while they are used. Where no child at all can be read, the last good set stays. One that goes between the list and its
/// being read is no mistake. **A node that is not there** is told as an absence, and watched until it is.
///
/// Up to 64 children are read at once; only those that are new or have changed are, and none whose name says all.
///
/// What it cannot know: a process that dies without a goodbye stays until its session ends, so dead instances are found out
/// by their requests first. Not there: TLS, Kerberos, and what a new ensemble's configuration says. The timeout of
/// [`WatchOptions`] is not used: [`Ensemble::timeout`] stands. Early look-ups change nothing: what changes is told anyway.
///
/// **Cost.** One connection and one session, and a watch on the node and on each child that was read.
///
/// **Sources.** ZooKeeper's Programmer's Guide (watches, sessions) and `zookeeper.jute`; twitter/finagle `serverset2`;
/// airbnb/nerve and airbnb/synapse.
///
/// ```
/// use mainstay::{registry::{Encoding, Ensemble}, resolve::{self, Resolve}};
///
/// let users = resolve::zookeeper("/services/users")
///     .ensemble(Ensemble::new(["zk1:2181", "zk2:2181"]))
///     .encoding(Encoding::Serverset)
///     .endpoint("http");
/// assert!(users.validate().is_ok());
/// assert!(resolve::name("zookeeper://zk1:2181,zk2:2181/services/users?encoding=nerve").validate().is_ok());
/// ```
pub fn zookeeper(path: impl Into<String>) -> ZooKeeper {
    ZooKeeper {
        asked: Asked {
            path: path.into(),
            ensemble: Arc::default(),
            reading: Reading::default(),
            options: WatchOptions::default(),
            random: Arc::new(Entropy),
        },
        begun: Begun::default(),
    }
}

/// The resolver made by [`zookeeper`].
pub struct ZooKeeper {
    asked: Asked,
    begun: Begun,
}

/// What is to be resolved, and how.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) ensemble: Arc<Ensemble>,
    pub(super) reading: Reading,
    pub(super) options: WatchOptions,
    pub(super) random: Arc<dyn Random>,
}

impl ZooKeeper {
    /// Where ZooKeeper is \[`127.0.0.1:2181`\].
    #[must_use]
    pub fn ensemble(mut self, ensemble: Ensemble) -> Self {
        self.asked.ensemble = Arc::new(ensemble);
        self
    }

    /// How instances are written there \[found out for each node\].
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

    /// Draws jitter and the first server from `random` instead of [`Entropy`].
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.asked.random = Arc::new(random);
        self
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// What a name asks for.
    pub(in crate::resolve) fn named(target: &Target) -> Result<Self, Invalid> {
        let mut check = Check::default();
        check.absorb("", target.only(&[&Reading::OPTIONS[..], &["chroot"]].concat()));
        let said = |key: &str| target.value(key);
        let mut zookeeper = zookeeper(format!("/{}", target.path()));
        let mut ensemble = match target.authority() {
            "" => Ensemble::default(),
            servers => Ensemble::new(hosts(servers)),
        };
        if let Some(chroot) = said("chroot") {
            ensemble = ensemble.chroot(chroot);
        }
        if let Some((user, password)) = login(target, &mut check) {
            ensemble = ensemble.digest(user, password);
        }
        zookeeper.asked.reading = Reading::of(target, &mut check);
        check.finish().map(|()| zookeeper.ensemble(ensemble))
    }

    fn begin(&self) -> Result<Watched, Invalid> {
        self.validate()?;
        let asked = self.asked.clone();
        Ok(watch(self.describe(), move |tell| follow(asked.clone(), tell)))
    }
}

impl Resolve for ZooKeeper {
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
            check.part("zookeeper", |check| {
                let asked = &self.asked;
                let fits = is_path(&asked.path) && !asked.ensemble.node(&asked.path).is_empty();
                check.rule(fits, "path", &asked.path, "the path of a node, such as /services/users");
                asked.ensemble.check(check);
                check.absorb("", asked.options.validate());
            });
        })
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("path", &self.asked.path)
            .field("ensemble", &self.asked.ensemble)
            .field("reading", &self.asked.reading)
            .finish_non_exhaustive()
    }
}

impl Asked {
    pub(super) fn shown(&self) -> String {
        format!("zookeeper {}{}", self.ensemble.shown(), self.ensemble.node(&self.path))
    }
}
