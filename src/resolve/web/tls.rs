//! TLS to a registry, with certificates that are read when it is connected to.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

use super::{Access, Pem, WebError};

/// Reads files and, if no root is given, those that this machine trusts: not for the thread of a runtime.
pub(super) fn connector(access: &Access) -> Result<TlsConnector, WebError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(told)?;
    let builder = if access.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(access.ca.as_ref())?)
    };
    let mut config = match &access.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let pem = key.read()?;
            let key_der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
                WebError::credential(format_args!("{key:?}"), "there is no private key in it")
            })?;
            builder.with_client_auth_cert(certificates(chain)?, key_der).map_err(told)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn roots(ca: Option<&Pem>) -> Result<RootCertStore, WebError> {
    let mut roots = RootCertStore::empty();
    let found = match ca {
        Some(ca) => certificates(ca)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    // One that rustls cannot read, which machines have, is one fewer to trust.
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        let place = ca.map_or_else(|| "this machine".to_owned(), |ca| format!("{ca:?}"));
        return Err(WebError::credential(place, "there is no root certificate"));
    }
    Ok(roots)
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let text = pem.read()?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(WebError::credential(format_args!("{pem:?}"), "there is no certificate in it")),
    }
}

fn told(error: Error) -> WebError {
    WebError::Tls(io::Error::other(error))
}

/// Takes any certificate, as was asked for.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
