//! The least a shared balancer can do: what no design that picks by load among shared endpoints can beat by much.
//!
//! An `ArcSwap` guard, two draws, two loads, a clone of the endpoint's `Arc`, its counter up and down, a clone and a
//! call of its service. No readiness, no health, no latency, no discovery.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use pin_project::pin_project;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tower::Service;

use crate::{
    case::Case,
    endpoint::{AtOnce, request},
};

pub(crate) fn limit() -> Case {
    Case::shared("limit", request, |endpoints| Limit::new(AtOnce, endpoints))
        .against("tower_buffer_balance_ewma")
}

thread_local!(static DRAWS: RefCell<SmallRng> = RefCell::new(SmallRng::seed_from_u64(42)));

#[derive(Clone)]
struct Limit<S> {
    table: Arc<ArcSwap<Vec<Arc<Endpoint<S>>>>>,
}

/// Two cache lines to itself: neighbours that are picked at once do not slow each other down.
#[repr(align(128))]
struct Endpoint<S> {
    in_flight: AtomicU32,
    service: S,
}

impl<S: Clone> Limit<S> {
    fn new(service: S, endpoints: usize) -> Self {
        let endpoint = |_| Arc::new(Endpoint { in_flight: AtomicU32::new(0), service: service.clone() });
        Self { table: Arc::new(ArcSwap::from_pointee((0..endpoints).map(endpoint).collect())) }
    }

    /// The less loaded of two distinct endpoints.
    fn pick(&self) -> Arc<Endpoint<S>> {
        let table = self.table.load();
        let word = DRAWS.with_borrow_mut(SmallRng::next_u64);
        let first = below(word, table.len());
        let second = (first + 1 + below(word >> 32, table.len() - 1)) % table.len();
        let (a, b) = (&table[first], &table[second]);
        let busier = a.in_flight.load(Ordering::Relaxed) > b.in_flight.load(Ordering::Relaxed);
        Arc::clone(if busier { b } else { a })
    }
}

/// A number in `[0, bound)` from the low half of `word`.
fn below(word: u64, bound: usize) -> usize {
    ((word & 0xFFFF_FFFF) * bound as u64 >> 32) as usize
}

impl<S: Service<Req> + Clone, Req> Service<Req> for Limit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Response<S::Future, S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let endpoint = self.pick();
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let inner = endpoint.service.clone().call(request);
        Response { inner, _in_flight: InFlight(endpoint) }
    }
}

#[pin_project]
struct Response<F, S> {
    #[pin]
    inner: F,
    _in_flight: InFlight<S>,
}

impl<F: Future, S> Future for Response<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

struct InFlight<S>(Arc<Endpoint<S>>);

impl<S> Drop for InFlight<S> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
