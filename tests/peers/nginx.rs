//! nginx as the server.

use std::net::SocketAddr;

use mainstay::hyper::Protocol;
use tower::BoxError;

use crate::{
    load::{Callers, ask, available, client},
    process::{Directory, Process, free},
};

type Test = Result<(), BoxError>;

/// An nginx that closes connections after seven requests.
async fn nginx(directory: &Directory, address: SocketAddr) -> Option<Process> {
    let text = format!(
        r#"
daemon off;
master_process off;
pid {address}.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 7;
    server {{
        listen {address};
        location / {{ return 200 "ok"; }}
        location /reset {{ return 444; }}
        location /bad {{ return 502; }}
        location /busy {{ add_header Retry-After 300 always; return 503; }}
    }}
}}
"#
    );
    let file = directory.file(&format!("{address}.conf"), &text);
    let prefix = format!("{}/", directory.path().display());
    let log = format!("{prefix}error.log");
    let arguments = ["-p", &prefix, "-c", &file.display().to_string(), "-e", &log].map(ToOwned::to_owned);
    Process::start("nginx", arguments, address).await
}

#[tokio::test]
async fn a_server_that_closes_connections_as_it_pleases_costs_no_request() -> Test {
    let directory = Directory::new();
    let Some(server) = nginx(&directory, free()).await else { return Ok(()) };
    let users = client(&[server.address], Protocol::Http1);
    for n in 0..100 {
        let method = if n % 2 == 0 { "GET" } else { "POST" };
        assert_eq!(ask(&users, method, "/").await?, (200, "ok".to_owned()));
    }
    assert_eq!(users.status().balance.endpoints[0].failures, 0);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_reset_under_a_request_is_repeated_only_if_that_is_harmless() -> Test {
    let directory = Directory::new();
    let Some(server) = nginx(&directory, free()).await else { return Ok(()) };
    let users = client(&[server.address], Protocol::Http1);
    assert!(ask(&users, "POST", "/reset").await.is_err());
    assert_eq!(users.status().retries, 0);
    assert!(ask(&users, "GET", "/reset").await.is_err());
    assert_eq!(users.status().retries, 2);
    Ok(())
}

#[tokio::test]
async fn what_nginx_answers_is_judged_by_its_status() -> Test {
    let directory = Directory::new();
    let Some(server) = nginx(&directory, free()).await else { return Ok(()) };
    let users = client(&[server.address], Protocol::Http1).max_attempts(1);
    assert_eq!(ask(&users, "GET", "/bad").await?.0, 502);
    assert_eq!(users.status().balance.endpoints[0].failures, 1);
    assert_eq!(ask(&users, "GET", "/busy").await?.0, 503);
    let row = &users.status().balance.endpoints[0];
    assert_eq!((row.failures, row.word()), (1, "backing off"));
    Ok(())
}

#[tokio::test]
async fn restarts_under_load_cost_no_idempotent_request() -> Test {
    let directory = Directory::new();
    let Some(stays) = nginx(&directory, free()).await else { return Ok(()) };
    let address = free();
    let mut goes = nginx(&directory, address).await.expect("the other one runs");
    let users = client(&[stays.address, address], Protocol::Http1);
    let callers = Callers::of(&users);
    // Ends what it does first; ends at once; is killed with whatever it was doing.
    for signal in ["-QUIT", "-TERM", "-KILL"] {
        available(&users, 2).await;
        callers.answer(100).await;
        goes.end(signal).await;
        callers.answer(100).await;
        goes = nginx(&directory, address).await.expect("the other one runs");
    }
    callers.end().await
}
