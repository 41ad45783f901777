//! The least a shared balancer can do: what no design that picks by load among shared endpoints can beat by much.
//!
//! An `ArcSwap` guard, two draws, two loads, a clone of the endpoint's `Arc`, its counter up and down, a clone and a
//! call of its service. No readiness, no health, no latency, no discovery.

use std::{
    cell::Cell,
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
use tower::Service;

use crate::{
    case::Case,
    endpoint::{AtOnce, request},
};

pub(crate) fn limit() -> Case {
    Case::shared("limit", request, |endpoints| Limit::new(AtOnce, endpoints))
        .against("tower_buffer_balance_ewma")
}

thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });

/// Two draws of 32 bits from one step of Knuth's linear congruential generator: what a pick needs at the least.
///
/// The increment is the address of the thread's own state: no two threads share a sequence, and there is no seed to
/// look after.
#[inline(always)]
fn draws() -> (u32, u32) {
    STATE.with(|state| {
        let increment = std::ptr::from_ref(state) as u64 | 1;
        let word = state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(increment);
        state.set(word);
        (word as u32, (word >> 32) as u32)
    })
}

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
        let (first, second) = draws();
        let first = below(first, table.len());
        let second = below(second, table.len() - 1);
        let second = second + usize::from(second >= first);
        let (a, b) = (&table[first], &table[second]);
        let busier = a.in_flight.load(Ordering::Relaxed) > b.in_flight.load(Ordering::Relaxed);
        Arc::clone(if busier { b } else { a })
    }
}

/// A number in `[0, bound)`.
fn below(draw: u32, bound: usize) -> usize {
    ((u64::from(draw) * bound as u64) >> 32) as usize
}

impl<S: Service<Req> + Clone, Req> Service<Req> for Limit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Response<S::Future, S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
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
