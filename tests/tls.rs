//! `mainstay::hyper` over TLS, against hyper's servers behind rustls, with certificates made for the test.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::{
    Endpoint, Error, Reason,
    balance::BalanceOptions,
    http::Unsendable,
    hyper::{Client, Connector, ConnectorOptions, Protocol, Tls},
    resolve,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    CertificateError, ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Service as _, ServiceExt as _};

type Test = Result<(), BoxError>;
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority that signs certificates.
struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self(Issuer::new(params, key), root)
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.1.clone()).unwrap();
        roots
    }
}

/// What a server says of itself.
struct Wanted<'a> {
    name: &'a str,
    alpn: &'a [&'a str],
    /// Whether its clients have to prove who they are.
    mutual: bool,
}

const HTTP_2: Wanted<'static> = Wanted { name: "users.internal", alpn: &["h2", "http/1.1"], mutual: false };
const HTTP_1: Wanted<'static> = Wanted { name: "users.internal", alpn: &[], mutual: false };

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
}

/// Speaks what ALPN came to, and answers with the version, the host and the name that TLS was asked for.
async fn serve(authority: &Authority, wanted: &Wanted<'_>) -> Server {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if wanted.mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots().into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = authority.identity(wanted.name);
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = wanted.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), count.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                count.fetch_add(1, SeqCst);
                let (_, session) = stream.get_ref();
                let asked_for = session.server_name().unwrap_or("nobody").to_owned();
                let is_h2 = session.alpn_protocol() == Some(b"h2");
                let answer = service_fn(move |request: Request<Incoming>| {
                    let header = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
                    let host = header.unwrap_or_else(|| request.uri().authority().unwrap().to_string());
                    let text = format!("{:?} {host} {asked_for}", request.version());
                    async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text))) }
                });
                let io = TokioIo::new(stream);
                if is_h2 {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await?;
                } else {
                    http1::Builder::new().serve_connection(io, answer).await?;
                }
                Ok::<_, BoxError>(())
            });
        }
    });
    Server { address, connections }
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

async fn text(client: &Client, uri: &str) -> Result<String, BoxError> {
    let body = client.send(get(uri)).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

fn client(servers: &[&Server], options: ConnectorOptions) -> Result<Client, BoxError> {
    let addresses = servers.iter().map(|server| server.address);
    // How fast the machine is decides nothing.
    let mut balance = BalanceOptions::default();
    balance.connect_timeout = Duration::from_secs(30);
    balance.attempt_limit = Some(Duration::from_secs(30));
    let builder = Client::builder("users").resolve(resolve::fixed(addresses)).connector(options);
    Ok(builder.balance(balance).deadline(Duration::from_secs(60)).build()?)
}

/// One connection, without a client around it.
async fn connect(server: &Server, options: ConnectorOptions) -> Result<(), BoxError> {
    let mut connector = Connector::<Empty<Bytes>>::new(options)?;
    connector.call(Arc::new(Endpoint::new(server.address))).await.map(drop)
}

fn tls_error(error: &BoxError) -> Option<&rustls::Error> {
    let ours = Error::find(&**error).expect("it is told as a failed connection");
    assert_eq!(ours.reason(), Reason::Connect);
    std::error::Error::source(ours)?.downcast_ref()
}

#[tokio::test]
async fn the_logical_name_is_asked_for_and_the_host_stays_what_the_caller_wrote() -> Test {
    let authority = Authority::new();
    let server = serve(&authority, &HTTP_2).await;
    for (protocol, version) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let tls = Tls::trusting("users.internal", authority.roots())?;
        let users = client(&[&server], ConnectorOptions::default().tls(tls).protocol(protocol))?;
        let answer = text(&users, "https://users.internal:8443/1").await?;
        assert_eq!(answer, format!("{version} users.internal:8443 users.internal"));
    }
    Ok(())
}

