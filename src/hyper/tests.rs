//! The transport against servers on loopback sockets.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{Request, Response, Version, header::HOST};
use ::hyper::{body::Incoming, service::service_fn};
use bytes::Bytes;
use futures::{FutureExt as _, future::join_all};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Barrier,
};
use tower::{BoxError, Service as _, ServiceExt as _};

use super::*;
use crate::{
    Endpoint, Error, Reason, Verdict,
    http::{BodyTrack, Unsendable, of_error},
    outcome::{Again, Class, Sent},
    track::{Ends, Guard, Track as _},
};

type Body = Full<Bytes>;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr, options: ConnectorOptions) -> Result<Transport<Body>, BoxError> {
    Connector::new(options)?.call(Arc::new(Endpoint::new(address))).await
}

fn http2() -> ConnectorOptions {
    ConnectorOptions::default().protocol(Protocol::Http2)
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Full::default()).unwrap()
}

fn post(uri: &str) -> Request<Body> {
    Request::post(uri).body("once".into()).unwrap()
}

async fn text(transport: &Transport<Body>, request: Request<Body>) -> Result<String, BoxError> {
    let response = transport.clone().oneshot(request).await?;
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the server saw: version, host and path.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let host = match request.uri().authority() {
        Some(authority) => authority.to_string(),
        None => request.headers()[HOST].to_str().unwrap().to_owned(),
    };
    let text = format!("{:?} {host} {}", request.version(), request.uri().path());
    Ok(Response::new(text.into()))
}

/// Serves every connection with `echo`, and counts the connections.
async fn echo_server(protocol: Protocol) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream, protocol));
        }
    });
    (address, connections)
}

async fn serve(stream: TcpStream, protocol: Protocol) {
    let io = TokioIo::new(stream);
    let served = if protocol == Protocol::Http2 {
        let builder = ::hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(io, service_fn(echo)).await
    } else {
        ::hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(echo)).await
    };
    drop(served);
}

/// Reads the head of a request of HTTP/1.1; `false` if the connection ends instead.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

#[tokio::test]
async fn the_host_stays_what_the_caller_wrote() {
    for (options, version) in [(ConnectorOptions::default(), "HTTP/1.1"), (http2(), "HTTP/2.0")] {
        let (address, _) = echo_server(options.protocol).await;
        let transport = connect(address, options).await.unwrap();
        let seen = text(&transport, get("http://users.internal:8080/a")).await.unwrap();
        assert_eq!(seen, format!("{version} users.internal:8080 /a"));
        let mut named = get("/b");
        named.headers_mut().insert(HOST, "orders".parse().unwrap());
        assert_eq!(text(&transport, named).await.unwrap(), format!("{version} orders /b"));
        assert_eq!(text(&transport, get("/c")).await.unwrap(), format!("{version} {address} /c"));
    }
}

