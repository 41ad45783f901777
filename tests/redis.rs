//! A quota in a real Redis server. Where none is installed these tests say so and pass, except where `CI` is set.
#![allow(missing_docs)]

use std::{
    io::ErrorKind,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use mainstay::limit::{
    quota::{Granted, Quota as _, QuotaLayer, QuotaOptions, Redis},
    rate::RateLimitOptions,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

const MS: Duration = Duration::from_millis(1);

/// A server of its own, which ends with the test.
struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free just now.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap().port()
}

fn start(port: u16) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(process) => Some(process),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: no redis-server here ({error})");
            None
        }
        Err(error) => panic!("no redis-server: {error}"),
    }
}

async fn server() -> Option<Server> {
    let port = port();
    let process = start(port)?;
    let server = Server { process, url: format!("redis://127.0.0.1:{port}/") };
    server.answers().await;
    Some(server)
}

impl Server {
    async fn answers(&self) {
        let address = self.url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(MS * 10).await;
        }
    }

    fn quota(&self, name: &str, options: RateLimitOptions) -> Redis {
        Redis::new(&self.url, name, options).unwrap()
    }
}

/// A rate so slow that nothing comes back while a test runs.
fn burst(burst: u32) -> RateLimitOptions {
    RateLimitOptions::default().rate(1, Duration::from_secs(3_600)).burst(burst)
}

#[tokio::test]
async fn all_that_use_one_name_share_one_rate_and_another_name_is_another() {
    let Some(server) = server().await else { return };
    let (first, second) = (server.quota("shared", burst(10)), server.quota("shared", burst(10)));
    let mut granted = 0;
    for quota in [&first, &second].iter().cycle().take(30) {
        granted += u32::from(
            matches!(quota.take(1, Duration::ZERO).await, Ok(Granted::After(wait)) if wait.is_zero()),
        );
    }
    assert_eq!(granted, 10);
    let Ok(Granted::NotYet(Some(wait))) = first.take(1, Duration::ZERO).await else {
        panic!("more than there is")
    };
    assert!(wait > Duration::from_secs(3_500) && wait <= Duration::from_secs(3_600), "{wait:?}");
    assert!(matches!(first.take(11, Duration::ZERO).await, Ok(Granted::NotYet(None))));
    assert!(matches!(first.take(0, Duration::ZERO).await, Ok(Granted::After(_))));
    assert!(matches!(server.quota("other", burst(1)).take(1, Duration::ZERO).await, Ok(Granted::After(_))));
}

#[tokio::test]
async fn many_at_once_get_no_more_than_the_rate_brings() {
    let Some(server) = server().await else { return };
    let options = RateLimitOptions::default().rate(1_000, Duration::from_secs(1)).burst(20);
    let start = mainstay::clock::now();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let quota = server.quota("busy", options.clone());
            tokio::spawn(async move {
                let mut granted = 0_u32;
                for _ in 0..250 {
                    granted +=
                        u32::from(matches!(quota.take(1, Duration::ZERO).await, Ok(Granted::After(_))));
                }
                granted
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    // By the server's clock, which saw no more time pass than ours between the first question and the last answer.
    let brought = 20.0 + (mainstay::clock::now() - start).as_secs_f64() * 1_000.0;
    assert!(f64::from(granted) <= brought + 1.0 && granted >= 20, "{granted} of {brought}");
}

#[tokio::test]
async fn who_may_wait_is_told_when_its_turn_is() {
    let Some(server) = server().await else { return };
    let options = RateLimitOptions::default().rate(2, Duration::from_secs(1)).burst(1);
    let quota = server.quota("patient", options);
    assert!(
        matches!(quota.take(1, Duration::from_secs(2)).await, Ok(Granted::After(wait)) if wait.is_zero())
    );
    let Ok(Granted::After(wait)) = quota.take(1, Duration::from_secs(2)).await else {
        panic!("there is time")
    };
    assert!(wait > MS * 100 && wait <= MS * 500, "{wait:?}");
    let Ok(Granted::After(next)) = quota.take(1, Duration::from_secs(2)).await else {
        panic!("there is time")
    };
    assert!(next > wait + MS * 300, "{next:?} after {wait:?}");
}

#[tokio::test]
async fn when_the_server_goes_requests_pass_and_when_it_comes_back_it_is_asked_again() {
    let Some(mut server) = server().await else { return };
    let options = QuotaOptions::default().timeout(MS * 500).pause(MS * 50);
    let layer = QuotaLayer::new(server.quota("gone", burst(1)), options).unwrap();
    let service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }));
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.clone().oneshot(1).await.is_err());
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    assert!(service.clone().oneshot(1).await.is_ok() && layer.is_away());

    let port = server.url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    server.process = start(port).unwrap();
    server.answers().await;
    tokio::time::sleep(MS * 60).await;
    // It has forgotten what was taken.
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.oneshot(1).await.is_err());
    assert!(!layer.is_away());
}

