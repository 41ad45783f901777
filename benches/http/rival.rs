//! tower's layers around the bare client, as their users stack them.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use http::Response;
use hyper::body::Incoming;
use tower::{
    BoxError, Service, ServiceBuilder,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
    retry::{
        Policy,
        budget::{Budget as _, TpsBudget},
    },
    service_fn,
};

use crate::{
    bare,
    case::{Case, Request, Servers},
};

/// How many requests may wait in the `Buffer`: more than there are callers.
const ROOM: usize = 1024;

/// Retries and a timeout around the better of two by requests in flight, the cheaper of tower's measures. The balancer
/// cannot be cloned, so a task of its own serves a queue of requests.
pub(crate) fn case() -> Case {
    Case::new("tower", async |servers: Servers| {
        let client = bare::client();
        let endpoints = servers.map(|server| {
            let inner = endpoint(client.clone(), server.to_string());
            let loaded = PendingRequests::new(inner, CompleteOnResponse::default());
            Ok::<_, Infallible>(Change::Insert(server, loaded))
        });
        let balance = Balance::new(stream::iter(endpoints).chain(stream::pending()));
        ServiceBuilder::new()
            .retry(Retries::default())
            .timeout(Duration::from_secs(10))
            .service(Buffer::new(balance, ROOM))
    })
}

/// The bare client, to one server.
fn endpoint(
    client: bare::Legacy,
    server: String,
) -> impl Service<Request, Response = Response<Incoming>, Error: Into<BoxError>, Future: Send + 'static> + Send
{
    let uri = bare::uri(&server);
    service_fn(move |mut request: Request| {
        *request.uri_mut() = uri.clone();
        client.request(request)
    })
}

/// Retries errors and 5xx within tower's own budget.
#[derive(Clone, Default)]
struct Retries {
    budget: Arc<TpsBudget>,
}

impl Policy<Request, Response<Incoming>, BoxError> for Retries {
    type Future = future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request,
        result: &mut Result<Response<Incoming>, BoxError>,
    ) -> Option<Self::Future> {
        if matches!(result, Ok(response) if !response.status().is_server_error()) {
            self.budget.deposit();
            return None;
        }
        self.budget.withdraw().then(|| future::ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}
