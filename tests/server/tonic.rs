//! Servers of tonic behind the layer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use mainstay::{
    balance::BalanceOptions,
    context::{self, Inherited},
    limit::ConcurrencyLimitOptions,
    resolve,
    server::{ServerLayer, ServerOptions},
    tonic::Client,
};
use tokio::sync::Semaphore;
use tonic::{
    Code, Request, Response, Status,
    transport::{self, server::TcpIncoming},
};
use tower::BoxError;

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

type Test = Result<(), BoxError>;

/// Holds each call until there is a permit, and notes what it inherits.
#[derive(Clone)]
struct Held {
    go_on: Arc<Semaphore>,
    begun: Arc<AtomicU32>,
    inherited: Arc<Mutex<Vec<Inherited>>>,
}

#[tonic::async_trait]
impl Greeter for Held {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.begun.fetch_add(1, SeqCst);
        self.inherited.lock().unwrap().push(context::inherited());
        self.go_on.acquire().await.expect("it is never closed").forget();
        Ok(Response::new(HelloReply { text: request.into_inner().name, server: 0 }))
    }

    type SayHellosStream = futures::stream::Empty<Result<HelloReply, Status>>;

    async fn say_hellos(&self, _: Request<HelloRequest>) -> Result<Response<Self::SayHellosStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

fn serve(places: u32, permits: usize) -> (SocketAddr, Held) {
    let held =
        Held { go_on: Arc::new(Semaphore::new(permits)), begun: Arc::default(), inherited: Arc::default() };
    let limit = ConcurrencyLimitOptions::default().limit(places).max_waiting(0);
    let layer = ServerLayer::new(ServerOptions::default().limit(limit)).unwrap();
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = GreeterServer::new(held.clone());
    let server = transport::Server::builder().layer(layer);
    tokio::spawn(async move { server.serve_with_incoming(service, incoming).await });
    (address, held)
}

fn client(addresses: &[SocketAddr]) -> Result<Client, BoxError> {
    let mut balance = BalanceOptions::default();
    balance.attempt_limit = Some(Duration::from_secs(30));
    balance.connect_timeout = Duration::from_secs(30);
    Ok(Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal")?)
        .resolve(resolve::fixed(addresses.iter().copied()))
        .balance(balance)
        .deadline(Duration::from_secs(60))
        .build()?)
}

fn hello() -> HelloRequest {
    HelloRequest { name: "mast".to_owned(), times: 1 }
}

#[tokio::test]
async fn what_a_full_server_refuses_goes_elsewhere_even_if_it_must_not_be_processed_twice() -> Test {
    let ((full, held), (free, _)) = (serve(1, 0), serve(100, 1_000));
    let mut alone = GreeterClient::new(client(&[full])?);
    let first = tokio::spawn(async move { alone.say_hello(hello()).await });
    while held.begun.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let both = client(&[full, free])?;
    let mut greeter = GreeterClient::new(both.clone());
    for _ in 0..20 {
        greeter.say_hello(hello()).await?;
    }
    assert_eq!(held.begun.load(SeqCst), 1, "what was refused was not begun with");
    assert!(both.status().balance.endpoints.iter().all(|row| row.failures == 0));
    held.go_on.add_permits(1);
    first.await??;
    Ok(())
}

#[tokio::test]
async fn the_handler_inherits_what_is_left_of_the_callers_time() -> Test {
    let (address, held) = serve(100, 1_000);
    let mut greeter = GreeterClient::new(client(&[address])?);
    let mut request = Request::new(hello());
    request.set_timeout(Duration::from_secs(20));
    let start = mainstay::clock::now();
    greeter.say_hello(request).await?;
    let deadline = held.inherited.lock().unwrap()[0].deadline().expect("it was told");
    let left = deadline.saturating_duration_since(start);
    assert!(left > Duration::from_secs(10) && left < Duration::from_secs(30), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn another_client_is_told_in_words_it_knows() -> Test {
    let (full, held) = serve(1, 0);
    let channel = transport::Endpoint::from_shared(format!("http://{full}"))?.connect().await?;
    let mut first = GreeterClient::new(channel.clone());
    let first = tokio::spawn(async move { first.say_hello(hello()).await });
    while held.begun.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let status = GreeterClient::new(channel).say_hello(hello()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    first.abort();
    Ok(())
}