#[tokio::test]
async fn one_after_the_other_all_requests_use_the_connection_made_in_advance() {
    for options in [ConnectorOptions::default(), http2()] {
        let (address, connections) = echo_server(options.protocol).await;
        let transport = connect(address, options).await.unwrap();
        for host in ["a", "b", "a", "c"] {
            text(&transport, get(&format!("http://{host}/"))).await.unwrap();
        }
        assert_eq!(connections.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn http2_sends_all_requests_at_once_over_one_connection() {
    let (address, connections) = echo_server(Protocol::Http2).await;
    let transport = connect(address, http2()).await.unwrap();
    let mut request = post("http://users/");
    *request.version_mut() = Version::HTTP_2;
    let answers = join_all((0..50).map(|_| text(&transport, request.clone()))).await;
    assert!(answers.iter().all(|answer| answer.as_deref().unwrap() == "HTTP/2.0 users /"));
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn there_are_never_more_http1_connections_than_allowed_and_the_rest_waits() {
    let (listener, address) = listen().await;
    let barrier = Arc::new(Barrier::new(3));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                // Answers only when three requests are being served at the same time.
                while read_head(&mut stream).await {
                    barrier.wait().await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            });
        }
    });
    let transport = connect(address, ConnectorOptions::default().connections_per_endpoint(3)).await.unwrap();
    let answers = join_all((0..12).map(|_| text(&transport, get("/")))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(connections.load(SeqCst), 3);
}

#[tokio::test]
async fn a_response_that_is_not_read_or_awaited_gives_its_slot_back() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut served = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            served += 1;
            tokio::spawn(async move {
                read_head(&mut stream).await;
                match served {
                    1 => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap(),
                    2 => {}
                    _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap(),
                }
                read_head(&mut stream).await;
            });
        }
    });
    let transport = connect(address, ConnectorOptions::default().connections_per_endpoint(1)).await.unwrap();
    drop(transport.clone().oneshot(get("/")).await.unwrap());
    let mut abandoned = Box::pin(transport.clone().oneshot(get("/")));
    for _ in 0..20 {
        assert!(abandoned.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(abandoned);
    assert_eq!(text(&transport, get("/")).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_never_makes_a_request_ambiguous() {
    let (listener, address) = listen().await;
    let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let closed = closed.clone();
            tokio::spawn(async move {
                if read_head(&mut stream).await {
                    // The body of the request, so that closing is not a reset.
                    stream.read_exact(&mut [0; 4]).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
                drop(stream);
                closed.send(()).unwrap();
            });
        }
    });
    let transport = connect(address, ConnectorOptions::default()).await.unwrap();
    let mut answered = 0;
    for _ in 0..50 {
        match text(&transport, post("http://users/")).await {
            Ok(answer) => {
                assert_eq!(answer, "ok");
                answered += 1;
                was_closed.recv().await.unwrap();
            }
            Err(error) => assert_eq!(of_error(&error).was_sent(), Sent::No, "{error:?}"),
        }
    }
    assert!(answered >= 25, "a request that was not sent is followed by one that is: {answered}");
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_request_may_have_been_processed() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
    });
    let transport = connect(address, ConnectorOptions::default()).await.unwrap();
    let error = text(&transport, post("http://users/")).await.unwrap_err();
    assert_eq!(of_error(&error), Verdict::failure());
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_failure_of_the_attempt() {
    struct Ended(Mutex<Option<Verdict>>);
    impl Ends for Ended {
        fn ended(self: Arc<Self>, _: Verdict, end: Option<Verdict>) {
            *self.0.lock().unwrap() = end;
        }
    }
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    });
    let transport = connect(address, ConnectorOptions::default()).await.unwrap();
    let mut response = transport.oneshot(get("/")).await.unwrap();
    let ended = Arc::new(Ended(Mutex::new(None)));
    BodyTrack.track(&mut response, Guard::new(ended.clone(), Verdict::success()));
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(*ended.0.lock().unwrap(), Some(Verdict::failure()));
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_told_by_the_connector_with_endpoint_and_cause() {
    for options in [ConnectorOptions::default(), http2()] {
        let (listener, address) = listen().await;
        drop(listener);
        let error = connect(address, options).await.unwrap_err();
        let ours = Error::find(&*error).unwrap();
        assert_eq!((ours.reason(), ours.sent()), (Reason::Connect, Sent::No));
        assert_eq!(ours.endpoint(), Some(address.to_string().as_str()));
        assert!(std::error::Error::source(ours).is_some());
    }
}

