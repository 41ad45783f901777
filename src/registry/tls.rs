//! How a registry proves who it is, and who asks it.

use super::Source;

/// TLS to a registry. Needs the feature `tls`.
///
/// ```
/// use mainstay::registry::{Source, Tls};
///
/// let tls = Tls::new()
///     .ca(Source::file("/etc/etcd/ca.pem"))
///     .identity(Source::file("/etc/etcd/client.pem"), Source::file("/etc/etcd/client-key.pem"));
/// # let _ = tls;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Who vouches for the servers, in PEM \[the roots of this machine\].
    pub ca: Option<Source>,
    /// The certificate and the key of this client, in PEM \[none\].
    pub identity: Option<(Source, Source)>,
    /// The name that stands in the servers' certificates \[the host that is connected to\].
    pub server_name: Option<String>,
}

impl Tls {
    /// Trusts the roots of this machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`ca`](Self::ca).
    pub fn ca(mut self, ca: impl Into<Source>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Sets [`identity`](Self::identity).
    pub fn identity(mut self, certificate: impl Into<Source>, key: impl Into<Source>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Sets [`server_name`](Self::server_name).
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}
