//! The suite over bind9, changed live by nsupdate, asked by itself and through caches.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mainstay::{
    backoff::Backoff,
    resolve::{self, DnsOptions, Resolve},
};

use super::{
    process::{Folder, Server, free_port, is_installed},
    suite::World,
};

/// The key that changes are signed with.
const SECRET: &str = "bm90IGEgc2VjcmV0IG9mIGFueWJvZHkncywgb25seSBhIHRlc3QncyE=";

/// A zone of bind's, and perhaps a cache that is asked in its place.
struct Zone {
    folder: Folder,
    named: Server,
    bind: u16,
    cache: Option<(Server, u16)>,
    update: Child,
    instances: u16,
}

#[derive(Clone, Copy)]
enum Cache {
    None,
    Dnsmasq,
    Unbound,
}

impl Zone {
    async fn start(cache: Cache) -> Option<Self> {
        let programs = match cache {
            Cache::None => vec!["named", "nsupdate"],
            Cache::Dnsmasq => vec!["named", "nsupdate", "dnsmasq"],
            Cache::Unbound => vec!["named", "nsupdate", "unbound"],
        };
        if !programs.into_iter().all(is_installed) {
            return None;
        }
        let (folder, bind) = (Folder::new("dns"), free_port());
        let dir = folder.path("").display().to_string();
        let config = folder.write(
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
        folder.write("update.key", &key);
        folder.write(
            "internal.zone",
            "$TTL 1\n@ SOA ns.internal. root.internal. 1 60 60 3600 1\n@ NS ns.internal.\nns A 127.0.0.1\n",
        );
        let named = Server::start(move || {
            let mut command = Command::new("named");
            command.args(["-f", "-n", "1", "-c"]).arg(&config);
            command
        });
        let cache = match cache {
            Cache::None => None,
            Cache::Dnsmasq => Some(dnsmasq(bind)),
            Cache::Unbound => Some(unbound(&folder, bind)),
        };
        let update = nsupdate(&folder);
        let mut zone = Self { folder, named, bind, cache, update, instances: 80 };
        zone.up().await;
        Some(zone)
    }

    /// Where questions go.
    fn asked(&self) -> u16 {
        self.cache.as_ref().map_or(self.bind, |(_, port)| *port)
    }

    /// Waits until it answers.
    async fn up(&mut self) {
        for port in [self.bind, self.asked()] {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
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
        let text = format!("server 127.0.0.1 {}\nzone internal\n{changes}send\n", self.bind);
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

fn nsupdate(folder: &Folder) -> Child {
    let mut command = Command::new("nsupdate");
    command.arg("-k").arg(folder.path("update.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn dnsmasq(bind: u16) -> (Server, u16) {
    let port = free_port();
    let server = Server::start(move || {
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
        command.args(["--listen-address=127.0.0.1", "--pid-file=", "--conf-file=/dev/null", "--user=root"]);
        command.arg(format!("--port={port}")).arg(format!("--server=127.0.0.1#{bind}"));
        command
    });
    (server, port)
}

fn unbound(folder: &Folder, bind: u16) -> (Server, u16) {
    let port = free_port();
    let dir = folder.path("").display().to_string();
    let config = folder.write(
        "unbound.conf",
        &format!(
            "server:\n  interface: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  domain-insecure: \"internal\"\n  \
             module-config: \"iterator\"\n  num-threads: 1\n  do-ip6: no\n\
             stub-zone:\n  name: \"internal.\"\n  stub-addr: 127.0.0.1@{bind}\n"
        ),
    );
    let server = Server::start(move || {
        let mut command = Command::new("unbound");
        command.args(["-d", "-p", "-c"]).arg(&config);
        command
    });
    (server, port)
}

impl World for Zone {
    const PATIENCE: Duration = Duration::from_secs(5);

    fn resolver(&self) -> Box<dyn Resolve> {
        let options = DnsOptions::default()
            .servers([SocketAddr::from((Ipv4Addr::LOCALHOST, self.asked()))])
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
        match &mut self.cache {
            Some((cache, _)) => cache.kill(),
            None => self.named.kill(),
        }
    }

    async fn restart(&mut self) {
        match &mut self.cache {
            Some((cache, _)) => cache.restart(),
            None => self.named.restart(),
        }
        self.up().await;
    }

    async fn freeze(&mut self) {
        match &self.cache {
            Some((cache, _)) => cache.freeze(),
            None => self.named.freeze(),
        }
    }

    async fn thaw(&mut self) {
        match &self.cache {
            Some((cache, _)) => cache.thaw(),
            None => self.named.thaw(),
        }
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
