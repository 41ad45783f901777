//! Where an etcd cluster is, and how it is spoken to.

use std::{fmt, time::Duration};

use crate::{
    Invalid,
    invalid::Check,
    registry::{Source, Tls},
};

/// An etcd cluster: its members, and how they are spoken to.
///
/// | | default |
/// |---|---|
/// | members | `127.0.0.1:2379` |
/// | [`timeout`](Self::timeout) of a connection and of an answer | 5 s |
/// | [`keep_alive`](Self::keep_alive), how often a silent member must show that it lives | 10 s |
///
/// A member that does not answer a keep-alive within the timeout is given up for another, so a frozen one is noticed
/// after 15 s. Which member is used is drawn by chance, so that clients spread; after a failure the next one is tried. One
/// that has lost its quorum ends watches, and is left for another, too.
///
/// ```
/// use mainstay::registry::{EtcdCluster, Source, Tls};
///
/// let cluster = EtcdCluster::new(["etcd-1:2379", "etcd-2:2379", "etcd-3:2379"])
///     .user("reader", Source::file("/run/secrets/etcd"))
///     .tls(Tls::new().ca(Source::file("/etc/etcd/ca.pem")));
/// # let _ = cluster;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdCluster {
    pub(super) members: Vec<String>,
    pub(super) user: Option<(String, Source)>,
    pub(super) tls: Option<Tls>,
    pub(super) timeout: Duration,
    pub(super) keep_alive: Duration,
}

impl EtcdCluster {
    /// The cluster of `members`, each a host and port.
    pub fn new<M: Into<String>>(members: impl IntoIterator<Item = M>) -> Self {
        Self {
            members: members.into_iter().map(Into::into).collect(),
            user: None,
            tls: None,
            timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(10),
        }
    }

    /// Who asks, and the password. Without TLS it is sent as it is.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<Source>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Speaks TLS to all members. Needs the feature `tls`.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long connecting may take, and an answer that is due at once \[5 s\].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a silent member must show that it lives \[10 s\]. etcd itself refuses to be asked more often than its
    /// `--grpc-keepalive-min-time`, which is 5 s.
    #[must_use]
    pub const fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.rule(!self.members.is_empty(), "members", &self.members, "at least one");
        for member in &self.members {
            let rule = "a host and a port, such as 10.0.0.1:2379, without a scheme";
            check.rule(is_member(member), "members", without_user(member), rule);
        }
        if let Some((name, _)) = &self.user {
            check.rule(!name.is_empty(), "user", name, "not empty");
        }
        let has_tls = cfg!(feature = "tls");
        check.rule(has_tls || self.tls.is_none(), "tls", &self.tls, "needs the feature `tls` of mainstay");
        check.duration("timeout", self.timeout).duration("keep_alive", self.keep_alive);
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with each option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| self.check(check))
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        self.members.iter().map(|member| without_user(member)).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn url(&self, member: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{member}")
    }
}

impl fmt::Debug for EtcdCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdCluster")
            .field("members", &self.shown())
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

impl Default for EtcdCluster {
    fn default() -> Self {
        Self::new(["127.0.0.1:2379"])
    }
}

/// Nobody should write `user:password@host`; whoever does must not find it in a log.
fn without_user(member: &str) -> &str {
    member.rsplit_once('@').map_or(member, |(_, host)| host)
}

fn is_member(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', '@', '?', '#', ' '])
            && host.contains(':') == (host.starts_with('[') && host.ends_with(']'))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_wherever_it_was_written() {
        let bad = EtcdCluster::new(["me:hidden-1@host:1", "me:hidden-2@host"]).user("me", "hidden-3");
        let told = format!("{bad:?} {:?} {}", bad.validate(), bad.shown());
        assert!(bad.validate().is_err() && !told.contains("hidden"), "{told}");
    }
}
