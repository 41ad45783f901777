//! Hedges, through the client.

use std::{task::Context, time::Duration};

use futures::FutureExt as _;
use mainstay::{
    Error, Ratio, Reason,
    breaker::BreakerOptions,
    budget::{Budget, BudgetOptions},
    client::ClientBuilder,
    describe::NotIdempotent,
    hedge::{Delay, HedgeOptions},
    limit::{ConcurrencyLimitOptions, throttle::ThrottleOptions},
    outcome::Sent,
    resolve,
};

use crate::fleet::*;

/// Hedged after so long, as often as the budget allows.
fn after(delay: Duration) -> HedgeOptions {
    HedgeOptions::default().delay(Delay::Fixed(delay)).share(None)
}

/// Waits until the endpoints are known.
async fn settle_in(client: &Client) {
    client.ready().await.unwrap();
    settle().await;
}

/// A budget with room for so many.
fn room(hedges: u32) -> BudgetOptions {
    reserve(hedges)
}

fn hedged(stage: &Stage, names: &'static [&'static str], options: HedgeOptions) -> ClientBuilder<Conn, u32> {
    let resolver = resolve::fixed(names.iter().copied());
    builder(stage, resolver).hedge(options).budget(room(100)).retry(at_once(1))
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_at_one_endpoint_is_answered_by_another() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(50))).build().unwrap();
    stage.server("a:1").set(Mode::Hang);
    let mut lasted = Vec::new();
    for _ in 0..20 {
        let start = now();
        assert_eq!(client.send(0).await.unwrap(), "b:1");
        lasted.push(now() - start);
    }
    assert!(lasted.contains(&ms(60)) && lasted.iter().all(|lasted| *lasted <= ms(60)), "{lasted:?}");
    let status = client.status();
    let hung = stage.server("a:1").served() as u64;
    assert_eq!((status.hedges, status.hedges_won, status.retries), (hung, hung, 0));
    assert_eq!((status.successes, status.cancelled), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_cancelled_when_the_winner_answers_and_gives_its_place_back() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(50))).build().unwrap();
    stage.server("a:1").set(Mode::Hang);
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut request = client.send(0).boxed();
        assert!(request.as_mut().await.is_ok());
        // Whoever keeps the future that has ended keeps nothing else.
        kept.push(request);
        assert_eq!((stage.server("a:1").active(), stage.server("b:1").active()), (0, 0));
        assert!(client.status().balance.endpoints.iter().all(|row| row.in_flight == 0));
    }
    assert!(stage.server("a:1").served() > 0);
    drop(kept);
    assert!(client.close(ms(0)).await);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_processed_twice_is_never_hedged() {
    let stage = Stage::default();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(500)));
    }
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).describe(NotIdempotent).build().unwrap();
    assert_eq!(load(&client, 10, 100).await, 0);
    assert_eq!(stage.served().iter().sum::<usize>(), 100);
    // The caller's word stands over the description.
    let other = hedged(&stage, &["a:1", "b:1"], after(ms(5))).build().unwrap().not_idempotent();
    assert_eq!(load(&other, 10, 100).await, 0);
    assert_eq!(stage.served().iter().sum::<usize>(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_not_asked_twice_at_the_same_time() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1"], after(ms(5))).build().unwrap();
    stage.server("a:1").set(Mode::Answer(ms(50)));
    assert_eq!(load(&client, 1, 5).await, 0);
    assert_eq!(stage.server("a:1").served(), 5);
    let status = client.status();
    assert_eq!((status.hedges, status.hedges_withheld, status.budget_available), (0, 5, 100));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_waits_for_the_other() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(50))).build().unwrap();
    stage.server("a:1").set(Mode::Fail(ms(70)));
    stage.server("b:1").set(Mode::Answer(ms(100)));
    for _ in 0..4 {
        assert_eq!(client.send(0).await.unwrap(), "b:1");
    }
    let status = client.status();
    assert_eq!((status.successes, status.failures), (4, 0));
    assert!(stage.server("a:1").served() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_has_the_next_sent_at_once() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(secs(5))).build().unwrap();
    stage.server("a:1").set(Mode::Fail(ms(20)));
    for _ in 0..8 {
        let start = now();
        assert_eq!(client.send(0).await.unwrap(), "b:1");
        assert!(now() - start <= ms(30), "no wait");
    }
    assert_eq!(client.status().hedges as usize, stage.server("a:1").served());
}

