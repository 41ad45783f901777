//! The API of Kubernetes behind TLS, reached by a kubeconfig: whom it must be, and who asks.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mainstay::resolve::{self, Resolve};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::{
    kubernetes::Cluster,
    suite::{Watching, World},
};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn issue(&self, name: SanType) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = vec![name];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server that wants a certificate of this authority from whoever asks.
    fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.issue(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A kubeconfig for `address` that trusts `authority` and has a certificate of `own`.
fn kubeconfig(cluster: &Cluster, trusted: &Authority, own: &Authority, more: &str) -> resolve::Kubernetes {
    let folder = &cluster.folder;
    fs::create_dir_all(folder.join("pki")).unwrap();
    fs::write(folder.join("pki/ca.pem"), pem("CERTIFICATE", trusted.root.der())).unwrap();
    let (certificate, key) = own.issue(SanType::DnsName("me".try_into().unwrap()));
    let data = |text: String| BASE64_STANDARD.encode(text);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         clusters: [{{name: a, cluster: {{server: 'https://{}', {more}}}}}]\n\
         contexts: [{{name: here, context: {{cluster: a, user: me, namespace: prod}}}}]\n\
         users: [{{name: me, user: {{tokenFile: token, client-certificate-data: {}, client-key-data: {}}}}}]\n",
        cluster.stand.address,
        data(pem("CERTIFICATE", certificate.der())),
        data(pem("PRIVATE KEY", &key.serialize_der())),
    );
    fs::write(folder.join("config"), text).unwrap();
    resolve::kubernetes("users:http").kubeconfig(folder.join("config"))
}

fn addresses() -> [SocketAddr; 2] {
    [1, 2].map(|last| SocketAddr::from(([10, 4, 0, last], 8080)))
}

#[tokio::test]
async fn a_kubeconfig_opens_an_api_that_wants_a_certificate() {
    let authority = Authority::new();
    let cluster = Cluster::with_tls(Some(authority.acceptor())).await;
    cluster.put(&addresses(), 3);
    for more in ["certificate-authority: pki/ca.pem", "insecure-skip-tls-verify: true"] {
        let resolver = kubeconfig(&cluster, &authority, &authority, more);
        let mut watching = Watching::start(Box::new(resolver));
        let seen = watching.until_set(&addresses(), Cluster::RECOVERY).await;
        assert_eq!(seen.said, "", "{more}");
    }
}

#[tokio::test]
async fn an_api_that_is_another_is_not_shown_the_token() {
    let (authority, other) = (Authority::new(), Authority::new());
    let cluster = Cluster::with_tls(Some(authority.acceptor())).await;
    cluster.put(&addresses(), 3);
    for (more, trusted, own) in [
        ("certificate-authority: pki/ca.pem", &other, &authority),
        ("certificate-authority: pki/ca.pem", &authority, &other),
        ("certificate-authority: pki/ca.pem, tls-server-name: other.internal", &authority, &authority),
    ] {
        let resolver = kubeconfig(&cluster, trusted, own, more);
        let mut watching = Watching::start(Box::new(resolver));
        let seen = watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
        let told = seen.failed.unwrap();
        let registry = format!("kubernetes API at https://{}: ", cluster.stand.address);
        assert!(told.starts_with(&registry) && !told.contains("PRIVATE KEY"), "{told}");
    }
    assert_eq!(cluster.stand.asked(), 0);
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_yet_is_waited_for() {
    let authority = Authority::new();
    let cluster = Cluster::with_tls(Some(authority.acceptor())).await;
    cluster.put(&addresses(), 3);
    let resolver = resolve::kubernetes("users:http").kubeconfig(cluster.folder.join("config"));
    assert!(resolver.validate().is_ok());
    let mut watching = Watching::start(Box::new(resolver));
    watching.until("trouble", Cluster::RECOVERY, |seen| seen.failed.is_some()).await;
    kubeconfig(&cluster, &authority, &authority, "certificate-authority: pki/ca.pem");
    watching.until_set(&addresses(), Cluster::RECOVERY).await;
}
