//! The gRPC library for Python as the server.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use mainstay::{
    Error, Reason, backoff::Backoff, balance::BalanceOptions, resolve, retry::RetryPolicy, tonic::Client,
};
use tonic::{Code, Request};
use tower::BoxError;

use crate::{
    greeter::{HelloRequest, greeter_client::GreeterClient},
    process::{Process, free, is_optional},
};

type Test = Result<(), BoxError>;

/// A Python that has the library: the first of the path may be another than the one that packages are installed for.
pub(crate) fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut has = Command::new(python);
        has.args(["-c", "import grpc"]).stdout(Stdio::null()).stderr(Stdio::null());
        has.status().is_ok_and(|status| status.success())
    })
}

async fn server() -> Option<Process> {
    let Some(python) = python() else {
        assert!(is_optional(), "no grpcio for python3");
        eprintln!("skipped: no grpcio for python3 here");
        return None;
    };
    let (address, script) = (free(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpcio.py"));
    Process::start(python, [script, &address.to_string()], address).await
}

async fn client(server: &Process) -> (Client, GreeterClient<Client>) {
    let mut balance = BalanceOptions::default();
    balance.attempt_limit = Some(Duration::from_secs(30));
    balance.connect_timeout = Duration::from_secs(30);
    let client = Client::builder("greeter", mainstay::tonic::endpoint("http://greeter.internal").unwrap())
        .resolve(resolve::fixed([server.address]))
        .idempotent_methods(["greeter.Greeter/*"])
        .retry(RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO)))
        .deadline(Duration::from_secs(60))
        .balance(balance)
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    (client.clone(), GreeterClient::new(client))
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.to_owned(), times: 1 }
}

#[tokio::test]
async fn it_understands_the_deadline_and_the_number_of_the_attempt() -> Test {
    let Some(server) = server().await else { return Ok(()) };
    let (client, mut greeter) = client(&server).await;
    let left: f64 = greeter.say_hello(hello("left")).await?.into_inner().text.parse()?;
    assert!(left > 30.0 && left <= 60.0, "{left}");
    let mut own = Request::new(hello("left"));
    own.set_timeout(Duration::from_secs(20));
    let left: f64 = greeter.say_hello(own).await?.into_inner().text.parse()?;
    assert!(left > 5.0 && left <= 20.0, "{left}");
    assert_eq!(greeter.say_hello(hello("mast")).await?.into_inner().text, "mast none");
    assert_eq!(greeter.say_hello(hello("third")).await?.into_inner().text, "third 2");
    assert_eq!(client.status().retries, 2);
    Ok(())
}

#[tokio::test]
async fn its_statuses_are_understood_in_headers_and_in_trailers() -> Test {
    let Some(server) = server().await else { return Ok(()) };
    let (client, mut greeter) = client(&server).await;
    let failures = || client.status().balance.endpoints[0].failures;
    assert_eq!(greeter.say_hello(hello("not found")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(failures(), 0);
    let status = greeter.say_hello(hello("unavailable")).await.unwrap_err();
    assert_eq!((status.code(), status.message(), failures()), (Code::Unavailable, "as told", 3));
    let mut stream = greeter.say_hellos(hello("unavailable")).await?.into_inner();
    while let Ok(Some(_)) = stream.message().await {}
    assert_eq!(failures(), 4);
    let mut stream = greeter.say_hellos(hello("mast")).await?.into_inner();
    while stream.message().await?.is_some() {}
    assert_eq!((failures(), client.status().balance.endpoints[0].in_flight), (4, 0));
    Ok(())
}

#[tokio::test]
async fn its_pushback_sets_it_aside() -> Test {
    let Some(server) = server().await else { return Ok(()) };
    let (client, mut greeter) = client(&server).await;
    assert_eq!(greeter.say_hello(hello("pushback")).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(client.status().balance.endpoints[0].word(), "backing off");
    Ok(())
}

#[tokio::test]
async fn a_call_that_hangs_there_ends_at_its_deadline_and_blames_nobody() -> Test {
    let Some(server) = server().await else { return Ok(()) };
    let (client, mut greeter) = client(&server).await;
    let mut hangs = Request::new(hello("hang"));
    hangs.set_timeout(Duration::from_millis(100));
    let status = greeter.say_hello(hangs).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Whichever of the two was quicker to say so.
    if let Some(ours) = Error::find(&status) {
        assert_eq!(ours.reason(), Reason::Deadline);
    }
    assert_eq!(client.status().balance.endpoints[0].failures, 0);
    Ok(())
}
