//! Hedges over a bare balancer.

use mainstay::{
    budget::{Budget, BudgetOptions},
    describe::Idempotent,
    hedge::{Delay, HedgeLayer, HedgeOptions},
    resolve,
};
use tower::{Layer as _, ServiceExt as _};

use crate::stage::*;

fn layer() -> HedgeLayer<u32, String> {
    let options = HedgeOptions::default().delay(Delay::Fixed(ms(50))).share(None);
    let budget = Budget::new(BudgetOptions::default().reserve(100)).unwrap();
    HedgeLayer::new(options).unwrap().describe(Idempotent).budget(budget)
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_an_endpoint_that_the_request_is_not_at() {
    let stage = Stage::default();
    let balance = stage.client(resolve::fixed(["a:1", "b:1"]));
    stage.server("a:1").set(Mode::Hang);
    let hedged = layer().layer(balance.clone());
    let mut slow = 0;
    for _ in 0..20 {
        let start = now();
        assert_eq!(hedged.clone().oneshot(0).await.unwrap(), "b:1");
        slow += usize::from(now() - start >= ms(50));
        assert_eq!((stage.server("a:1").active(), stage.server("b:1").active()), (0, 0));
    }
    assert_eq!(
        stage.server("a:1").served(),
        slow,
        "each request that began at a:1 was hedged, and none twice"
    );
    assert!(slow > 0);
    assert_eq!(balance.status().endpoints.iter().map(|row| row.in_flight).sum::<u32>(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_not_asked_twice_at_the_same_time() {
    let stage = Stage::default();
    let hedged = layer().layer(stage.client(resolve::fixed(["a:1"])));
    stage.server("a:1").set(Mode::Answer(ms(200)));
    for _ in 0..5 {
        assert_eq!(hedged.clone().oneshot(0).await.unwrap(), "a:1");
    }
    assert_eq!(stage.server("a:1").served(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_nothing_in_flight() {
    let stage = Stage::default();
    let balance = stage.client(resolve::fixed(["a:1", "b:1"]));
    let hedged = layer().layer(balance.clone());
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Hang);
    }
    for wait in [0, 20, 60, 500] {
        assert!(tokio::time::timeout(ms(wait), hedged.clone().oneshot(0)).await.is_err());
        assert_eq!((stage.server("a:1").active(), stage.server("b:1").active()), (0, 0), "after {wait} ms");
        assert!(balance.status().endpoints.iter().all(|row| row.in_flight == 0));
    }
}
