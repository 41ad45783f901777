//! Servers on loopback whose addresses the registries tell.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::BoxError;

/// Echo servers that share one port, since a host name tells addresses only: `127.x.y.1`, `127.x.y.2`, ...
pub(crate) struct Servers {
    pub(crate) addresses: Vec<SocketAddr>,
    running: JoinSet<()>,
}

impl Servers {
    /// Starts `count` servers on a free port and addresses of their own.
    pub(crate) async fn start(count: u8) -> Self {
        // Suites run beside each other: the port of an address that nobody has yet tells them apart.
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let [high, low] = port.to_be_bytes();
        let mut servers = Self { addresses: Vec::new(), running: JoinSet::new() };
        for index in 1..=count {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, index)), port);
            servers.addresses.push(address);
            servers.run(address).await;
        }
        servers
    }

    async fn run(&mut self, address: SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        self.running.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                while served.try_join_next().is_some() {}
                served.spawn(async move {
                    while let Ok(word) = stream.read_u32().await {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        if stream.write_u32(word).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

/// One request to the server at `address`, on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, word: u32) -> Result<u32, BoxError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_u32(word).await?;
    Ok(stream.read_u32().await?)
}