#[tokio::test(start_paused = true)]
async fn when_all_have_failed_the_retries_go_on_with_the_next_number_and_other_endpoints() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], after(ms(5))).retry(at_once(2)).build().unwrap();
    stage.server("a:1").set(Mode::Fail(ms(20)));
    stage.server("b:1").set(Mode::Fail(ms(20)));
    for _ in 0..6 {
        assert_eq!(client.send(0).await.unwrap(), "c:1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_all_is_told_as_one_that_may_have_been_processed() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).attempt_limit(ms(40)).build().unwrap();
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Hang);
    let error = client.send(0).await.unwrap_err();
    let ours = Error::find(&*error).unwrap();
    assert_eq!((ours.reason(), ours.sent()), (Reason::AttemptTimeout, Sent::Maybe));
    assert_eq!(stage.served().iter().sum::<usize>(), 2);
}

#[tokio::test(start_paused = true)]
async fn hedges_and_retries_share_one_budget() {
    let stage = Stage::default();
    let budget = Budget::new(reserve(3)).unwrap();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).shared_budget(budget.clone()).build().unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(30)));
    }
    assert_eq!(load(&client, 1, 10).await, 0);
    let status = client.status();
    assert_eq!((status.hedges, status.hedges_withheld, status.budget_available), (3, 7, 0));
    assert_eq!(stage.served().iter().sum::<usize>(), 13);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_no_more_than_their_own_share_of_the_requests() {
    let stage = Stage::default();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Answer(ms(10)));
    }
    // Far too early: every request would be hedged.
    let options = after(ms(2)).share(Ratio::percent::<2>());
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], options).budget(room(1_000)).build().unwrap();
    assert_eq!(load(&client, 10, 1_000).await, 0);
    assert_eq!(client.status().hedges, 20);
    assert_eq!(stage.served().iter().sum::<usize>(), 1_020);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_a_percentile_and_is_not_believed_before_there_are_a_hundred() {
    let stage = Stage::default();
    let options = HedgeOptions::default();
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], options).build().unwrap();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Vary);
    }
    assert_eq!(load(&client, 1, 99).await, 0);
    assert_eq!(client.status().hedge_delay, None);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(load(&client, 1, 900).await, 0);
    let status = client.status();
    let delay = status.hedge_delay.unwrap();
    assert!(delay >= ms(14) && delay <= ms(16), "{delay:?}");
    assert!(status.hedges <= 18, "{}", status.hedges);
}

