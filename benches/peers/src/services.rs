//! What is a layer of tower.

use std::{
    convert::Infallible,
    future::{self, Ready},
    hint::black_box,
    task::{Context, Poll},
};

use mainstay::{
    breaker::{BreakerLayer, BreakerOptions},
    limit::{Algorithm, ConcurrencyLimitLayer, ConcurrencyLimitOptions, control::VegasOptions},
};
use tower::{Layer as _, Service, ServiceExt as _};

use crate::{Calls, Case};

/// Answers at once.
#[derive(Clone)]
struct AtOnce;

impl Service<u64> for AtOnce {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        future::ready(Ok(request))
    }
}

/// A row whose callers have clones of one service, and a runtime each.
fn case<S>(kind: &'static str, name: &'static str, service: S) -> Case
where
    S: Service<u64> + Clone + Send + 'static,
{
    let caller = move || -> Calls {
        let service = service.clone();
        Box::new(move |calls| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                for call in 0..calls {
                    let mut own = service.clone();
                    if let Ok(ready) = own.ready().await {
                        let _ = black_box(ready.call(call).await);
                    }
                }
            });
        })
    };
    Case { kind, name, caller: Box::new(caller) }
}

fn limit(algorithm: Algorithm) -> ConcurrencyLimitLayer {
    ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().algorithm(algorithm))
        .expect("sound options")
}

pub(crate) fn cases() -> Vec<Case> {
    let breaker = BreakerLayer::new(BreakerOptions::default()).expect("sound options");
    let theirs =
        tower_resilience_circuitbreaker::CircuitBreakerLayer::builder().build().expect("sound options");
    let vegas = tower_acc::Vegas::builder().initial_limit(20).build();
    vec![
        case("service", "nothing around it", AtOnce),
        case("breaker", "mainstay, as a layer", breaker.layer(AtOnce)),
        case("breaker", "tower-resilience 0.13, as a layer", theirs.layer(AtOnce)),
        case("limit", "mainstay, fixed", limit(Algorithm::Fixed).layer(AtOnce)),
        case("limit", "tower 0.5, fixed", tower::limit::ConcurrencyLimitLayer::new(100).layer(AtOnce)),
        case("limit", "mainstay, Ebb", limit(Algorithm::adaptive()).layer(AtOnce)),
        case("limit", "mainstay, Vegas", limit(Algorithm::Vegas(VegasOptions::default())).layer(AtOnce)),
        case("limit", "tower-acc 0.1, Vegas", tower_acc::ConcurrencyLimitLayer::new(vegas).layer(AtOnce)),
    ]
}
