//! A client that speaks no HTTP on the balancer: the `redis` crate's connection behind a small `Service`.
//!
//! Shows what a wrapped client says of itself: which *commands* may be repeated, which errors are the server's and which the
//! caller's, and that its connection is gone, so that another is made behind the back of commands. It starts two
//! `redis-server`s, the replicas of a cache, and kills one half-way. Where none is installed it says so and ends.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use mainstay::{Classify, Client, Describe, Endpoint, Error, Reason, Verdict, outcome::Sent, resolve};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tower::{BoxError, Service, service_fn};

/// One connection to one server, which all clones share.
#[derive(Clone)]
struct Redis {
    connection: MultiplexedConnection,
    gone: Arc<AtomicBool>,
}

impl Service<Cmd> for Redis {
    type Response = Value;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Value, BoxError>>;

    /// A connection that is gone is no endpoint for a command: the balancer picks another, and dials this one anew.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let gone = self.gone.load(Relaxed);
        Poll::Ready(if gone { Err(Error::new(Reason::Connect).into()) } else { Ok(()) })
    }

    fn call(&mut self, command: Cmd) -> Self::Future {
        let Self { mut connection, gone } = self.clone();
        Box::pin(async move {
            let answer = command.query_async(&mut connection).await;
            if answer.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
                gone.store(true, Relaxed);
            }
            Ok(answer?)
        })
    }
}

async fn connect(endpoint: Arc<Endpoint>) -> Result<Redis, BoxError> {
    let client = redis::Client::open(format!("redis://{}/", endpoint.address()))?;
    let connection = client.get_multiplexed_async_connection().await?;
    Ok(Redis { connection, gone: Arc::default() })
}

/// What is known of commands.
struct Commands;

impl Describe<Cmd> for Commands {
    fn copy(&self, command: &mut Cmd) -> Option<Cmd> {
        Some(command.clone())
    }

    /// Idempotent is not what only reads, but what does no more when it is done twice: SET is, INCR and LPUSH are not.
    fn is_idempotent(&self, command: &Cmd) -> bool {
        let name = command.args_iter().next();
        matches!(name, Some(redis::Arg::Simple(b"GET" | b"MGET" | b"EXISTS" | b"SET" | b"DEL" | b"EXPIREAT")))
    }
}

impl Classify<Value> for Commands {
    fn classify(&self, result: Result<&Value, &BoxError>) -> Verdict {
        let Err(error) = result else { return Verdict::success() };
        match error.downcast_ref::<RedisError>().map(|error| (error.kind(), error.is_connection_refusal())) {
            Some((_, true)) => Verdict::failure().sent(Sent::No),
            // It says so before it looks at the command.
            Some((ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain), _)) => {
                Verdict::back_off(None).sent(Sent::Refused)
            }
            Some((ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown), _)) => {
                Verdict::failure()
            }
            // A wrong type, a script that is not there: the caller's.
            Some((ErrorKind::Server(_), _)) => Verdict::success(),
            _ => mainstay::error::of_error(error),
        }
    }
}

/// A server that ends with this value.
struct Server(Child, SocketAddr);

impl Server {
    fn start() -> std::io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = address.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(|process| Self(process, address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (Ok(first), Ok(second)) = (Server::start(), Server::start()) else {
        println!("there is no redis-server here");
        return Ok(());
    };
    let cache = Client::builder("cache")
        .resolve(resolve::fixed([first.1, second.1]))
        .connect_with(service_fn(connect))
        .describe(Commands)
        .classify(Commands)
        .build()?;
    while cache.status().balance.endpoints.iter().filter(|row| row.is_available()).count() < 2 {
        // The servers need a moment; the client knocks by itself.
        let _ = tokio::time::timeout(Duration::from_millis(20), cache.ready()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let mut second = Some(second);
    let (mut answered, mut given_up) = ([0; 2], 0);
    for round in 0..20 {
        if round == 10 {
            second = None; // killed, with whatever it was doing
        }
        let pairs = (0..10).map(|_| async {
            // Each read is answered; an increment that a dying server may have done is not done again.
            let read = cache.send(redis::cmd("GET").arg("mast").take()).await;
            (read.map(drop), cache.send(redis::cmd("INCR").arg("visits").take()).await.map(drop))
        });
        for (read, increment) in join_all(pairs).await {
            read?;
            answered[0] += 1;
            *if increment.is_ok() { &mut answered[1] } else { &mut given_up } += 1;
        }
    }
    drop(second);
    let [reads, increments] = answered;
    println!("{reads} reads and {increments} increments answered, {given_up} increments given up");
    for row in cache.status().balance.endpoints {
        println!("{}: {}, {} failures", row.name, row.word(), row.failures);
    }
    Ok(())
}