#[tokio::test(start_paused = true)]
async fn losers_do_not_bring_the_delay_down() {
    let stage = Stage::default();
    let options = HedgeOptions::default().share(Ratio::percent::<20>());
    let client =
        hedged(&stage, &["a:1", "b:1", "c:1", "d:1"], options).budget(room(100_000)).build().unwrap();
    for name in ["a:1", "b:1", "c:1", "d:1"] {
        stage.server(name).set(Mode::Vary);
    }
    let mut delays = Vec::new();
    for _ in 0..12 {
        assert_eq!(load(&client, 4, 3_000).await, 0);
        delays.push(client.status().hedge_delay.unwrap());
    }
    // The 90th percentile of 5 to 15 ms, found to a sixteenth.
    assert!(delays.iter().all(|delay| (ms(13)..=ms(16)).contains(delay)), "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn without_time_for_an_answer_no_hedge_is_sent() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(95))).build().unwrap();
    assert_eq!(load(&client, 1, 200).await, 0); // 10 ms each
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Hang);
    }
    let served = stage.served().iter().sum::<usize>();
    assert!(client.clone().deadline(ms(100)).send(0).await.is_err());
    assert_eq!(stage.served().iter().sum::<usize>(), served + 1);
    assert_eq!(client.status().hedges, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_does_not_wait_in_the_line_of_a_limit() {
    let stage = Stage::default();
    let limit = ConcurrencyLimitOptions::default().limit(1);
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).limit(limit).build().unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(30)));
    }
    assert_eq!(load(&client, 3, 12).await, 0);
    let status = client.status();
    assert_eq!((status.hedges, status.budget_available), (0, 100));
    assert_eq!(stage.served().iter().sum::<usize>(), 12);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_while_too_much_of_the_capacity_is_in_use() {
    let stage = Stage::default();
    let heard = Heard::default();
    let limit = ConcurrencyLimitOptions::default().limit(10);
    let options = after(ms(15)).max_utilisation(Ratio::percent::<50>());
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], options)
        .limit(limit)
        .observe(heard.observer())
        .build()
        .unwrap();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Answer(ms(20)));
    }
    // Eight of ten at a time, for a minute and more.
    assert_eq!(load(&client, 8, 30_000).await, 0);
    let busy = client.status().hedges;
    assert!(busy <= 200, "{busy}");
    assert_eq!(heard.count("hedging_paused"), 1);
    tokio::time::sleep(secs(61)).await;
    assert_eq!(load(&client, 2, 100).await, 0);
    assert_eq!(heard.count("hedging_resumed"), 1);
    assert!(client.status().hedges > busy + 50);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_while_a_breaker_has_its_doubts() {
    let stage = Stage::default();
    let breaker = BreakerOptions::default().consecutive(3).probes(3, 3);
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).breaker(breaker).build().unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(30)));
    }
    client.send(0).await.unwrap();
    assert_eq!(client.status().hedges, 1, "closed: it is hedged");
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Fail(ms(1)));
    }
    while reason(&client.send(0).await) != Some(Reason::Breaker) {}
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(30)));
    }
    tokio::time::sleep(secs(6)).await;
    let before = client.status().hedges;
    for _ in 0..3 {
        client.send(0).await.unwrap();
    }
    assert_eq!(client.status().hedges, before, "half-open: a probe is one attempt");
    client.send(0).await.unwrap();
    assert_eq!(client.status().hedges, before + 1, "closed again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_while_servers_turn_requests_away() {
    let stage = Stage::default();
    let throttle = ThrottleOptions::default().window(secs(10));
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).throttle(throttle).build().unwrap();
    let set = |mode: Mode| ["a:1", "b:1"].iter().for_each(|name| stage.server(name).set(mode.clone()));
    set(Mode::Answer(ms(30)));
    assert_eq!(load(&client, 1, 4).await, 0);
    let before = client.status().hedges;
    assert_eq!(before, 4);
    set(Mode::BackOff(Some(ms(1))));
    for _ in 0..16 {
        let _ = client.send(0).await;
        tokio::time::sleep(ms(5)).await;
    }
    set(Mode::Answer(ms(30)));
    // 20 asked, 4 served: whatever becomes of five more, more than half of 25 were turned away.
    assert!(load(&client, 1, 5).await < 5);
    assert_eq!(client.status().hedges, before, "it is throttled still");
    tokio::time::sleep(secs(11)).await;
    client.send(0).await.unwrap();
    assert_eq!(client.status().hedges, before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_leaves_no_attempt_running() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], after(ms(5)).max_attempts(3)).build().unwrap();
    for name in ["a:1", "b:1", "c:1"] {
        stage.server(name).set(Mode::Hang);
    }
    for wait in [0, 3, 7, 12, 50] {
        assert!(tokio::time::timeout(ms(wait), client.send(0)).await.is_err());
        let active = ["a:1", "b:1", "c:1"].map(|name| stage.server(name).active());
        assert_eq!(active, [0; 3], "after {wait} ms");
        assert!(client.status().balance.endpoints.iter().all(|row| row.in_flight == 0));
    }
    assert!(client.close(ms(0)).await);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_set_aside_though_hedges_answer_for_it() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = hedged(&stage, &["a:1", "b:1", "c:1"], after(ms(15)))
        .budget(room(100_000))
        .observe(heard.observer())
        .build()
        .unwrap();
    assert_eq!(load(&client, 3, 300).await, 0);
    stage.server("a:1").set(Mode::Hang);
    let served = stage.server("a:1").served();
    for _ in 0..600 {
        assert_eq!(load(&client, 8, 100).await, 0);
        if heard.count("ejected") > 0 {
            return;
        }
        // It is asked now and then only: whoever loses to hedges looks slow.
        assert!(stage.server("a:1").served() - served <= 40);
        tokio::time::sleep(secs(1)).await;
    }
    panic!("never: {:?}", client.status());
}