/// Stands before a server, so that connections can be slow to be made, or lose their other end without a word.
struct Wire {
    url: String,
    made: Arc<AtomicU32>,
    pumps: Arc<Mutex<JoinSet<()>>>,
    kept: Arc<Mutex<Vec<Arc<TcpStream>>>>,
    open: watch::Sender<bool>,
}

impl Wire {
    /// Nothing comes through before it is `open`.
    async fn new(server: &Server, open: bool) -> Self {
        let behind = server.url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let wire = Self {
            url,
            made: Arc::default(),
            pumps: Arc::default(),
            kept: Arc::default(),
            open: watch::Sender::new(open),
        };
        let (made, pumps, kept) = (wire.made.clone(), wire.pumps.clone(), wire.kept.clone());
        let opens = wire.open.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                made.fetch_add(1, SeqCst);
                let far = TcpStream::connect(&behind).await.unwrap();
                let (near, far) = (Arc::new(near), Arc::new(far));
                kept.lock().unwrap().push(near.clone());
                let mut opens = opens.clone();
                pumps.lock().unwrap().spawn(async move {
                    opens.wait_for(|open| *open).await.unwrap();
                    tokio::join!(pump(&near, &far), pump(&far, &near));
                });
            }
        });
        wire
    }

    /// Nothing comes through any more on the connections there are, which stay open.
    fn falls_silent(&self) {
        self.pumps.lock().unwrap().abort_all();
    }
}

async fn pump(from: &TcpStream, to: &TcpStream) {
    let mut bytes = [0; 4_096];
    loop {
        if from.readable().await.is_err() {
            return;
        }
        let read = match from.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let mut left = &bytes[..read];
        while !left.is_empty() {
            if to.writable().await.is_err() {
                return;
            }
            match to.try_write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_replaced() {
    let Some(server) = server().await else { return };
    let wire = Wire::new(&server, true).await;
    // Less than the half of a second after which the Redis client itself gives up.
    let options = QuotaOptions::default().timeout(MS * 200).pause(MS * 10);
    let layer = QuotaLayer::new(Redis::new(&wire.url, "silent", burst(1)).unwrap(), options).unwrap();
    let service = layer.layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }));
    assert!(service.clone().oneshot(1).await.is_ok() && !layer.is_away());
    assert!(service.clone().oneshot(1).await.is_err());
    wire.falls_silent();
    assert!(service.clone().oneshot(1).await.is_ok() && layer.is_away());
    tokio::time::sleep(MS * 20).await;
    assert!(service.oneshot(1).await.is_err(), "it is asked again, and remembers");
    assert_eq!(wire.made.load(SeqCst), 2);
}

#[tokio::test]
async fn a_connection_that_takes_longer_than_an_answer_may_is_made_once_for_all() {
    let Some(server) = server().await else { return };
    let wire = Wire::new(&server, false).await;
    let quota = Redis::new(&wire.url, "slow", burst(1)).unwrap();
    for _ in 0..3 {
        let asked = (0..4).map(|_| tokio::time::timeout(MS * 50, quota.take(1, Duration::ZERO)));
        assert!(futures::future::join_all(asked).await.iter().all(Result::is_err));
    }
    wire.open.send_replace(true);
    assert!(matches!(quota.take(1, Duration::ZERO).await, Ok(Granted::After(_))));
    assert_eq!(wire.made.load(SeqCst), 1);
}

#[test]
fn an_address_that_makes_no_sense_is_told_without_its_secrets() {
    let invalid = Redis::new("http://user:secret@host/", "name", burst(0)).unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["url", "burst"]);
    assert!(!invalid.to_string().contains("secret"));
}
