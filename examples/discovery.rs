//! Endpoints that come and go, by any scheme that [`mainstay::resolve::name`] knows.
//!
//! ```text
//! cargo run --all-features --example discovery
//! cargo run --all-features --example discovery -- dns:///users.internal:8080
//! ```
//!
//! Without a name it is its own registry: five HTTP servers on loopback, and a file that lists some of them, is changed,
//! broken, and taken away. With one it shows what the registry says, until it is stopped. Either way a client sends 200
//! requests a second to whoever is there, and a line a second says who that is and who answered.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use mainstay::{
    clock,
    hyper::Client,
    resolve::{self, FileOptions, Resolve, ResolveExt as _},
    telemetry::Event,
};
use tokio::{net::TcpListener, time::sleep};
use tower::BoxError;

const HELP: &str = "\
usage: cargo run --all-features --example discovery [-- [NAME] [--seconds N]]

  NAME         what to resolve: dns:///users.internal:8080, srv:///_users._tcp.internal,
               file:///etc/mesh/users.yaml, etcd:///services/users, ... Without it
               the example is a registry of its own: a file, and five servers.
  --seconds N  how long to show it [12 without a name, else until it is stopped]";

#[tokio::main]
async fn main() -> ExitCode {
    let (mut name, mut seconds, mut arguments) = (None, None, std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            "--seconds" => match arguments.next().and_then(|text| text.parse().ok()) {
                Some(number) => seconds = Some(number),
                None => return refuse("--seconds needs a whole number"),
            },
            flag if flag.starts_with('-') => return refuse(&format!("unknown option {flag}")),
            _ if name.is_some() => return refuse("one name, not two"),
            _ => name = Some(argument),
        }
    }
    let shown = match name {
        Some(name) => show(resolve::name(name), seconds.unwrap_or(u64::MAX)).await,
        None => show_own(seconds.unwrap_or(12)).await,
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}; --help tells more");
    ExitCode::from(2)
}

/// A file, the servers in it, and what becomes of both.
async fn show_own(seconds: u64) -> Result<(), BoxError> {
    let mut servers = Vec::new();
    for _ in 0..5 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        servers.push(listener.local_addr()?);
        let app = Router::new().route("/", get(async || "hello"));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    let folder = Folder::new()?;
    folder.list(&servers[..2])?;
    let path = folder.file();
    let script = tokio::spawn(async move {
        let pause = || sleep(Duration::from_millis(1_800));
        pause().await;
        say("the file lists two more");
        folder.list(&servers[..4])?;
        pause().await;
        say("the first two are gone from it, and one is new");
        folder.list(&servers[2..])?;
        pause().await;
        say("somebody breaks it");
        folder.put("endpoints:\n  - address: 127.0.0.1:80\n    wieght: 2\n")?;
        pause().await;
        say("it is mended, with a server that has three times the weight");
        folder.put(&format!(
            "endpoints:\n  - {}\n  - {{address: '{}', weight: 3}}\n",
            servers[0], servers[1]
        ))?;
        pause().await;
        say("it is deleted: for half a minute nobody believes that");
        fs::remove_file(folder.file())?;
        // The folder stays until the end.
        std::future::pending::<io::Result<Folder>>().await
    });
    let options = FileOptions::default().interval(Duration::from_millis(100));
    let shown = show(resolve::file(path).options(options), seconds).await;
    script.abort();
    let _ = script.await;
    shown
}

/// A folder that goes with the example.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("mainstay-discovery-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self) -> PathBuf {
        self.0.join("users.yaml")
    }

    fn list(&self, servers: &[SocketAddr]) -> io::Result<()> {
        let lines: String = servers.iter().map(|server| format!("  - {server}\n")).collect();
        self.put(&format!("endpoints:\n{lines}"))
    }

    /// As one changes a file that others read: whole, by a rename.
    fn put(&self, text: &str) -> io::Result<()> {
        let beside: &Path = &self.0.join("beside");
        fs::write(beside, text)?;
        fs::rename(beside, self.file())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn say(what: &str) {
    println!("       -- {what}");
}

/// Sends requests to whoever is there, and says who that is.
async fn show(resolver: impl Resolve, seconds: u64) -> Result<(), BoxError> {
    let describe = resolver.describe();
    // Clones of it would share the look-ups with this client.
    let users = Client::builder("users")
        .resolve(resolver.shared())
        .deadline(Duration::from_secs(2))
        .observe(|_: &str, event: &Event| match event {
            Event::Resolved { endpoints, added, removed } => {
                println!("       {endpoints} endpoints: {added} came, {removed} went");
            }
            Event::ResolutionFailed { cause } => println!("       trouble: {cause}"),
            _ => {}
        })
        .build()?;
    println!("{describe}");
    let failed = Arc::new(Mutex::new((0_u32, None::<String>)));
    let load = tokio::spawn({
        let (users, failed) = (users.clone(), failed.clone());
        async move {
            loop {
                sleep(Duration::from_millis(5)).await;
                let (users, failed) = (users.clone(), failed.clone());
                tokio::spawn(async move {
                    let request = Request::get("http://users/").body(Empty::<Bytes>::new());
                    let answer = match request {
                        Ok(request) => users.send(request).await.map(|_| ()),
                        Err(error) => Err(error.into()),
                    };
                    if let Err(error) = answer {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        *failed = (failed.0 + 1, Some(error.to_string()));
                    }
                });
            }
        }
    });
    let (start, mut before) = (clock::now(), BTreeMap::new());
    let mut answered = 0;
    while (clock::now() - start).as_secs() < seconds {
        sleep(Duration::from_secs(1)).await;
        let mut shares = Vec::new();
        for row in users.status().balance.endpoints {
            let last = before.insert(row.name.clone(), row.successes).unwrap_or(0);
            let now = row.successes.saturating_sub(last);
            answered += now;
            let gone = if row.is_available() { "" } else { "!" };
            shares.push(format!("{}{gone} {now}", row.name));
        }
        let (failures, last) = std::mem::take(&mut *failed.lock().unwrap_or_else(PoisonError::into_inner));
        let trouble = last.map(|last| format!("; {failures} failed: {last}")).unwrap_or_default();
        println!("{:>4} s {}{trouble}", (clock::now() - start).as_secs(), shares.join(", "));
    }
    load.abort();
    println!("{answered} requests were answered");
    users.close(Duration::from_secs(1)).await;
    Ok(())
}
