//! A transport of one's own on the balancer: a line protocol over TCP.
//!
//! Shows what is asked of it: a `tower::Service` that can be cloned, a `Describe` that knows which requests may be
//! repeated, and a `Classify` that knows what an answer says about its server. A busy server and a dead one go unnoticed.

use std::{collections::BTreeMap, net::SocketAddr, task::Context, task::Poll};

use futures::future::BoxFuture;
use mainstay::{Classify, Describe, Error, Reason, Verdict, balance::Balance, resolve};
use mainstay::{outcome::Sent, retry::RetryLayer, retry::RetryPolicy};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, Layer as _, Service, ServiceExt as _};

/// Sends a line to one server and reads one back.
#[derive(Clone)]
struct Lines(SocketAddr);

impl Service<String> for Lines {
    type Response = String;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<String, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, line: String) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            // This error says that nothing was sent, so that even a SET may go elsewhere.
            let stream = TcpStream::connect(address).await.map_err(|_| Error::new(Reason::Connect))?;
            let (mut stream, mut answer) = (BufReader::new(stream), String::new());
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            stream.read_line(&mut answer).await?;
            if answer.is_empty() { Err("hung up".into()) } else { Ok(answer.trim_end().to_owned()) }
        })
    }
}

struct Protocol;

impl Describe<String> for Protocol {
    fn copy(&self, line: &mut String) -> Option<String> {
        Some(line.clone())
    }

    fn is_idempotent(&self, line: &String) -> bool {
        line.starts_with("GET ")
    }
}

impl Classify<String> for Protocol {
    fn classify(&self, result: Result<&String, &BoxError>) -> Verdict {
        match result {
            // Busy for a while, and did not even look at the request.
            Ok(answer) if answer == "-BUSY" => Verdict::back_off(None).sent(Sent::Refused),
            Ok(_) => Verdict::success(), // -ERR as well: it is the caller's
            Err(error) => mainstay::error::of_error(error),
        }
    }
}

/// Gives every request the same answer. Without one the server is dead.
async fn serve(listener: TcpListener, answer: Option<&str>) {
    let Some(answer) = answer else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        if stream.read_line(&mut line).await.is_ok() {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut addresses = Vec::new();
    for answer in [Some("+anna\n"), Some("+bert\n"), Some("-BUSY\n"), None] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(serve(listener, answer));
    }
    let balance = Balance::builder(resolve::fixed(addresses))
        .connect(|endpoint| Lines(endpoint.address().sockets()[0]))
        .classify(Protocol)
        .build()?;
    let client = RetryLayer::new(RetryPolicy::default())?.describe(Protocol).layer(balance.clone());

    let mut answers = BTreeMap::<String, u32>::new();
    for n in 0..40 {
        let line = if n % 2 == 0 { format!("GET {n}") } else { format!("SET {n} mast") };
        *answers.entry(client.clone().oneshot(line).await?).or_default() += 1;
    }
    println!("answers to 20 GET and 20 SET: {answers:?}");
    for endpoint in balance.status().endpoints {
        println!("{}: {}, {} failures", endpoint.name, endpoint.word(), endpoint.failures);
    }
    Ok(())
}
