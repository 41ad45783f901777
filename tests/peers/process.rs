//! Processes that end with the test, in a directory that does too.

use std::{
    ffi::OsStr,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

/// A directory of its own.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mainstay-peer-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server process that listens at an address.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts `command` and waits until it listens. `None` if it is not installed and need not be.
    pub(crate) async fn start<A: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        address: SocketAddr,
    ) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if is_optional() => {
                eprintln!("skipped: no {program} here ({error})");
                return None;
            }
            Err(error) => panic!("no {program}: {error}"),
        };
        let process = Self { child, address };
        for _ in 0..3_000 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Some(process);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{program} never listens at {address}");
    }

    /// Sends it a signal, and waits until it has ended.
    pub(crate) async fn end(mut self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        while self.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a server may be missing.
pub(crate) fn is_optional() -> bool {
    std::env::var_os("CI").is_none()
}

/// A port that was free just now.
pub(crate) fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    listener.and_then(|listener: std::net::TcpListener| -> io::Result<_> { listener.local_addr() }).unwrap()
}
