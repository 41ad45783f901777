//! Servers of others: processes that end with the test, in a directory that does too.

use std::{
    ffi::OsStr,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    process::{Child, Command as AsyncCommand},
};

/// A directory of its own, in memory where that is to be had: what servers write is not what is tested.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("mainstay-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address of loopback whose port is free, and stays so: the system gives none of these to those who take any.
pub(crate) fn free() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() * 61;
    loop {
        let port = 20_000 + (first + TAKEN.fetch_add(1, Relaxed)) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Whether `program` is there. If it is not, says so, and fails where everything must be tested.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = match tried {
        Ok(status) if status.success() => return true,
        Ok(status) => io::Error::other(status.to_string()),
        Err(error) => error,
    };
    assert!(std::env::var_os("CI").is_none(), "no {program}: {missing}");
    eprintln!("skipped: no {program} here ({missing})");
    false
}

/// A server that listens at an address.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts `program` and waits until it listens at `address`.
    pub(crate) async fn start<A: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, String)],
        address: SocketAddr,
    ) -> Self {
        let mut command = AsyncCommand::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        for _ in 0..3_000 {
            if TcpStream::connect(address).await.is_ok() {
                return Self { child };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{program} has ended: {ended:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{program} does not listen at {address}");
    }

    /// Ends it without a goodbye.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// It stops doing anything.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it has ended").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}
