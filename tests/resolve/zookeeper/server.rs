//! Debian's ZooKeeper, and kazoo.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::daemon::{Daemon, Directory, free, is_installed};

const START: &str = "/usr/share/zookeeper/bin/zkServer.sh";
/// The one that Debian's kazoo is for.
const PYTHON: &str = "/usr/bin/python3";
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/resolve/zookeeper/foreign.py");

/// A server whose data outlives its process, on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    daemon: Option<Daemon>,
    directory: Directory,
}

impl Server {
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed("test", &["-x", START])
            || !is_installed("java", &["-version"])
            || !is_installed(PYTHON, &["-c", "import kazoo"])
        {
            return None;
        }
        let (directory, address) = (Directory::new(), free());
        let data = directory.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let lines = [
            // Sessions of 400 ms and more.
            "tickTime=200".to_owned(),
            "maxSessionTimeout=60000".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=mntr".to_owned(),
            format!("dataDir={}", data.display()),
            format!("clientPort={}", address.port()),
            "clientPortAddress=127.0.0.1".to_owned(),
        ];
        directory.file("zoo.cfg", &lines.join("\n"));
        let mut server = Self { address, daemon: None, directory };
        server.restart().await;
        Some(server)
    }

    pub(crate) async fn restart(&mut self) {
        let config = self.directory.path().join("zoo.cfg");
        let flags = "-Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dzookeeper.forceSync=no";
        let environment = [
            ("ZOO_LOG_DIR", self.directory.path().display().to_string()),
            ("ZOO_LOG4J_PROP", "OFF,CONSOLE".to_owned()),
            ("JVMFLAGS", flags.to_owned()),
        ];
        let arguments = ["start-foreground".into(), config.into_os_string()];
        self.daemon = Some(Daemon::start(START, arguments, &environment, self.address).await);
    }

    pub(crate) async fn kill(&mut self) {
        self.daemon.take().unwrap().kill().await;
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A client with a session of its own, which lasts for `session` without a word.
    pub(crate) async fn kazoo(&self, session: Duration, digests: &[&str]) -> Kazoo {
        let mut command = Command::new(PYTHON);
        command.arg(CLIENT).arg(self.address.to_string()).arg(session.as_secs_f64().to_string());
        command.args(digests).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut kazoo = Kazoo { _child: child, input, output: BufReader::new(output).lines() };
        assert_eq!(kazoo.answer().await, Some(json!("ready")));
        kazoo
    }
}

pub(crate) struct Kazoo {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Kazoo {
    /// Has it do `action`.
    pub(crate) async fn tell(&mut self, action: &str, arguments: Value) -> Value {
        self.say(action, arguments).await;
        self.answer().await.unwrap_or_else(|| panic!("kazoo failed to {action}"))
    }

    /// Ends it without a goodbye to its session.
    pub(crate) async fn die(mut self) {
        self.say("die", json!({})).await;
        assert_eq!(self.answer().await, None);
    }

    async fn say(&mut self, action: &str, arguments: Value) {
        let line = format!("{}\n", json!([action, arguments]));
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Option<Value> {
        let line =
            timeout(Duration::from_secs(40), self.output.next_line()).await.expect("kazoo hangs").unwrap();
        line.map(|line| serde_json::from_str(&line).unwrap())
    }
}
