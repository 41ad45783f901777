//! HTTP/1.1 for stand-ins, down to the bytes, so that they may be as ugly as they like.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay::{
    backoff::{Backoff, Jitter},
    resolve::WatchOptions,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::suite::apart;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        self.query.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What answers.
pub(crate) trait Registry: Send + Sync + 'static {
    /// An error closes the connection.
    fn answer(&self, asked: Asked, out: &mut Out) -> impl Future<Output = io::Result<()>> + Send;
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where an answer goes.
pub(crate) struct Out {
    stream: BufReader<Box<dyn Io>>,
    frozen: watch::Receiver<bool>,
}

impl Out {
    /// Just these bytes.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frozen.wait_for(|frozen| !frozen).await.map_err(io::Error::other)?;
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// A whole answer.
    pub(crate) async fn whole(&mut self, status: u16, headers: &str, body: &str) -> io::Result<()> {
        let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.raw(format!("{head}{body}").as_bytes()).await
    }

    /// The head of an answer in chunks.
    pub(crate) async fn begin(&mut self) -> io::Result<()> {
        self.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await
    }

    pub(crate) async fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.raw(&chunk).await
    }

    pub(crate) async fn end(&mut self) -> io::Result<()> {
        self.raw(b"0\r\n\r\n").await
    }

    async fn asked(&mut self) -> io::Result<Asked> {
        let first = self.line().await?;
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), plain(value)))
            .collect();
        let (method, path) = (method.to_owned(), plain(path));
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Asked { method, path, query, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
        bytes.push(if byte == b'%' {
            hex(rest.next().unwrap()) * 16 + hex(rest.next().unwrap())
        } else {
            byte
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// A stand-in on a port of its own, on a runtime that is not the resolver's.
pub(crate) struct Stand<R> {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Arc<R>,
    tls: Option<TlsAcceptor>,
    frozen: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
    task: Option<JoinHandle<()>>,
}

impl<R: Registry> Stand<R> {
    #[cfg(any(feature = "consul", feature = "eureka"))]
    pub(crate) async fn start(registry: R) -> Self {
        Self::with_tls(registry, None).await
    }

    pub(crate) async fn with_tls(registry: R, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stand = Self {
            address: listener.local_addr().unwrap(),
            registry: Arc::new(registry),
            tls,
            frozen: watch::channel(false).0,
            asked: Arc::default(),
            task: None,
        };
        drop(listener);
        stand.restart().await;
        stand
    }

    pub(crate) async fn restart(&mut self) {
        let (registry, frozen, asked) = (self.registry.clone(), self.frozen.clone(), self.asked.clone());
        let (address, tls) = (self.address, self.tls.clone());
        let listening =
            apart().spawn(async move { TcpListener::bind(address).await.unwrap() }).await.unwrap();
        self.task = Some(apart().spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listening.accept().await {
                while served.try_join_next().is_some() {}
                let (registry, asked, tls) = (registry.clone(), asked.clone(), tls.clone());
                let frozen = frozen.subscribe();
                served.spawn(async move {
                    let stream: Box<dyn Io> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    let mut out = Out { stream: BufReader::new(stream), frozen };
                    while let Ok(question) = out.asked().await {
                        asked.fetch_add(1, Ordering::Relaxed);
                        if registry.answer(question, &mut out).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }));
    }

    pub(crate) async fn kill(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub(crate) fn freeze(&self, is_frozen: bool) {
        self.frozen.send_replace(is_frozen);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl<R> Drop for Stand<R> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// What befalls a registry befalls its stand-in.
#[macro_export]
macro_rules! as_its_stand_in {
    () => {
        async fn kill(&mut self) {
            self.stand.kill().await;
        }

        async fn restart(&mut self) {
            self.stand.restart().await;
        }

        async fn freeze(&mut self) {
            self.stand.freeze(true);
        }

        async fn thaw(&mut self) {
            self.stand.freeze(false);
        }

        fn asked(&self) -> Option<usize> {
            Some(self.stand.asked())
        }
    };
}

/// So many addresses of one net.
pub(crate) fn addresses(net: u8, count: u16) -> Vec<SocketAddr> {
    let address = |index: u16| {
        let [high, low] = index.to_be_bytes();
        SocketAddr::from(([10, net, high, low], 8080))
    };
    (0..count).map(address).collect()
}

/// Rests after failures of 50 ms, and each twice as long as the one before: the seventh is more than 3 s.
pub(crate) fn longer_rests() -> WatchOptions {
    let backoff =
        Backoff::exponential(Duration::from_millis(50)).cap(Duration::from_secs(60)).jitter(Jitter::None);
    WatchOptions::default().backoff(backoff)
}
