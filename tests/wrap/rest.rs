//! A `reqwest::Client` on the balancer.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::StreamBody;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use mainstay::{
    Classify, Describe, Verdict,
    backoff::Backoff,
    balance::{Balance, BalanceOptions, Load},
    describe::Sending,
    error::of_error,
    outcome::Sent,
    random::Seeded,
    resolve,
    retry::{RetryLayer, RetryPolicy},
};
use reqwest::{Client, Method, Url};
use tokio::net::TcpListener;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};

type Test = Result<(), BoxError>;

/// Sends every request to one address. The URL decides where reqwest dials; `Host` stays what the user wrote.
#[derive(Clone)]
struct To {
    client: Client,
    address: SocketAddr,
}

impl Service<reqwest::Request> for To {
    type Response = reqwest::Response;
    type Error = reqwest::Error;
    type Future = <Client as Service<reqwest::Request>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, mut request: reqwest::Request) -> Self::Future {
        let host = request.url().authority().parse();
        if let Ok(host) = host {
            request.headers_mut().entry(HOST).or_insert(host);
        }
        let url = request.url_mut();
        // A URL that cannot have a host is refused by reqwest itself.
        let _ = url.set_ip_host(self.address.ip());
        let _ = url.set_port(Some(self.address.port()));
        self.client.call(request)
    }
}

/// What reqwest knows of its requests.
struct Description;

impl Describe<reqwest::Request> for Description {
    /// Bodies that are streams cannot be copied.
    fn copy(&self, request: &mut reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }

    fn is_idempotent(&self, request: &reqwest::Request) -> bool {
        matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        )
    }

    fn stamp(&self, request: &mut reqwest::Request, sending: &Sending) {
        request.headers_mut().insert("attempt", sending.attempt.into());
    }
}

struct Classifier;

impl Classify<reqwest::Response> for Classifier {
    fn classify(&self, result: Result<&reqwest::Response, &BoxError>) -> Verdict {
        match result {
            Ok(response) if response.status().is_server_error() => Verdict::failure(),
            Ok(_) => Verdict::success(),
            Err(error) => match error.downcast_ref::<reqwest::Error>() {
                Some(error) if error.is_connect() => Verdict::failure().sent(Sent::No),
                _ => of_error(error),
            },
        }
    }
}

/// What a server was asked: its number, `Host`, and the attempt.
type Log = Arc<Mutex<Vec<(usize, String, String)>>>;

/// Three servers that answer with a status and ten chunks.
struct Fleet {
    addresses: Vec<SocketAddr>,
    statuses: Vec<Arc<AtomicU16>>,
    log: Log,
}

impl Fleet {
    async fn start() -> io::Result<Self> {
        let mut fleet = Self { addresses: Vec::new(), statuses: Vec::new(), log: Log::default() };
        for number in 0..3 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let status = Arc::new(AtomicU16::new(200));
            fleet.addresses.push(listener.local_addr()?);
            fleet.statuses.push(status.clone());
            tokio::spawn(serve(listener, number, status, fleet.log.clone()));
        }
        Ok(fleet)
    }

    fn balance(&self) -> Result<Balance<To, reqwest::Request>, BoxError> {
        let client = Client::builder().no_proxy().build()?;
        // How fast the machine is decides nothing.
        let mut options = BalanceOptions::default();
        options.load = Load::InFlight;
        options.health.ejection = Backoff::fixed(Duration::from_secs(600));
        Ok(Balance::builder(resolve::fixed(self.addresses.iter().copied()))
            .connect(move |endpoint| {
                let address = *endpoint.address().sockets().first().expect("the list is of sockets");
                To { client: client.clone(), address }
            })
            .classify(Classifier)
            .options(options)
            .random(Seeded::new(1))
            .build()?)
    }

    /// How many requests each server was sent.
    fn seen(&self) -> [usize; 3] {
        let mut seen = [0; 3];
        for (number, ..) in self.log.lock().unwrap().iter() {
            seen[*number] += 1;
        }
        seen
    }
}

async fn serve(listener: TcpListener, number: usize, status: Arc<AtomicU16>, log: Log) {
    while let Ok((stream, _)) = listener.accept().await {
        let (status, log) = (status.clone(), log.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
            let told = |name| header(name).unwrap_or_default().to_owned();
            log.lock().unwrap().push((number, told("host"), told("attempt")));
            let mut response = Response::new(chunks());
            *response.status_mut() = status.load(SeqCst).try_into().unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

fn chunks() -> impl Body<Data = Bytes, Error = Infallible> + Send {
    StreamBody::new(futures::stream::iter(
        (b'0'..=b'9').map(|digit| Ok(Frame::data(Bytes::from(vec![digit; 10_000])))),
    ))
}

fn get() -> reqwest::Request {
    reqwest::Request::new(Method::GET, Url::parse("http://mast.internal:8080/top").unwrap())
}

fn retries() -> Result<RetryLayer<reqwest::Request, reqwest::Response>, BoxError> {
    let policy = RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO));
    Ok(RetryLayer::new(policy)?.describe(Description))
}

#[tokio::test]
async fn requests_spread_over_the_servers_and_keep_their_host() -> Test {
    let fleet = Fleet::start().await?;
    let service = ServiceBuilder::new().layer(retries()?).service(fleet.balance()?);
    for _ in 0..60 {
        assert_eq!(service.clone().oneshot(get()).await?.status(), 200);
    }
    assert!(fleet.seen().iter().all(|&requests| requests >= 10), "{:?}", fleet.seen());
    let log = fleet.log.lock().unwrap();
    assert!(log.iter().all(|(_, host, attempt)| host == "mast.internal:8080" && attempt == "1"));
    Ok(())
}

#[tokio::test]
async fn a_body_that_streams_arrives_whole() -> Test {
    let fleet = Fleet::start().await?;
    let service = ServiceBuilder::new().layer(retries()?).service(fleet.balance()?);
    let mut response = service.oneshot(get()).await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    let expected: Vec<u8> = (b'0'..=b'9').flat_map(|digit| vec![digit; 10_000]).collect();
    assert!(body == expected, "{} bytes", body.len());
    Ok(())
}

#[tokio::test]
async fn a_server_that_answers_500_is_ejected_and_no_request_fails() -> Test {
    let fleet = Fleet::start().await?;
    let balance = fleet.balance()?;
    let service = ServiceBuilder::new().layer(retries()?).service(balance.clone());
    for request in 0..120 {
        if request == 60 {
            fleet.statuses[1].store(500, SeqCst);
        }
        assert_eq!(service.clone().oneshot(get()).await?.status(), 200);
    }
    let status = balance.status();
    let bad: Vec<_> = status.endpoints.iter().filter(|endpoint| !endpoint.is_available()).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].endpoint.address().sockets()[0], bad[0].failures), (fleet.addresses[1], 5));
    let log = fleet.log.lock().unwrap();
    let second: Vec<_> = log.iter().filter(|(_, _, attempt)| attempt == "2").collect();
    assert_eq!(second.len(), 5);
    assert!(second.iter().all(|(number, ..)| *number != 1), "sent to the same server again");
    Ok(())
}

#[tokio::test]
async fn a_post_that_a_server_failed_is_not_sent_again() -> Test {
    let fleet = Fleet::start().await?;
    for status in &fleet.statuses {
        status.store(500, SeqCst);
    }
    let mut post = get();
    *post.method_mut() = Method::POST;
    let service = ServiceBuilder::new().layer(retries()?).service(fleet.balance()?);
    assert_eq!(service.oneshot(post).await?.status(), 500);
    assert_eq!(fleet.seen().iter().sum::<usize>(), 1);
    Ok(())
}
