//! The suite over files: each change as one writes them, by a rename.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use mainstay::resolve::{self, FileOptions, Resolve};

use super::{daemon::Directory, suite::World};

struct Folder {
    directory: Directory,
    format: &'static str,
}

impl Folder {
    async fn start(format: &'static str) -> Option<Self> {
        Some(Self { directory: Directory::new(), format })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(format!("users.{}", self.format))
    }

    fn put(&self, text: &str) {
        let beside = self.directory.path().join("beside");
        fs::write(&beside, text).unwrap();
        let _ = fs::remove_dir(self.file());
        fs::rename(beside, self.file()).unwrap();
    }
}

impl World for Folder {
    const PATIENCE: Duration = Duration::from_secs(3);

    fn resolver(&self) -> Box<dyn Resolve> {
        let options = FileOptions::default().interval(Duration::from_millis(50));
        Box::new(resolve::file(self.file()).options(options))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        let line = |address: &SocketAddr| match self.format {
            "toml" => format!("[[endpoints]]\naddress = \"{address}\"\n"),
            "json" => format!("\"{address}\""),
            _ => format!("  - {address}\n"),
        };
        let lines: Vec<String> = instances.iter().map(line).collect();
        self.put(&match self.format {
            "toml" => lines.concat(),
            "json" => format!("{{\"endpoints\": [{}]}}", lines.join(",")),
            _ => format!("endpoints:\n{}", lines.concat()),
        });
    }

    async fn remove(&mut self) {
        fs::remove_file(self.file()).unwrap();
    }

    /// A disk that is gone: there is something, and it cannot be read.
    async fn kill(&mut self) {
        fs::remove_file(self.file()).unwrap();
        fs::create_dir(self.file()).unwrap();
    }

    async fn restart(&mut self) {}

    /// Files do not freeze; a half-written one is the nearest thing.
    async fn freeze(&mut self) {
        self.put("{\"endpoints\": [");
    }

    async fn thaw(&mut self) {}
}

mod yaml {
    crate::suite!(super::Folder::start("yaml"));
}

mod json {
    crate::suite!(super::Folder::start("json"));
}

mod toml {
    crate::suite!(super::Folder::start("toml"));
}
