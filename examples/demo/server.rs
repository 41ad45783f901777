//! A real HTTP/1.1 server on loopback whose conduct can be changed while it runs.

use std::{
    convert::Infallible,
    future, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mainstay::{
    clock,
    random::{Entropy, Random},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::{
    client::{HEADER, Who},
    tally::{Figures, Recent},
};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers 200 after its service time.
    Normal,
    /// Answers 200 after a hundred times its service time.
    Slow,
    /// Answers 500 at once, as a server does whose database is gone.
    Failing,
    /// Not there: connections are refused, those that stood are closed.
    Down,
    /// Accepts, reads and never answers.
    Hanging,
}

/// One server: its address, its mode, and what it has seen.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    seen: [AtomicU64; 2],
    answers: Mutex<Recent>,
}

impl Server {
    /// Takes a free port and serves on it for as long as the runtime lives.
    pub(crate) fn start(mode: Mode) -> io::Result<Arc<Self>> {
        let socket = reserve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let server = Arc::new(Self {
            address: socket.local_addr()?,
            mode: watch::Sender::new(mode),
            seen: [const { AtomicU64::new(0) }; 2],
            answers: Mutex::new(Recent::new(clock::now())),
        });
        tokio::spawn(Arc::clone(&server).run(socket));
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    pub(crate) fn turn(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many requests of this client have arrived.
    pub(crate) fn seen(&self, who: Who) -> u64 {
        self.seen[who as usize].load(Ordering::Relaxed)
    }

    /// How long the answers of the last seconds took, as the server measures it.
    pub(crate) fn answers(&self, now: Instant) -> Option<Figures> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).read(now)
    }

    async fn run(self: Arc<Self>, mut socket: TcpSocket) -> io::Result<()> {
        let mut mode = self.mode.subscribe();
        loop {
            // The sender lives in `self`, so this waits for as long as it takes.
            let _ = mode.wait_for(|mode| *mode != Mode::Down).await;
            let listener = socket.listen(1024)?;
            tokio::select! {
                () = self.accept(&listener) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Down) => {}
            }
            // `accept` is gone by now, and every connection with it.
            drop(listener);
            socket = loop {
                match reserve(self.address) {
                    Ok(socket) => break socket,
                    // Somebody was quicker and got the number for a connection of theirs.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            };
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Arc::clone(self).serve(stream));
            }
            while connections.try_join_next().is_some() {}
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let answer = service_fn(|request| self.answer(request));
        // A connection that breaks is the client's to notice.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let arrived = clock::now();
        if let Some(who) = request.headers().get(HEADER).and_then(Who::from_header) {
            self.seen[who as usize].fetch_add(1, Ordering::Relaxed);
        }
        let status = match self.mode() {
            Mode::Failing => StatusCode::INTERNAL_SERVER_ERROR,
            Mode::Hanging => future::pending().await,
            Mode::Slow => {
                sleep(service_time() * 100).await;
                StatusCode::OK
            }
            Mode::Normal | Mode::Down => {
                sleep(service_time()).await;
                StatusCode::OK
            }
        };
        let now = clock::now();
        let took = now.saturating_duration_since(arrived);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).record(now, took, status.is_success());
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
        *response.status_mut() = status;
        Ok(response)
    }
}

/// A socket that holds the port without listening on it: connections are refused, and nobody else gets the number.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The port may still be warm from the connections of an earlier life.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Four to eight milliseconds, and sixteen for one request in thirty.
///
/// Real servers have such a tail. Here it also keeps the healthy p99 where it is when the machine is busy.
fn service_time() -> Duration {
    let word = Entropy.next();
    if word.is_multiple_of(30) {
        Duration::from_millis(16)
    } else {
        Duration::from_micros(4_000 + (word >> 32) % 4_000)
    }
}
