//! Debian's etcd.

use std::{net::SocketAddr, path::PathBuf};

#[cfg(feature = "tls")]
use mainstay::registry::Tls;
use tokio::process::Command;

use super::client::Client;
use crate::daemon::{Daemon, Directory, free, is_installed};

/// A server whose data outlives its process, on ports of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    daemon: Option<Daemon>,
    arguments: Vec<String>,
    directory: Directory,
    /// What lets `etcdctl` in.
    access: Vec<String>,
}

/// Certificates for both sides, by one authority.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) client: (String, String),
    server: (String, String),
}

impl Certificates {
    #[cfg(feature = "tls")]
    pub(crate) fn new() -> Self {
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, key);
        let signed = |usages: &[rcgen::ExtendedKeyUsagePurpose]| {
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.extended_key_usages = usages.to_vec();
            let key = rcgen::KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        // etcd's gateway dials its own server with the server's certificate.
        Self { ca, client: signed(&[ClientAuth]), server: signed(&[ServerAuth, ClientAuth]) }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Tls {
        Tls::new().ca(&*self.ca).identity(&*self.client.0, &*self.client.1)
    }
}

impl Server {
    pub(crate) async fn start() -> Option<Self> {
        let mut server = Self::member("t0", &[free()], None)?;
        server.restart().await;
        Some(server)
    }

    #[cfg(feature = "tls")]
    pub(crate) async fn start_tls(certificates: &Certificates) -> Option<Self> {
        let mut server = Self::member("t0", &[free()], Some(certificates))?;
        server.restart().await;
        Some(server)
    }

    /// A cluster of three.
    pub(crate) async fn start_three() -> Option<[Self; 3]> {
        let peers = [free(), free(), free()];
        let member = |name| Self::member(name, &peers, None);
        let [mut first, mut second, mut third] = [member("t0")?, member("t1")?, member("t2")?];
        tokio::join!(first.restart(), second.restart(), third.restart());
        Some([first, second, third])
    }

    /// The member `name` (`t0`, `t1`, ..) of those that reach each other at `peers`.
    fn member(name: &str, peers: &[SocketAddr], certificates: Option<&Certificates>) -> Option<Self> {
        if !is_installed("etcd", &["--version"]) || !is_installed("etcdctl", &["version"]) {
            return None;
        }
        let (directory, address) = (Directory::new(), free());
        let own = peers[name[1..].parse::<usize>().unwrap()];
        let all: Vec<_> =
            peers.iter().enumerate().map(|(index, peer)| format!("t{index}=http://{peer}")).collect();
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let data = directory.path().join("data");
        let mut arguments: Vec<String> = [
            &format!("--name={name}"),
            &format!("--data-dir={}", data.display()),
            &format!("--listen-client-urls={scheme}://{address}"),
            &format!("--advertise-client-urls={scheme}://{address}"),
            &format!("--listen-peer-urls=http://{own}"),
            &format!("--initial-advertise-peer-urls=http://{own}"),
            &format!("--initial-cluster={}", all.join(",")),
            "--grpc-keepalive-min-time=100ms",
            "--bcrypt-cost=4",
            "--log-level=error",
        ]
        .map(str::to_owned)
        .into();
        let mut access = vec![format!("--endpoints={scheme}://{address}")];
        if let Some(certificates) = certificates {
            let file = |name: &str, text: &str| -> PathBuf { directory.file(name, text) };
            let ca = file("ca.pem", &certificates.ca);
            let (cert, key) = &certificates.server;
            let (cert, key) = (file("server.pem", cert), file("server-key.pem", key));
            arguments.extend([
                "--client-cert-auth".to_owned(),
                format!("--trusted-ca-file={}", ca.display()),
                format!("--cert-file={}", cert.display()),
                format!("--key-file={}", key.display()),
            ]);
            let (cert, key) = &certificates.client;
            let (cert, key) = (file("client.pem", cert), file("client-key.pem", key));
            access.extend([
                format!("--cacert={}", ca.display()),
                format!("--cert={}", cert.display()),
                format!("--key={}", key.display()),
            ]);
        }
        Some(Self { address, daemon: None, arguments, directory, access })
    }

    pub(crate) async fn restart(&mut self) {
        self.daemon = Some(Daemon::start("etcd", &self.arguments, &[], self.address).await);
        // It listens before it has elected itself.
        self.patiently(&["get", "nothing"]).await;
    }

    pub(crate) async fn kill(&mut self) {
        self.daemon.take().unwrap().kill().await;
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// One that forgets after a second whom it has let in, unless they ask for something.
    pub(crate) async fn start_forgetful() -> Option<Self> {
        let mut server = Self::member("t0", &[free()], None)?;
        server.arguments.push("--auth-token-ttl=1".to_owned());
        server.restart().await;
        Some(server)
    }

    /// Lets nobody in without a password from now on, but `root` with this one.
    pub(crate) async fn protect(&mut self, password: &str) {
        self.ctl(&["user", "add", &format!("root:{password}")]).await;
        self.ctl(&["user", "grant-role", "root", "root"]).await;
        self.ctl(&["auth", "enable"]).await;
        self.access.push(format!("--user=root:{password}"));
    }

    /// What etcd's own client says.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).await.unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    /// The same, again and again until it is done.
    pub(crate) async fn patiently(&self, arguments: &[&str]) {
        for _ in 0..20 {
            if self.try_ctl(&[&["--command-timeout=1s"], arguments].concat()).await.is_ok() {
                return;
            }
        }
        panic!("etcdctl {arguments:?} is never done");
    }

    async fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(&self.access).args(arguments).kill_on_drop(true);
        let output = command.output().await.unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) async fn client(&self, login: Option<(&str, &str)>) -> Client {
        Client::open(&format!("http://{}", self.address), login).await
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }
}
