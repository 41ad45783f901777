//! The lists of cases that others hold their retries to: gRFC A6, Envoy, Finagle. The numbers are those of the lists.

use std::time::Duration;

use mainstay::{
    Ratio, Verdict,
    budget::{Budget, BudgetOptions},
    clock,
    outcome::{Again, Sent},
    retry::{RetryLayer, RetryPolicy},
};
use tower::{Layer as _, ServiceExt as _};

use crate::server::{Answer, Believe, FAIL, MS, Request, Requests, Server, Test, request};

/// A6 with the numbers of its own example: 4 attempts, 100 ms doubling to 1 s.
fn grpc(attempts: u32) -> RetryPolicy {
    RetryPolicy::grpc(attempts, MS * 100, MS * 1_000, 2.0)
}

fn throttle() -> Budget {
    Budget::grpc(10, 0.1).expect("good numbers")
}

fn a6(policy: RetryPolicy, budget: Budget) -> RetryLayer<Request, u32> {
    let layer = RetryLayer::new(policy).expect("a good policy");
    layer.describe(Requests { idempotent: true }).classify(Believe).budget(budget)
}

/// The times between the sendings of one request.
async fn gaps(server: &Server, policy: RetryPolicy, budget: Budget) -> Vec<Duration> {
    let _ = a6(policy, budget).layer(server.clone()).oneshot(request(0)).await;
    server.gaps()
}

fn within(gap: Duration, millis: std::ops::RangeInclusive<u64>) -> bool {
    // The clock of the tests tells whole milliseconds, and late.
    (*millis.start()..=*millis.end() + 1).contains(&(gap.as_millis() as u64))
}

