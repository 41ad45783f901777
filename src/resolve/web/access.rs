//! What is shown to a registry, and whom it must be.

use std::fmt;

use super::{Pem, Secret};
use crate::invalid::Check;

/// How a registry over HTTP is spoken to: the token it is shown, and by which certificates it is known.
///
/// Tokens and files are read when they are used, so that what rotates is followed without a restart. `Debug` shows none.
///
/// ```
/// use mainstay::resolve::{Access, Pem, Secret};
///
/// let access = Access::default()
///     .token(Secret::file("/run/secrets/registry-token"))
///     .ca(Pem::file("/etc/ssl/registry-ca.pem"));
/// # let _ = access;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Access {
    /// What the registry is shown \[nothing\].
    pub token: Option<Secret>,
    /// Whose signature its certificate must have \[the roots that this machine trusts\].
    pub ca: Option<Pem>,
    /// A certificate, with its chain, and its key \[none\].
    pub identity: Option<(Pem, Pem)>,
    /// The name that its certificate must have \[that of its address\].
    pub name: Option<String>,
    /// Takes any certificate at all \[false\]. Whoever stands in between reads the token and says what he likes.
    pub insecure: bool,
    /// The largest answer, in bytes \[64 MiB\].
    pub largest: usize,
}

impl Access {
    /// Sets [`token`](Self::token).
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }

    /// Sets [`ca`](Self::ca).
    pub fn ca(mut self, ca: Pem) -> Self {
        self.ca = Some(ca);
        self
    }

    /// Sets [`identity`](Self::identity).
    pub fn identity(mut self, certificate: Pem, key: Pem) -> Self {
        self.identity = Some((certificate, key));
        self
    }

    /// Sets [`name`](Self::name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets [`insecure`](Self::insecure).
    pub const fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Sets [`largest`](Self::largest).
    pub const fn largest(mut self, largest: usize) -> Self {
        self.largest = largest;
        self
    }

    pub(in crate::resolve) fn check(&self, check: &mut Check) {
        let name = self.name.as_deref().unwrap_or("a");
        let rule = "the name of a host, or an address";
        check.rule(self.largest > 0, "largest", self.largest, "at least one byte").rule(
            rustls::pki_types::ServerName::try_from(name).is_ok(),
            "name",
            name,
            rule,
        );
    }
}

impl Default for Access {
    fn default() -> Self {
        Self { token: None, ca: None, identity: None, name: None, insecure: false, largest: 64 << 20 }
    }
}

/// The header that a token is shown in.
#[derive(Clone, Copy, Debug)]
pub(in crate::resolve) enum Credential {
    /// `Authorization: Bearer`
    #[cfg_attr(
        not(any(feature = "kubernetes", feature = "eureka")),
        allow(dead_code, reason = "Consul has its own")
    )]
    Bearer,
    /// One that holds the token alone.
    #[cfg_attr(not(feature = "consul"), allow(dead_code, reason = "Consul's"))]
    Header(&'static str),
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "authorization",
            Self::Header(name) => name,
        })
    }
}