#[tokio::test(start_paused = true)]
async fn grpc_hedging_sends_up_to_five_each_delay_apart_and_no_sixth() {
    let stage = Stage::default();
    let names = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1"];
    names.iter().for_each(|name| stage.server(name).set(Mode::Hang));
    let client = hedged(&stage, &["a:1", "b:1", "c:1", "d:1", "e:1", "f:1"], HedgeOptions::grpc(4, ms(500)))
        .build()
        .unwrap();
    // C35: at 1, 501, 1,001 and 1,501 ms there are 1, 2, 3 and 4 under way, and no fifth.
    settle_in(&client).await;
    let mut request = client.send(0).boxed();
    let waker = std::task::Waker::noop();
    for expected in [1, 2, 3, 4, 4, 4] {
        assert!(request.as_mut().poll_unpin(&mut Context::from_waker(waker)).is_pending());
        let active = names.iter().map(|name| stage.server(name).active()).sum::<usize>();
        assert_eq!(active, expected);
        tokio::time::advance(ms(500)).await;
    }
    drop(request);
    // C36: without a delay all are sent at once. C39: an answer of one cancels the others.
    let client = hedged(&stage, &["a:1", "b:1", "c:1", "d:1", "e:1", "f:1"], HedgeOptions::grpc(9, ms(0)))
        .build()
        .unwrap();
    settle_in(&client).await;
    let mut request = client.send(0).boxed();
    assert!(request.as_mut().poll_unpin(&mut Context::from_waker(waker)).is_pending());
    assert_eq!(names.iter().map(|name| stage.server(name).active()).sum::<usize>(), 5);
    drop(request);
    names.iter().for_each(|name| stage.server(name).set(Mode::Answer(ms(10))));
    assert!(client.send(0).await.is_ok());
    assert_eq!(names.iter().map(|name| stage.server(name).active()).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn grpc_hedging_that_is_throttled_sends_one() {
    let stage = Stage::default();
    let budget = Budget::grpc(10, 0.1).unwrap();
    (0..5).for_each(|_| budget.fail());
    let client =
        hedged(&stage, &["a:1", "b:1"], HedgeOptions::grpc(2, ms(0))).shared_budget(budget).build().unwrap();
    // C41, at half of the tokens; one success more and there is a second.
    client.send(0).await.unwrap();
    assert_eq!(stage.served().iter().sum::<usize>(), 1);
    client.send(0).await.unwrap();
    assert_eq!(stage.served().iter().sum::<usize>(), 3);
}

#[tokio::test(start_paused = true)]
async fn hedging_can_be_switched_on_and_off_while_the_client_runs() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], after(ms(5))).hedge(None).build().unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(20)));
    }
    for (on, expected) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
        let mut options = client.options();
        options.hedge = on.then(|| after(ms(5)));
        client.update(options).unwrap();
        client.send(0).await.unwrap();
        assert_eq!(client.status().hedges, expected);
    }
    let mut bad = client.options();
    bad.hedge = Some(after(secs(60)).max_attempts(1));
    let invalid = client.update(bad).unwrap_err();
    let fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["hedge.max_attempts", "hedge.delay"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_in_what_the_client_explains() {
    let stage = Stage::default();
    let client = hedged(&stage, &["a:1", "b:1"], HedgeOptions::default()).retry(at_once(3)).build().unwrap();
    let explained = client.explain();
    assert_eq!(explained.worst_case.attempts, 4);
    assert!(explained.settings.iter().any(|setting| setting.layer == "hedge" && setting.option == "hedge"));
}

/// Wants the first endpoint.
struct First;

impl mainstay::Describe<u32> for First {
    fn copy(&self, request: &mut u32) -> Option<u32> {
        Some(*request)
    }
    fn is_idempotent(&self, _: &u32) -> bool {
        true
    }
    fn endpoint<'a>(&self, _: &'a u32) -> Option<&'a str> {
        Some("a:1")
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_go_to_the_endpoint_that_it_names_is_sent_there_once() {
    let stage = Stage::default();
    let mut sticky = mainstay::balance::BalanceOptions::default();
    sticky.sticky = mainstay::balance::Sticky::Require;
    let client =
        hedged(&stage, &["a:1", "b:1"], after(ms(5))).describe(First).balance(sticky).build().unwrap();
    settle_in(&client).await;
    stage.server("a:1").set(Mode::Answer(ms(50)));
    for _ in 0..5 {
        assert_eq!(client.send(0).await.unwrap(), "a:1");
    }
    assert_eq!((stage.server("a:1").served(), stage.server("b:1").served()), (5, 0));
    assert_eq!(client.status().hedges, 0);
}
