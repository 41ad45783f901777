//! The suite over a registry that was made up for it: a line with all addresses whenever one changes, over TCP. It shows
//! that the suite asks what can be answered, and that a watch of the application's own needs nothing that is hidden.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay::{
    random::Entropy,
    resolve::{self, Resolution, Resolve, Teller, WatchOptions},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::suite::{World, apart};

struct Ledger {
    address: SocketAddr,
    /// `None` while it is frozen.
    line: watch::Sender<String>,
    frozen: watch::Sender<bool>,
    connected: Arc<AtomicUsize>,
    task: Option<JoinHandle<()>>,
}

impl Ledger {
    async fn start() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut ledger = Self {
            address,
            line: watch::channel(String::new()).0,
            frozen: watch::channel(false).0,
            connected: Arc::default(),
            task: None,
        };
        ledger.serve(listener);
        Some(ledger)
    }

    fn serve(&mut self, listener: TcpListener) {
        let (line, frozen, connected) = (self.line.clone(), self.frozen.clone(), self.connected.clone());
        self.task = Some(apart().spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connected.fetch_add(1, Ordering::Relaxed);
                while served.try_join_next().is_some() {}
                let (mut line, mut frozen) = (line.subscribe(), frozen.subscribe());
                line.mark_changed();
                served.spawn(async move {
                    while line.changed().await.is_ok() {
                        if frozen.wait_for(|frozen| !frozen).await.is_err() {
                            return;
                        }
                        let text = format!("{}\n", line.borrow_and_update().clone());
                        if stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }));
    }
}

impl World for Ledger {
    const PATIENCE: Duration = Duration::from_secs(2);

    fn resolver(&self) -> Box<dyn Resolve> {
        let address = self.address;
        Box::new(resolve::watch(format!("ledger at {address}"), move |tell| async move {
            let options = WatchOptions::default();
            let (mut failures, mut rest) = (0, Duration::ZERO);
            while let Err(error) = follow(address, &tell, &mut failures).await {
                tell.failed(error);
                failures += 1;
                rest = options.backoff.delay(failures, rest, &Entropy);
                tokio::time::sleep(rest).await;
            }
        }))
    }

    async fn publish(&mut self, instances: &[SocketAddr]) {
        let words: Vec<String> = instances.iter().map(SocketAddr::to_string).collect();
        self.line.send_replace(words.join(" "));
    }

    async fn remove(&mut self) {
        self.line.send_replace(String::new());
    }

    async fn kill(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    async fn freeze(&mut self) {
        self.frozen.send_replace(true);
    }

    async fn thaw(&mut self) {
        self.frozen.send_replace(false);
    }

    fn asked(&self) -> Option<usize> {
        Some(self.connected.load(Ordering::Relaxed))
    }
}

async fn follow(address: SocketAddr, tell: &Teller, failures: &mut u32) -> io::Result<()> {
    let mut lines = BufReader::new(TcpStream::connect(address).await?).lines();
    while let Some(line) = lines.next_line().await? {
        *failures = 0;
        tell.tell(Resolution::bound(line.split_whitespace()));
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

crate::suite!(Ledger::start());