#[tokio::test]
async fn a_request_to_a_server_that_went_away_fails_unsent_and_succeeds_when_it_is_back() {
    for options in [ConnectorOptions::default(), http2()] {
        let protocol = options.protocol;
        let (listener, address) = listen().await;
        let transport = connect(address, options).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        drop((accepted, listener));
        let mut verdicts = Vec::new();
        for _ in 0..3 {
            verdicts.push(of_error(&text(&transport, post("http://users/")).await.unwrap_err()));
        }
        assert_eq!(verdicts.last(), Some(&Verdict::failure().sent(Sent::No)), "{verdicts:?}");

        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { serve(listener.accept().await.unwrap().0, protocol).await });
        assert!(text(&transport, post("http://users/")).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_http2_connection_is_noticed_and_replaced() {
    let (listener, address) = listen().await;
    let transport = connect(address, http2()).await.unwrap();
    let (_silent, _) = listener.accept().await.unwrap();
    let start = crate::clock::now();
    let error = text(&transport, get("http://users/")).await.unwrap_err();
    let lasted = crate::clock::now().saturating_duration_since(start);
    assert_eq!(of_error(&error).class(), Class::Failure);
    assert!(lasted <= Duration::from_secs(16), "{lasted:?}");

    tokio::time::resume();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0, Protocol::Http2).await });
    assert_eq!(text(&transport, get("http://users/")).await.unwrap(), "HTTP/2.0 users /");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time_and_with_the_last_handle() {
    for last_handle in [false, true] {
        let (listener, address) = listen().await;
        let transport = connect(address, ConnectorOptions::default()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let start = crate::clock::now();
        let kept = (!last_handle).then_some(transport);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        let lasted = crate::clock::now().saturating_duration_since(start).as_secs();
        assert_eq!(lasted, if last_handle { 0 } else { 60 });
        drop(kept);
    }
}

/// Speaks just enough HTTP/2 to answer the first request with `frame`.
async fn answers_with(frame: &'static [u8]) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap(); // SETTINGS
        stream.read_exact(&mut [0; 24]).await.unwrap(); // the client's preface
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == 1 {
                stream.write_all(frame).await.unwrap(); // HEADERS came
            }
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_the_server_refused_was_not_processed() {
    const REFUSED_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    const GOAWAY_BELOW: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const INTERNAL_ERROR: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    for (frame, sent) in
        [(REFUSED_STREAM, Sent::Refused), (GOAWAY_BELOW, Sent::Refused), (INTERNAL_ERROR, Sent::Maybe)]
    {
        let transport = connect(answers_with(frame).await, http2()).await.unwrap();
        let error = text(&transport, get("http://users/")).await.unwrap_err();
        assert_eq!(of_error(&error), Verdict::failure().sent(sent), "{error:?}");
    }
}

#[tokio::test]
async fn https_is_refused_by_name_and_nobody_is_blamed() {
    let (address, _) = echo_server(Protocol::Http1).await;
    let transport = connect(address, ConnectorOptions::default()).await.unwrap();
    let error = text(&transport, get("https://users/")).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Unsendable::Scheme { scheme: "https".into() }));
    assert!(error.to_string().contains("https"));
    let verdict = of_error(&error);
    assert_eq!((verdict.class(), verdict.may_repeat()), (Class::Inconclusive, Again::Never));
}

#[tokio::test]
async fn a_body_that_can_be_copied_is_sent_to_two_endpoints_at_a_time() {
    use crate::http::Replay;
    let (first, _) = echo_server(Protocol::Http1).await;
    let (second, _) = echo_server(Protocol::Http2).await;
    let mut body = Replay::new(Full::<Bytes>::from("twice"));
    let copy = body.copy().unwrap();
    let mut one = Connector::<Replay<Body>>::default();
    let mut two = Connector::<Replay<Body>>::new(http2()).unwrap();
    let one = one.call(Arc::new(first.into())).await.unwrap();
    let two = two.call(Arc::new(second.into())).await.unwrap();
    let answers = join_all(
        [(one, body), (two, copy)]
            .map(|(transport, body)| transport.oneshot(Request::post("http://users/").body(body).unwrap())),
    );
    assert!(answers.await.iter().all(Result::is_ok));
}

#[test]
fn handles_are_shared_freely() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug>() {}
    shared::<Transport<Body>>();
    shared::<Connector<Body>>();
}