#[tokio::test]
async fn http_2_is_spoken_where_the_endpoint_wants_it() -> Test {
    let authority = Authority::new();
    let (new, old) = (serve(&authority, &HTTP_2).await, serve(&authority, &HTTP_1).await);
    let tls = Tls::trusting("users.internal", authority.roots())?;
    let options = ConnectorOptions::default().tls(tls).protocol(Protocol::Negotiated);
    for (server, version) in [(&new, "HTTP/2.0"), (&old, "HTTP/1.1")] {
        let users = client(&[server], options.clone())?;
        for _ in 0..5 {
            assert!(text(&users, "https://users.internal/1").await?.starts_with(version));
        }
        assert_eq!(server.connections.load(SeqCst), 1, "the connection that told is the one that is used");
    }
    let both = client(&[&new, &old], options)?;
    for _ in 0..10 {
        text(&both, "https://users.internal/1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_is_no_endpoint_of_http_2() -> Test {
    let authority = Authority::new();
    let server = serve(&authority, &HTTP_1).await;
    let tls = Tls::trusting("users.internal", authority.roots())?;
    let options = ConnectorOptions::default().tls(tls).protocol(Protocol::Http2);
    let error = connect(&server, options).await.unwrap_err();
    let ours = Error::find(&*error).unwrap();
    assert!(std::error::Error::source(ours).unwrap().to_string().contains("HTTP/2"));
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_the_wrong_name_is_refused() -> Test {
    let authority = Authority::new();
    let server = serve(&authority, &Wanted { name: "orders.internal", ..HTTP_2 }).await;
    let tls = Tls::trusting("users.internal", authority.roots())?;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Negotiated] {
        let options = ConnectorOptions::default().tls(tls.clone()).protocol(protocol);
        let error = connect(&server, options).await.unwrap_err();
        let refused = matches!(
            tls_error(&error),
            Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        );
        assert!(refused, "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_with_the_wrong_certificate_never_gets_a_request() -> Test {
    let authority = Authority::new();
    let right = serve(&authority, &HTTP_1).await;
    let wrong = serve(&authority, &Wanted { name: "orders.internal", ..HTTP_1 }).await;
    let tls = Tls::trusting("users.internal", authority.roots())?;
    let users = client(&[&wrong, &right], ConnectorOptions::default().tls(tls))?;
    for _ in 0..20 {
        text(&users, "https://users.internal/1").await?;
    }
    let rows = users.status().balance.endpoints;
    assert_eq!(rows.iter().filter(|row| row.is_available()).count(), 1);
    assert_eq!(wrong.connections.load(SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_refused() -> Test {
    let server = serve(&Authority::new(), &HTTP_1).await;
    let tls = Tls::trusting("users.internal", Authority::new().roots())?;
    let mine = connect(&server, ConnectorOptions::default().tls(tls)).await.unwrap_err();
    let mozilla = ConnectorOptions::default().tls(Tls::webpki("users.internal")?);
    let mozilla = connect(&server, mozilla).await.unwrap_err();
    for error in [mine, mozilla] {
        assert!(matches!(tls_error(&error), Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn who_has_to_prove_who_they_are_can_and_who_cannot_gets_nothing() -> Test {
    let authority = Authority::new();
    let server = serve(&authority, &Wanted { mutual: true, ..HTTP_2 }).await;
    let (chain, key) = authority.identity("me.internal");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(chain, key)?;
    let known = Tls::with_config("users.internal", config)?;
    let options = ConnectorOptions::default().tls(known).protocol(Protocol::Negotiated);
    let answer = text(&client(&[&server], options)?, "https://users.internal/1").await?;
    assert!(answer.starts_with("HTTP/2.0"));

    let unknown = Tls::trusting("users.internal", authority.roots())?;
    let mut connector = Connector::<Empty<Bytes>>::new(ConnectorOptions::default().tls(unknown))?;
    // In TLS 1.3 a client learns of it when it reads, which is after it has written.
    let refused = match connector.call(Arc::new(Endpoint::new(server.address))).await {
        Ok(transport) => transport.oneshot(get("https://users.internal/1")).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(refused.is_err());
    Ok(())
}

#[tokio::test]
async fn the_scheme_has_to_be_what_is_spoken() -> Test {
    let authority = Authority::new();
    let server = serve(&authority, &HTTP_1).await;
    let tls = Tls::trusting("users.internal", authority.roots())?;
    let users = client(&[&server], ConnectorOptions::default().tls(tls))?;
    let error = text(&users, "http://users.internal/1").await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Unsendable::Scheme { scheme: "http".into() }));
    assert!(text(&users, "/1").await.is_ok(), "a path alone says nothing of a scheme");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_plain_where_tls_is_wanted_is_never_made() -> Test {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let tls = Tls::webpki("users.internal")?;
    let server = Server { address, connections: Arc::default() };
    let connected =
        tokio::time::timeout(Duration::from_secs(30), connect(&server, ConnectorOptions::default().tls(tls)));
    assert!(tls_error(&connected.await?.unwrap_err()).is_some());
    Ok(())
}

#[test]
fn what_is_no_name_and_what_cannot_be_negotiated_is_told() -> Test {
    for name in ["", "users:443", "a b", "https://users"] {
        assert_eq!(Tls::webpki(name).unwrap_err().problems()[0].field, "name", "{name:?}");
    }
    assert!(Tls::webpki("10.0.0.1").is_ok() && Tls::webpki("users.internal").is_ok());
    let options = ConnectorOptions::default().protocol(Protocol::Negotiated);
    assert_eq!(options.check().unwrap_err().problems()[0].field, "protocol");
    assert_eq!(options.tls(Tls::webpki("users.internal")?).check(), Ok(()));
    Ok(())
}

#[test]
fn the_roots_of_the_machine_are_found_or_their_absence_is_told() {
    match Tls::platform("users.internal") {
        Ok(tls) => assert!(format!("{tls:?}").contains("users.internal")),
        Err(invalid) => assert_eq!(invalid.problems()[0].field, "roots"),
    }
}