#[tokio::test(start_paused = true)]
async fn c01_the_wait_before_attempt_two_is_100_ms_and_a_fifth_more_or_less() {
    for _ in 0..50 {
        let gaps = gaps(&Server::failing(), grpc(2), throttle()).await;
        assert!(gaps.len() == 1 && within(gaps[0], 80..=120), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn c03_ten_attempts_are_five_and_no_mistake() {
    let server = Server::failing();
    let budget = Budget::grpc(100, 0.1).expect("good numbers");
    assert_eq!(gaps(&server, grpc(10), budget).await.len(), 4);
    assert_eq!(server.count(), 5);
}

#[test]
fn c04_fewer_than_two_attempts_are_refused() {
    for attempts in [0, 1] {
        let invalid = grpc(attempts).validate().unwrap_err();
        assert_eq!(invalid.problems()[0].field, "max_attempts");
    }
    assert!(grpc(2).validate().is_ok());
}

#[tokio::test(start_paused = true)]
async fn c07_what_is_not_to_be_retried_is_returned_at_once_and_takes_no_token() -> Test {
    let (server, budget) = (Server::new(|_| Answer::Good), throttle());
    let before = budget.available(clock::now());
    a6(grpc(4), budget.clone()).layer(server.clone()).oneshot(request(0)).await?;
    assert_eq!((server.count(), budget.available(clock::now())), (1, before));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn c08_and_c12_the_fifth_failure_of_ten_tokens_stops_retries_without_a_wait() {
    let (server, budget) = (Server::failing(), throttle());
    // Four failures of the first request, and then the fifth.
    assert_eq!(gaps(&server, grpc(4), budget.clone()).await.len(), 3);
    assert_eq!(server.count(), 4);
    let start = clock::now();
    let _ = a6(grpc(4), budget).layer(server.clone()).oneshot(request(1)).await;
    assert_eq!((server.count(), clock::now().saturating_duration_since(start)), (5, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn c15_pushback_is_the_wait_and_the_backoff_begins_anew() {
    let pushback = Verdict::failure().again(Again::After(MS * 250));
    // Told at the second failure: until then, and from then on, it is 100 ms doubling.
    let server = Server::new(move |n| if n == 2 { Answer::Bad(pushback) } else { FAIL });
    let gaps = gaps(&server, grpc(5), Budget::grpc(100, 0.1).expect("good numbers")).await;
    assert!(within(gaps[0], 80..=120), "{gaps:?}");
    assert!(within(gaps[1], 250..=250), "{gaps:?}");
    assert!(within(gaps[2], 80..=120), "{gaps:?}");
    assert!(within(gaps[3], 160..=240), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn c18_pushback_does_not_buy_another_attempt() {
    let server = Server::new(|_| Answer::Bad(Verdict::failure().again(Again::After(MS * 10))));
    assert_eq!(gaps(&server, grpc(3), throttle()).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pushback_that_forbids_retries_stops_them_and_takes_a_token() {
    let (server, budget) = (Server::new(|_| Answer::Bad(Verdict::failure().again(Again::Never))), throttle());
    let before = budget.available(clock::now());
    assert!(gaps(&server, grpc(4), budget.clone()).await.is_empty());
    assert_eq!(budget.available(clock::now()), before - 1);
}

#[tokio::test(start_paused = true)]
async fn c22_and_c23_what_a_server_refused_is_sent_again_at_once_the_first_time_and_by_the_policy_then() {
    let refused = Verdict::failure().sent(Sent::Refused);
    let (server, budget) = (Server::new(move |_| Answer::Bad(refused)), throttle());
    let gaps = gaps(&server, grpc(2), budget).await;
    assert_eq!(gaps.first(), Some(&Duration::ZERO));
    assert!(gaps.iter().skip(1).all(|gap| within(*gap, 80..=120)), "{gaps:?}");
    // Refused the first time, at the cost of no token: the throttle is as full as before.
    let (once, budget) =
        (Server::new(move |n| if n == 1 { Answer::Bad(refused) } else { Answer::Good }), throttle());
    let before = budget.available(clock::now());
    let _ = a6(grpc(2), budget.clone()).layer(once.clone()).oneshot(request(0)).await;
    assert_eq!((once.count(), budget.available(clock::now())), (2, before));
}

#[tokio::test(start_paused = true)]
async fn c33_envoys_budget_counts_what_is_under_way_and_lets_go_of_it_at_the_end() {
    // 100 under way, all of which fail after a while: 20 are retried, 80 are not.
    let server = Server::new(|n| if n <= 100 { Answer::FailIn(MS * 10) } else { Answer::Good });
    let budget = Budget::envoy(Ratio::percent::<20>(), 3);
    let service = a6(RetryPolicy::envoy(), budget.clone()).layer(server.clone());
    let calls: Vec<_> = (0..100).map(|id| service.clone().oneshot(request(id))).collect();
    let results = futures::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    assert_eq!(server.count(), 120);
    // All is over: what is left is the least.
    assert_eq!(budget.available(clock::now()), 3);
}

#[tokio::test(start_paused = true)]
async fn envoys_budget_gets_back_what_a_caller_who_gives_up_had() {
    let (server, budget) = (Server::failing(), Budget::envoy(Ratio::ZERO, 1));
    let service = a6(RetryPolicy::envoy(), budget.clone()).layer(server);
    for _ in 0..20 {
        let _ = tokio::time::timeout(MS, service.clone().oneshot(request(0))).await;
        assert_eq!(budget.available(clock::now()), 1);
    }
}

#[test]
fn finagles_budget_has_its_numbers_and_is_exact_for_every_percentage() {
    let numbers = BudgetOptions::finagle();
    assert_eq!((numbers.share, numbers.window, numbers.reserve), (Ratio::percent::<20>(), MS * 10_000, 100));
    // Of Finagle's own test: so many percent of 10,000 requests, one more or less; here to the last one.
    for percent in 0..=100_u32 {
        let share = Ratio::new(f64::from(percent) / 100.0).expect("a share");
        let budget = Budget::new(BudgetOptions::finagle().share(share).reserve(0)).expect("good numbers");
        let now = clock::now();
        (0..10_000).for_each(|_| budget.deposit(now));
        let mut granted = 0;
        while let Some(withdrawal) = budget.withdraw(now) {
            withdrawal.spend();
            granted += 1;
        }
        assert_eq!(granted, percent * 100);
    }
}
