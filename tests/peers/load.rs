//! Callers that go on while servers come and go.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use mainstay::{
    balance::{BalanceOptions, Load},
    hyper::{Client, ConnectorOptions, Protocol},
    resolve,
};
use tokio::task::JoinHandle;
use tower::BoxError;

/// How fast the machine is decides nothing: load is counted, not timed.
pub(crate) fn client(addresses: &[SocketAddr], protocol: Protocol) -> Client {
    let mut balance = BalanceOptions::default();
    balance.load = Load::InFlight;
    balance.attempt_limit = Some(Duration::from_secs(30));
    balance.connect_timeout = Duration::from_secs(30);
    Client::builder("users")
        .resolve(resolve::fixed(addresses.iter().copied()))
        .connector(ConnectorOptions::default().protocol(protocol))
        .balance(balance)
        .deadline(Duration::from_secs(60))
        .budget(mainstay::budget::BudgetOptions::default().reserve(10_000))
        .build()
        .unwrap()
}

pub(crate) fn request(method: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(format!("http://users.internal{path}")).body(Empty::new()).unwrap()
}

/// The status and the body.
pub(crate) async fn ask(client: &Client, method: &str, path: &str) -> Result<(u16, String), BoxError> {
    let response = client.send(request(method, path)).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Four callers that ask for `/` over and over.
pub(crate) struct Callers {
    over: Arc<AtomicBool>,
    pub(crate) answered: Arc<AtomicU32>,
    callers: Vec<JoinHandle<Result<(), BoxError>>>,
}

impl Callers {
    pub(crate) fn of(client: &Client) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let callers = (0..4).map(|_| {
            let (client, over, answered) = (client.clone(), over.clone(), answered.clone());
            tokio::spawn(async move {
                while !over.load(SeqCst) {
                    let (status, body) = ask(&client, "GET", "/").await?;
                    if (status, body.as_str()) != (200, "ok") {
                        return Err(format!("{status} {body:?}").into());
                    }
                    answered.fetch_add(1, SeqCst);
                }
                Ok(())
            })
        });
        Self { callers: callers.collect(), over, answered }
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn answer(&self, more: u32) {
        let until = self.answered.load(SeqCst) + more;
        while self.answered.load(SeqCst) < until {
            assert!(!self.callers.iter().any(JoinHandle::is_finished), "a request has failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Not one request may have failed.
    pub(crate) async fn end(self) -> Result<(), BoxError> {
        self.over.store(true, SeqCst);
        for caller in self.callers {
            caller.await??;
        }
        Ok(())
    }
}

/// Waits until so many endpoints are available.
pub(crate) async fn available(client: &Client, endpoints: usize) {
    let count = || client.status().balance.endpoints.iter().filter(|row| row.is_available()).count();
    while count() != endpoints {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
