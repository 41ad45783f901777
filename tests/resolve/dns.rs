//! The suite over bind9, changed live by nsupdate, asked by itself and through caches.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mainstay::{
    backoff::Backoff,
    resolve::{self, DnsOptions, Resolve},
};

use super::{
    daemon::{Daemon, Directory, free, is_installed},
    suite::World,
};

/// The key that changes are signed with.
const SECRET: &str = "bm90IGEgc2VjcmV0IG9mIGFueWJvZHkncywgb25seSBhIHRlc3QncyE=";

/// A zone of bind's, and perhaps a cache that is asked in its place.
struct Zone {
    folder: Directory,
    named: Server,
    cache: Option<Server>,
    update: Child,
    instances: u16,
}

/// A server of names, which can be started again as it was.
struct Server {
    program: &'static str,
    arguments: Vec<String>,
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl Server {
    async fn start(program: &'static str, arguments: Vec<String>, address: SocketAddr) -> Self {
        let mut server = Self { program, arguments, address, daemon: None };
        server.restart().await;
        server
    }

    async fn restart(&mut self) {
        self.daemon = Some(Daemon::start(self.program, &self.arguments, &[], self.address).await);
    }

    async fn kill(&mut self) {
        self.daemon.take().unwrap().kill().await;
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }
}

#[derive(Clone, Copy)]
enum Cache {
    None,
    Dnsmasq,
    Unbound,
}

impl Zone {
    async fn start(cache: Cache) -> Option<Self> {
        let cached = match cache {
            Cache::None => true,
            Cache::Dnsmasq => is_installed("dnsmasq", &["--version"]),
            Cache::Unbound => is_installed("unbound", &["-V"]),
        };
        if !(is_installed("named", &["-v"]) && is_installed("nsupdate", &["-V"]) && cached) {
            return None;
        }
        let (folder, address) = (Directory::new(), free());
        let (dir, bind) = (folder.path().display().to_string(), address.port());
        let config = folder.file(
            "named.conf",
            &format!(
                "options {{ directory \"{dir}\"; listen-on port {bind} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                    pid-file \"{dir}/named.pid\"; session-keyfile none; recursion no; dnssec-validation no;
                    allow-query {{ any; }}; minimal-responses no; }};
                controls {{ }};
                key \"update\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};
                zone \"internal\" {{ type primary; file \"{dir}/internal.zone\"; allow-update {{ key update; }}; }};"
            ),
        );
        let key = format!("key \"update\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};");
        folder.file("update.key", &key);
        folder.file(
            "internal.zone",
            "$TTL 1\n@ SOA ns.internal. root.internal. 1 60 60 3600 1\n@ NS ns.internal.\nns A 127.0.0.1\n",
        );
        let arguments = ["-f", "-n", "1", "-c", config.to_str().unwrap()].map(str::to_owned).to_vec();
        let named = Server::start("named", arguments, address).await;
        let cache = match cache {
            Cache::None => None,
            Cache::Dnsmasq => Some(dnsmasq(bind).await),
            Cache::Unbound => Some(unbound(&folder, bind).await),
        };
        let update = nsupdate(&folder);
        let mut zone = Self { folder, named, cache, update, instances: 80 };
        zone.up().await;
        Some(zone)
    }

    /// Where questions go.
    fn asked(&self) -> &Server {
        self.cache.as_ref().unwrap_or(&self.named)
    }

    fn asked_mut(&mut self) -> &mut Server {
        self.cache.as_mut().unwrap_or(&mut self.named)
    }

    /// Waits until it answers.
    async fn up(&mut self) {
        for server in [self.named.address, self.asked().address] {
            let probe = hickory_query("ns.internal.");
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut answer = [0; 512];
            let answered = async {
                loop {
                    let _ = socket.send_to(&probe, server).await;
                    let wait = Duration::from_millis(50);
                    if let Ok(Ok(length)) = tokio::time::timeout(wait, socket.recv(&mut answer)).await
                        && length > 3
                        && answer[3] & 15 == 0
                    {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the server never answered");
        }
    }

    fn change(&mut self, changes: &str) {
        let text = format!("server 127.0.0.1 {}\nzone internal\n{changes}send\n", self.named.address.port());
        let input = self.update.stdin.as_mut().unwrap();
        if input.write_all(text.as_bytes()).and_then(|()| input.flush()).is_err() {
            // It gave up on a server that was dead.
            self.update = nsupdate(&self.folder);
            let input = self.update.stdin.as_mut().unwrap();
            input.write_all(text.as_bytes()).and_then(|()| input.flush()).unwrap();
        }
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        let _ = self.update.kill();
        let _ = self.update.wait();
    }
}

/// A question for the address of `name`, as bytes.
fn hickory_query(name: &str) -> Vec<u8> {
    use hickory_proto::{
        op::{Message, OpCode, Query},
        rr::{Name, RecordType},
    };
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn nsupdate(folder: &Directory) -> Child {
    let mut command = Command::new("nsupdate");
    command.arg("-k").arg(folder.path().join("update.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn dnsmasq(bind: u16) -> Server {
    let address = free();
    let mut arguments = vec![format!("--port={}", address.port()), format!("--server=127.0.0.1#{bind}")];
    let fixed = "--keep-in-foreground --no-resolv --no-hosts --bind-interfaces --listen-address=127.0.0.1 --pid-file= \
                 --conf-file=/dev/null --user=root";
    arguments.extend(fixed.split_whitespace().map(str::to_owned));
    Server::start("dnsmasq", arguments, address).await
}

async fn unbound(folder: &Directory, bind: u16) -> Server {
    let address = free();
    let (dir, port) = (folder.path().display(), address.port());
    let config = folder.file(
        "unbound.conf",
        &format!(
            "server:\n  interface: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  domain-insecure: \"internal\"\n  \
             module-config: \"iterator\"\n  num-threads: 1\n  do-ip6: no\n\
             stub-zone:\n  name: \"internal.\"\n  stub-addr: 127.0.0.1@{bind}\n"
        ),
    );
    let arguments = ["-d", "-p", "-c", config.to_str().unwrap()].map(str::to_owned).to_vec();
    Server::start("unbound", arguments, address).await
}

impl World for Zone {
    const PATIENCE: Duration = Duration::from_secs(5);

    fn resolver(&self) -> Box<dyn Resolve> {
        let options = DnsOptions::default()
            .servers([self.asked().address])
            .floor(Duration::from_millis(100))
            .timeout(Duration::from_millis(500))
            .backoff(Backoff::exponential(Duration::from_millis(200)).cap(Duration::from_secs(1)));
        Box::new(resolve::dns(format!("users.internal:{}", self.instances)).options(options))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        self.instances = instances[0].port();
        let add = |address: &SocketAddr| format!("update add users.internal. 1 A {}\n", address.ip());
        let added: String = instances.iter().map(add).collect();
        self.change(&format!("update delete users.internal. A\n{added}"));
    }

    async fn remove(&mut self) {
        self.change("update delete users.internal.\n");
    }

    async fn kill(&mut self) {
        self.asked_mut().kill().await;
    }

    async fn restart(&mut self) {
        self.asked_mut().restart().await;
        self.up().await;
    }

    async fn freeze(&mut self) {
        self.asked().daemon().freeze();
    }

    async fn thaw(&mut self) {
        self.asked().daemon().thaw();
    }

    /// A cache in between changes nothing for our memory.
    fn updates(&self) -> usize {
        if self.cache.is_some() { 500 } else { 10_000 }
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }
}

mod bind {
    crate::suite!(super::Zone::start(super::Cache::None));
}

mod dnsmasq {
    crate::suite!(super::Zone::start(super::Cache::Dnsmasq));
}

mod unbound {
    crate::suite!(super::Zone::start(super::Cache::Unbound));
}
