//! tower's balancer and tower's stack around it, as their users build them.

use std::{convert::Infallible, fmt::Debug, future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tower::{
    BoxError, Service, ServiceBuilder,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::{Change, Discover},
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
    retry::{
        Policy,
        budget::{Budget as _, TpsBudget},
    },
};

use crate::{
    case::Case,
    endpoint::{AtOnce, Failed, SuspendOnce, request},
};

/// How many requests may wait in the `Buffer`, and be in flight under the `ConcurrencyLimit`: more than there are
/// callers, so that neither bound is met.
const ROOM: usize = 1024;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::owned("tower_balance_ewma", request, |endpoints| {
            Balance::new(discover(endpoints, || ewma(AtOnce)))
        }),
        Case::shared("tower_buffer_balance_ewma", request, |endpoints| buffered(endpoints, || ewma(AtOnce))),
        Case::shared("tower_stack", request, |endpoints| stack(endpoints, AtOnce)),
        Case::shared("tower_stack_suspended", request, |endpoints| stack(endpoints, SuspendOnce)),
    ]
}

/// A fixed set of endpoints, and a stream that stays open.
fn discover<L: Send + 'static>(
    endpoints: usize,
    make: impl Fn() -> L,
) -> impl Discover<Key = usize, Service = L, Error = Infallible> + Send + Unpin + 'static {
    let changes: Vec<_> = (0..endpoints).map(|key| Ok(Change::Insert(key, make()))).collect();
    stream::iter(changes).chain(stream::pending())
}

fn ewma<S>(service: S) -> PeakEwma<S> {
    PeakEwma::new(service, Duration::from_millis(1), 10e9, CompleteOnResponse::default())
}

/// The balancer as it is shared: it is not `Clone`, so a task of its own serves a queue of requests.
fn buffered<L>(endpoints: usize, make: impl Fn() -> L) -> impl Shared
where
    L: Service<u64, Response = u64, Error: Into<BoxError>, Future: Send + 'static>,
    L: Load<Metric: Debug> + Send + 'static,
{
    Buffer::new(Balance::new(discover(endpoints, make)), ROOM)
}

fn stack<S>(endpoints: usize, service: S) -> impl Shared
where
    S: Service<u64, Response = u64, Error = Failed, Future: Send + 'static> + Clone + Send + 'static,
{
    let loaded = move || PendingRequests::new(service.clone(), CompleteOnResponse::default());
    ServiceBuilder::new()
        .concurrency_limit(ROOM)
        .retry(Retries::default())
        .timeout(Duration::from_secs(10))
        .service(buffered(endpoints, loaded))
}

/// What callers can share.
trait Shared:
    Service<u64, Response = u64, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}

impl<S> Shared for S where
    S: Service<u64, Response = u64, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static
{
}

/// Retries any error within tower's own budget.
#[derive(Clone, Default)]
struct Retries {
    budget: Arc<TpsBudget>,
}

impl Policy<u64, u64, BoxError> for Retries {
    type Future = future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, BoxError>) -> Option<Self::Future> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        self.budget.withdraw().then(|| future::ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}
