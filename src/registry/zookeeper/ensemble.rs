//! Where a ZooKeeper ensemble is, and how it is spoken to.

use std::{fmt, time::Duration};

use super::jute::Writer;
use crate::{Invalid, invalid::Check, registry::Source};

/// A ZooKeeper ensemble: its servers, and how they are spoken to.
///
/// | | default |
/// |---|---|
/// | servers | `127.0.0.1:2181` |
/// | [`session_timeout`](Self::session_timeout) | 10 s |
/// | [`timeout`](Self::timeout) of a connection | 5 s |
/// | [`chroot`](Self::chroot), the node that all paths are under | `/` |
///
/// A server that is silent for two thirds of the session timeout is given up for another one; it is asked to show that it
/// lives after one third. Which server is used is drawn by chance, so that clients spread; after a failure the next one is
/// tried, with the same session as long as that can still stand. Connections are not encrypted.
///
/// ```
/// use mainstay::registry::{Ensemble, Source};
///
/// let ensemble = Ensemble::new(["zk1:2181", "zk2:2181", "zk3:2181"])
///     .digest("reader", Source::file("/run/secrets/zookeeper"))
///     .chroot("/mesh");
/// # let _ = ensemble;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ensemble {
    pub(super) servers: Vec<String>,
    pub(super) digest: Option<(String, Source)>,
    pub(super) chroot: String,
    pub(super) session_timeout: Duration,
    pub(super) timeout: Duration,
}

impl Ensemble {
    /// The ensemble of `servers`, each a host and port.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            digest: None,
            chroot: String::new(),
            session_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        }
    }

    /// Who asks, and the password, by the scheme `digest`. It is sent as it is.
    #[must_use]
    pub fn digest(mut self, user: impl Into<String>, password: impl Into<Source>) -> Self {
        self.digest = Some((user.into(), password.into()));
        self
    }

    /// The node that all paths are under \[`/`\].
    #[must_use]
    pub fn chroot(mut self, path: impl Into<String>) -> Self {
        self.chroot = path.into();
        self
    }

    /// How long a session lasts without a word \[10 s\]: how long an instance stays announced whose process died. The
    /// servers may grant more or less: by default 2 to 20 of their ticks of 2 s.
    #[must_use]
    pub const fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long connecting may take \[5 s\].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.rule(!self.servers.is_empty(), "servers", &self.servers, "at least one");
        for server in &self.servers {
            let rule = "a host and a port, such as 10.0.0.1:2181";
            check.rule(is_server(server), "servers", without_user(server), rule);
        }
        if let Some((name, _)) = &self.digest {
            check.rule(
                !name.is_empty() && !name.contains(':'),
                "digest",
                name,
                "not empty, and without a colon",
            );
        }
        let rule = "the path of a node, such as /mesh";
        check.rule(is_path(&self.chroot), "chroot", &self.chroot, rule);
        check.duration("session_timeout", self.session_timeout).duration("timeout", self.timeout);
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(24 * 3600));
        let fits = (least..=most).contains(&self.session_timeout);
        check.rule(fits, "session_timeout", self.session_timeout, "100 ms to 1 day");
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with each option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| self.check(check))
    }

    /// The node that `path` is, without a slash at its end.
    pub(crate) fn node(&self, path: &str) -> String {
        let parts = [&self.chroot, path].map(|part| part.trim_matches('/'));
        parts
            .iter()
            .filter(|part| !part.is_empty())
            .fold(String::new(), |path, part| format!("{path}/{part}"))
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        self.servers.iter().map(|server| without_user(server)).collect::<Vec<_>>().join(",")
    }

    /// Whether it is asked by somebody.
    pub(crate) fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.servers.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ensemble")
            .field("servers", &self.shown())
            .field("digest", &self.digest)
            .field("chroot", &self.chroot)
            .field("session_timeout", &self.session_timeout)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl Default for Ensemble {
    fn default() -> Self {
        Self::new(["127.0.0.1:2181"])
    }
}

/// Nobody should write `user:password@host`; whoever does must not find it in a log.
fn without_user(server: &str) -> &str {
    server.rsplit_once('@').map_or(server, |(_, host)| host)
}

fn is_server(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', '@', ' '])
            && host.contains(':') == (host.starts_with('[') && host.ends_with(']'))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// Whether `path`, with or without a slash at either end, is the path of a node.
pub(crate) fn is_path(path: &str) -> bool {
    let path = path.trim_matches('/');
    path.is_empty()
        || path.split('/').all(|part| {
            !part.is_empty() && !matches!(part, "." | "..") && !part.contains(|c: char| c.is_control())
        })
}

/// Who may do what with the nodes that are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acl {
    /// Everybody everything.
    #[default]
    Open,
    /// Whoever made them everything, all others nothing. Needs an [`Ensemble::digest`].
    Creator,
    /// Whoever made them everything, all others may read. Needs an [`Ensemble::digest`].
    CreatorAndReaders,
}

impl Acl {
    pub(super) fn write(self, frame: &mut Writer) {
        const ALL: i32 = 31;
        const READ: i32 = 1;
        let entries: &[(i32, &str, &str)] = match self {
            Self::Open => &[(ALL, "world", "anyone")],
            Self::Creator => &[(ALL, "auth", "")],
            Self::CreatorAndReaders => &[(ALL, "auth", ""), (READ, "world", "anyone")],
        };
        frame.int(i32::try_from(entries.len()).unwrap_or(0));
        for (rights, scheme, id) in entries {
            frame.int(*rights).text(scheme).text(id);
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_wherever_it_was_written() {
        let bad = Ensemble::new(["me:hidden-1@host:1", "me:hidden-2@host"]).digest("me", "hidden-3");
        let told = format!("{bad:?} {:?} {}", bad.validate(), bad.shown());
        assert!(bad.validate().is_err() && !told.contains("hidden"), "{told}");
    }
}
