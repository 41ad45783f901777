//! The network between a resolver and its registry, which can be counted, cut and held.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use super::suite::apart;

/// What is done with what goes by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    Flow,
    /// It goes through in crumbs.
    Slow,
    /// Nothing goes through, and nothing breaks: packets are dropped.
    Lost,
    /// What the client says after the server has said these bytes waits.
    HoldAfter(Vec<u8>),
    /// It waits.
    Held,
    /// Connections break, and new ones are refused.
    Cut,
}

/// Forwards connections to a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    connections: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, connections) = (Arc::new(watch::channel(Mode::Flow).0), Arc::<AtomicUsize>::default());
        let mut running = JoinSet::new();
        let (modes, counted) = (mode.clone(), connections.clone());
        running.spawn_on(
            async move {
                let mut forwarded = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    counted.fetch_add(1, Relaxed);
                    while forwarded.try_join_next().is_some() {}
                    forwarded.spawn(forward(client, server, modes.clone()));
                }
            },
            apart(),
        );
        Self { address, mode, connections, _running: running }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until what the client says is held.
    pub(crate) async fn held(&self) {
        self.mode.subscribe().wait_for(|mode| *mode == Mode::Held).await.unwrap();
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

async fn forward(client: TcpStream, server: SocketAddr, mode: Arc<watch::Sender<Mode>>) {
    let mut cut = mode.subscribe();
    let forwarding = async {
        let mut modes = mode.subscribe();
        let _ = modes.wait_for(|mode| *mode != Mode::Lost).await;
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let up = pass(from_client, to_server, &mode, false);
        let down = pass(from_server, to_client, &mode, true);
        tokio::select! { () = up => {} () = down => {} }
    };
    tokio::select! { () = forwarding => {} _ = cut.wait_for(|mode| *mode == Mode::Cut) => {} }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: &watch::Sender<Mode>, is_down: bool) {
    let mut modes = mode.subscribe();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..read];
        if is_down {
            mode.send_if_modified(|mode| match mode {
                Mode::HoldAfter(mark) if bytes.windows(mark.len()).any(|window| window == mark) => {
                    *mode = Mode::Held;
                    true
                }
                _ => false,
            });
        }
        let goes_on = |mode: &Mode| *mode != Mode::Lost && (is_down || *mode != Mode::Held);
        if modes.wait_for(goes_on).await.is_err() {
            return;
        }
        let is_slow = *modes.borrow() == Mode::Slow;
        for crumb in bytes.chunks(if is_slow { 7 } else { bytes.len() }) {
            if to.write_all(crumb).await.is_err() {
                return;
            }
            if is_slow {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}
