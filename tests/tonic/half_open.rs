//! Connections whose other end is gone without a word, under a generated client.
#![cfg(target_os = "linux")]

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay::{Error, Reason, balance::BodyOptions, clock, resolve};
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tonic::{
    Code, Request, Response, Status,
    transport::{self, server::TcpIncoming},
};

use crate::{
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
    server::*,
};

struct Polite;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { text: request.into_inner().name, server: 0 }))
    }

    type SayHellosStream = futures::stream::Pending<Result<HelloReply, Status>>;

    async fn say_hellos(&self, _: Request<HelloRequest>) -> Result<Response<Self::SayHellosStream>, Status> {
        Ok(Response::new(futures::stream::pending()))
    }
}

#[tokio::test]
async fn a_call_and_a_silent_stream_on_a_half_open_connection_end_within_seconds() -> Test {
    let streams: Arc<Mutex<Vec<socket2::Socket>>> = Arc::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (address, log) = (listener.local_addr()?, streams.clone());
    let incoming = futures::stream::unfold(listener, move |listener| {
        let log = log.clone();
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            log.lock().unwrap().push(SockRef::from(&stream).try_clone().unwrap());
            Some((Ok::<TcpStream, std::io::Error>(stream), listener))
        }
    });
    tokio::spawn(transport::Server::builder().serve_with_incoming(GreeterServer::new(Polite), incoming));
    let half = Duration::from_millis(500);
    let endpoint = mainstay::tonic::endpoint("http://greeter.internal")?
        .http2_keep_alive_interval(half)
        .keep_alive_timeout(half);
    let watched = mainstay::tonic::Client::builder("greeter", endpoint)
        .resolve(resolve::fixed([address]))
        .deadline(Duration::from_secs(60))
        .attempt_limit(Duration::from_secs(30));
    let (client, mut greeter) = connected(watched, 1).await;
    let mut silent = greeter.say_hellos(hello("mast")).await?.into_inner();

    // `ret 0`: of no packet a single byte.
    let nothing = [SockFilter::new(0x06, 0, 0, 0)];
    streams.lock().unwrap().iter().for_each(|stream| stream.attach_filter(&nothing).unwrap());
    let start = clock::now();
    let (call, stream) = tokio::join!(greeter.say_hello(hello("mast")), silent.message());
    let took = (clock::now() - start).as_secs_f64();
    println!("found after {took:.2} s");
    assert!((0.3..10.0).contains(&took), "{took} s");
    assert_eq!(
        (call.unwrap_err().code(), stream.unwrap_err().code()),
        (Code::Unavailable, Code::Unavailable)
    );
    assert_eq!(client.status().balance.endpoints[0].in_flight, 0);
    greeter.say_hello(hello("mast")).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_stalls_or_outlasts_the_deadline_says_so() -> Test {
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    tokio::spawn(transport::Server::builder().serve_with_incoming(GreeterServer::new(Polite), incoming));
    let short = Duration::from_millis(100);
    for (body, deadline, reason, code) in [
        (BodyOptions::default().idle(short), Duration::from_secs(60), Reason::Stalled, Code::Unavailable),
        (BodyOptions::default().within_deadline(true), short, Reason::Deadline, Code::DeadlineExceeded),
    ] {
        let endpoint = mainstay::tonic::endpoint("http://greeter.internal")?;
        let builder = mainstay::tonic::Client::builder("greeter", endpoint)
            .resolve(resolve::fixed([address]))
            .deadline(Duration::from_secs(60))
            .body(body);
        let (client, _) = connected(builder, 1).await;
        let mut greeter = GreeterClient::new(client.clone().deadline(deadline));
        let mut silent = greeter.say_hellos(hello("mast")).await?.into_inner();
        let status = silent.message().await.unwrap_err();
        assert_eq!((status.code(), Error::find(&status).map(Error::reason)), (code, Some(reason)));
        assert_eq!(client.status().balance.endpoints[0].in_flight, 0);
    }
    Ok(())
}
