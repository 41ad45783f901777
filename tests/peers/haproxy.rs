//! HAProxy as the server, over HTTP/2.

use std::net::SocketAddr;

use mainstay::hyper::Protocol;
use tower::BoxError;

use crate::{
    load::{Callers, ask, available, client},
    process::{Directory, Process, free},
};

type Test = Result<(), BoxError>;

async fn haproxy(directory: &Directory, address: SocketAddr) -> Option<Process> {
    let nobody = free();
    let text = format!(
        "
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend users
    bind {address} proto h2
    http-request return status 200 content-type text/plain string ok if {{ path / }}
    default_backend nobody
backend nobody
    retries 0
    server gone {nobody}
"
    );
    let file = directory.file(&format!("{address}.cfg"), &text).display().to_string();
    Process::start("haproxy", ["-db".to_owned(), "-f".to_owned(), file], address).await
}

#[tokio::test]
async fn what_haproxy_answers_for_servers_that_are_gone_is_a_failure() -> Test {
    let directory = Directory::new();
    let Some(proxy) = haproxy(&directory, free()).await else { return Ok(()) };
    let users = client(&[proxy.address], Protocol::Http2);
    assert_eq!(ask(&users, "GET", "/").await?, (200, "ok".to_owned()));
    assert_eq!(ask(&users, "POST", "/behind").await?.0, 503);
    assert_eq!((users.status().balance.endpoints[0].failures, users.status().retries), (1, 0));
    Ok(())
}

#[tokio::test]
async fn restarts_under_load_cost_no_idempotent_request() -> Test {
    let directory = Directory::new();
    let Some(stays) = haproxy(&directory, free()).await else { return Ok(()) };
    let address = free();
    let mut goes = haproxy(&directory, address).await.expect("the other one runs");
    let users = client(&[stays.address, address], Protocol::Http2);
    let callers = Callers::of(&users);
    // Says GOAWAY, and ends what it does first; ends at once; is killed.
    for signal in ["-USR1", "-TERM", "-KILL"] {
        available(&users, 2).await;
        callers.answer(100).await;
        goes.end(signal).await;
        callers.answer(100).await;
        goes = haproxy(&directory, address).await.expect("the other one runs");
    }
    callers.end().await
}
