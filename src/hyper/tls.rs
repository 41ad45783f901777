//! TLS to the instances of one logical server.

use std::{fmt, io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::options::Protocol;
use crate::{
    error::Cause,
    invalid::{Check, Invalid},
};

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The server that every endpoint must prove to be, and how it is spoken to.
///
/// The name is the logical one: it is asked for (SNI) and looked for in the certificate, whichever address is dialled. A
/// connection to an endpoint that shows another certificate is never made, and its cause is
/// [`rustls::Error::InvalidCertificate`].
///
/// ```
/// use mainstay::hyper::{Client, ConnectorOptions, Protocol, Tls};
///
/// # fn main() -> Result<(), mainstay::Invalid> {
/// let options = ConnectorOptions::default().tls(Tls::webpki("users.internal")?).protocol(Protocol::Negotiated);
/// let users = Client::builder("users")
///     .resolve(mainstay::resolve::dns("users.internal:443"))
///     .connector(options)
///     .build()?;
/// # let _ = users;
/// # Ok(())
/// # }
/// ```
///
/// A client certificate, a pinned root, other versions of TLS: make the [`ClientConfig`] as rustls says, and use
/// [`with_config`](Self::with_config).
#[derive(Clone)]
pub struct Tls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts the roots of Mozilla, as of when the crate `webpki-roots` was published.
    ///
    /// # Errors
    /// [`Invalid`] if `name` is neither a host's name nor an address.
    pub fn webpki(name: &str) -> Result<Self, Invalid> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::trusting(name, roots)
    }

    /// Trusts the roots that this machine trusts, read now, from files.
    ///
    /// # Errors
    /// [`Invalid`] if `name` is neither a host's name nor an address, or no root was found.
    pub fn platform(name: &str) -> Result<Self, Invalid> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // One that rustls cannot read, which machines have, is one fewer to trust.
        let (added, _) = roots.add_parsable_certificates(found.certs);
        let mut check = Check::default();
        check.rule(added > 0, "roots", &found.errors, "at least one root that this machine trusts");
        check.absorb("", named(name).map(drop));
        check.finish()?;
        Self::trusting(name, roots)
    }

    /// Trusts `roots` and nothing else.
    ///
    /// # Errors
    /// [`Invalid`] if `name` is neither a host's name nor an address.
    pub fn trusting(name: &str, roots: RootCertStore) -> Result<Self, Invalid> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has suites for every version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::with_config(name, config)
    }

    /// Speaks TLS as `config` says. Its ALPN is replaced by what [`Protocol`] asks for.
    ///
    /// # Errors
    /// [`Invalid`] if `name` is neither a host's name nor an address.
    pub fn with_config(name: &str, config: impl Into<Arc<ClientConfig>>) -> Result<Self, Invalid> {
        Ok(Self { name: named(name)?, config: config.into() })
    }

    /// What makes connections that speak `protocol`.
    pub(super) fn connector(&self, protocol: Protocol) -> Handshake {
        let alpn: &[&[u8]] = match protocol {
            Protocol::Http1 => &[HTTP_1_1],
            Protocol::Http2 => &[H2],
            Protocol::Negotiated => &[H2, HTTP_1_1],
        };
        // Tickets to resume sessions with are shared by all clones.
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Handshake { connector: Arc::new(config).into(), name: self.name.clone(), protocol }
    }
}

fn named(name: &str) -> Result<ServerName<'static>, Invalid> {
    let parsed = ServerName::try_from(name.to_owned());
    let mut check = Check::default();
    check.rule(parsed.is_ok(), "name", name, "the name of a host, or an address, without a port");
    check.finish()?;
    parsed.map_err(|_| Check::missing("name"))
}

/// The same name, and the same configuration in memory.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

/// Nothing of the configuration is shown, which may hold a key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes TLS connections of one protocol.
#[derive(Clone)]
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
    protocol: Protocol,
}

impl Handshake {
    /// Speaks TLS over `stream`; with the protocol of HTTP that both sides want.
    pub(super) async fn shake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Protocol), Cause> {
        let stream = self.connector.connect(self.name.clone(), stream).await.map_err(cause)?;
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Protocol::Http2,
            // A server without ALPN is one of HTTP/1.1.
            _ => Protocol::Http1,
        };
        if self.protocol == Protocol::Negotiated || self.protocol == spoken {
            return Ok((stream, spoken));
        }
        Err(Arc::new(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2")))
    }
}

/// What rustls says is in the middle of an `io::Error`, where no chain of sources shows it.
fn cause(error: io::Error) -> Cause {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => Arc::new(tls.clone()),
        None => Arc::new(error),
    }
}
