//! How much extra load there is, whatever fails.

use std::time::{Duration, Instant};

use mainstay::{
    budget::{Budget, BudgetOptions},
    clock,
    random::{Random as _, Seeded},
};
use tower::{Layer as _, ServiceExt as _};

use crate::server::{Answer, FAIL, MS, Server, Test, at_once, bad_number, layer, request, reserve};

const WINDOW: Duration = Duration::from_secs(10);

fn default_budget() -> Budget {
    Budget::new(BudgetOptions::default()).expect("the defaults are good")
}

/// Sends `requests`, one each `every`, and waits for all of them.
async fn load(server: &Server, requests: u32, every: Duration) -> Test {
    let service = layer(at_once(3))?.budget(default_budget()).layer(server.clone());
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..requests {
        calls.spawn(service.clone().oneshot(request(id)));
        tokio::time::sleep(every).await;
    }
    calls.join_all().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn at_total_failure_the_load_is_what_it_was_and_one_more_in_ten_seconds() -> Test {
    let server = Server::failing();
    load(&server, 1_000, MS).await?;
    assert_eq!(server.count(), 1_001);

    let server = Server::failing();
    load(&server, 1_000, MS * 100).await?; // 100 s
    assert!((1_005..=1_010).contains(&server.count()), "{}", server.count());
    Ok(())
}

/// At every retry: those of the last ten seconds, it included, are at most a fifth of the successes and one.
fn assert_within_budget(retries: &[Instant], successes: &[Instant]) {
    for (index, at) in retries.iter().enumerate() {
        let recent = |times: &[Instant]| {
            times.iter().filter(|time| *time <= at && at.saturating_duration_since(**time) < WINDOW).count()
        };
        let (drawn, paid) = (recent(&retries[..=index]), recent(successes));
        assert!(drawn as f64 <= 0.2 * paid as f64 + 1.0, "{drawn} retries on {paid} successes");
    }
}

#[tokio::test(start_paused = true)]
async fn at_any_failure_rate_the_load_is_at_most_a_fifth_higher() -> Test {
    let random = Seeded::new(3);
    for percent in (0..=100).step_by(5) {
        let (seed, spacing) = (random.next(), MS * (random.next() % 10) as u32);
        let fails = move |n: u32| Seeded::new(seed ^ u64::from(n)).next() % 100 < percent;
        let server = Server::new(move |n| if fails(n) { FAIL } else { Answer::Good });
        load(&server, 1_000, spacing).await?;

        let (mut retries, mut successes) = (Vec::new(), Vec::new());
        for ((at, seen), n) in server.times().into_iter().zip(server.seen()).zip(1..) {
            if seen.attempt > 1 {
                retries.push(at);
            }
            if !fails(n) {
                successes.push(at);
            }
        }
        assert_within_budget(&retries, &successes);
        // All of it lies within one window.
        assert!(server.count() <= 1_201, "{percent} %: {}", server.count());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn few_failures_are_all_covered() -> Test {
    let server = Server::new(|n| if n > 100 && n % 10 == 0 { FAIL } else { Answer::Good });
    let service = layer(at_once(3))?.budget(default_budget()).layer(server);
    for id in 0..1_000 {
        service.clone().oneshot(request(id)).await?;
        tokio::time::advance(MS).await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn over_budget_the_original_result_comes_at_once() -> Test {
    let server = Server::failing();
    let service = layer(mainstay::retry::RetryPolicy::default())?.budget(reserve(0)).layer(server.clone());
    let start = clock::now();
    let result = service.oneshot(request(1)).await;
    assert_eq!((bad_number(&result), server.count(), clock::now()), (Some(1), 1, start));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn layers_that_share_a_budget_share_its_reserve() -> Test {
    let (budget, server) = (reserve(3), Server::failing());
    for id in 0..10 {
        let layer = layer(at_once(3))?.budget(budget.clone());
        let _ = layer.layer(server.clone()).oneshot(request(id)).await;
    }
    assert_eq!(server.count(), 13);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_services_of_one_layer_share_its_budget() -> Test {
    let server = Server::failing();
    let layer = layer(at_once(3))?.budget(reserve(3));
    for id in 0..10 {
        let _ = layer.layer(server.clone()).oneshot(request(id)).await;
    }
    assert_eq!(server.count(), 13);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_what_succeeds_pays_in() -> Test {
    let budget = Budget::new(BudgetOptions::default().reserve(0))?;
    let service = |server: Server| layer(at_once(1)).map(|layer| layer.budget(budget.clone()).layer(server));
    for id in 0..100 {
        let _ = service(Server::failing())?.oneshot(request(id)).await;
    }
    assert_eq!(budget.available(clock::now()), 0);
    for id in 0..100 {
        service(Server::answers([]))?.oneshot(request(id)).await?;
    }
    assert_eq!(budget.available(clock::now()), 20);
    Ok(())
}
