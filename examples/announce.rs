//! Servers that announce themselves in etcd, and a client that finds them there.
//!
//! Shows the life of an entry: it stands while the server's own check passes, is withdrawn before the server drains, and is
//! found by a name with the scheme `etcd`. No request fails. It starts an `etcd`; where none is installed it says so and ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mainstay::{
    Client, Endpoint,
    announce::{Announce, Announcement, CheckOptions, State},
    describe::Idempotent,
    registry::{EtcdCluster, Instance},
    resolve,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower::{BoxError, service_fn};

/// A server that doubles numbers.
struct Server {
    address: SocketAddr,
    /// What its check looks at.
    is_well: Arc<AtomicBool>,
    announcement: Announcement,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(cluster: &EtcdCluster) -> Result<Self, BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(number) = stream.read_u32().await {
                        stream.write_u32(number * 2).await?;
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        let is_well = Arc::new(AtomicBool::new(true));
        let asked = is_well.clone();
        let check = move || {
            let is_well = asked.load(Relaxed);
            async move { if is_well { Ok(()) } else { Err("its disk is full") } }
        };
        let often = CheckOptions::default().interval(Duration::from_millis(50));
        let instance = Instance::new(address.to_string()).metadata("zone", "eu-1a");
        let announcement =
            Announce::etcd(cluster.clone(), "services/doubling", instance).check(often, check).start()?;
        announcement.until(|state| matches!(state, State::Announced(_))).await;
        Ok(Self { address, is_well, announcement, serving })
    }

    /// First no new requests, then an end to those that are there, then the end.
    async fn drain(self) -> Result<(), BoxError> {
        self.announcement.withdraw().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.serving.abort();
        Ok(())
    }
}

async fn ask(address: SocketAddr, number: u32) -> Result<u32, BoxError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_u32(number).await?;
    Ok(stream.read_u32().await?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Some(etcd) = Etcd::start().await? else {
        println!("there is no etcd here");
        return Ok(());
    };
    let cluster = EtcdCluster::new([etcd.address.to_string()]);
    let (first, second, third) =
        (Server::start(&cluster).await?, Server::start(&cluster).await?, Server::start(&cluster).await?);
    let doubling = Client::builder("doubling")
        .resolve(resolve::name(format!("etcd://{}/services/doubling", etcd.address)))
        .connect(|endpoint: &Endpoint| {
            let address = endpoint.address().sockets().first().copied();
            service_fn(move |number: u32| async move { ask(address.ok_or("no address")?, number).await })
        })
        .describe(Idempotent)
        .build()?;
    let asking = tokio::spawn({
        let doubling = doubling.clone();
        async move {
            for number in 0..400 {
                assert_eq!(doubling.send(number).await?, number * 2);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, BoxError>(())
        }
    });

    first.is_well.store(false, Relaxed);
    let unwell = first.announcement.until(|state| matches!(state, State::Unwell(_))).await;
    println!("first: {unwell}");
    second.drain().await?;
    println!("second: withdrawn");
    first.is_well.store(true, Relaxed);
    first.announcement.until(|state| matches!(state, State::Announced(_))).await;
    println!("first and third: announced");

    asking.await??;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let both = [first.address, third.address].map(|address| address.to_string());
    let rows = doubling.status().balance.endpoints;
    let left =
        rows.iter().filter(|row| row.is_available() && both.iter().any(|one| **one == *row.name)).count();
    println!("400 of 400 numbers doubled; {left} servers left");
    first.drain().await?;
    third.drain().await
}

/// A server of etcd that ends with this value.
struct Etcd {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Etcd {
    async fn start() -> Result<Option<Self>, BoxError> {
        let free = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        let (address, peers) = (free()?, free()?);
        let directory = std::env::temp_dir().join(format!("mainstay-announce-{}", std::process::id()));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&directory);
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([flag, &format!("http://{address}")]);
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([flag, &format!("http://{peers}")]);
        }
        command.args(["--initial-cluster", &format!("default=http://{peers}")]);
        let Ok(process) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            return Ok(None);
        };
        let etcd = Self { process, address, directory };
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(etcd))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
