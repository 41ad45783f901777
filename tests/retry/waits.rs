//! How long is waited before another attempt.

use std::time::Duration;

use mainstay::{
    Verdict,
    backoff::{Backoff, Jitter},
    clock,
    context::{self, Inherited},
    outcome::{Again, Sent},
    random::{Random, Seeded},
    retry::RetryPolicy,
};
use tower::{Layer as _, ServiceExt as _};

use crate::server::{Answer, MS, Server, Test, layer, request};

#[tokio::test(start_paused = true)]
async fn the_servers_word_on_when_is_kept_exactly() -> Test {
    for millis in [0, 1, 999, 2_000, 3_600_000] {
        let wait = MS * millis;
        for verdict in [Verdict::back_off(Some(wait)), Verdict::failure().again(Again::After(wait))] {
            let server = Server::answers([Answer::Bad(verdict)]);
            layer(RetryPolicy::default())?.layer(server.clone()).oneshot(request(1)).await?;
            assert_eq!(server.gaps(), [wait]);
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_all_measure_is_no_panic_and_does_not_fit_any_deadline() -> Test {
    let server = Server::answers([Answer::Bad(Verdict::back_off(Some(Duration::MAX)))]);
    let service = layer(RetryPolicy::default())?.layer(server.clone());
    let start = clock::now();
    let inherited = Inherited::default().with_deadline(start + MS * 86_400_000);
    assert!(context::scope(inherited, service.oneshot(request(1))).await.is_err());
    assert_eq!((server.count(), clock::now()), (1, start));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waits_are_those_of_the_backoff() -> Test {
    let backoff = Backoff::exponential(MS * 10).cap(MS * 35).jitter(Jitter::None);
    let server = Server::failing();
    let policy = RetryPolicy::default().max_attempts(5).backoff(backoff);
    let _ = layer(policy)?.layer(server.clone()).oneshot(request(1)).await;
    assert_eq!(server.gaps(), [MS * 10, MS * 20, MS * 35, MS * 35]);
    Ok(())
}

/// The highest draw, always.
struct Highest;

impl Random for Highest {
    fn next(&self) -> u64 {
        u64::MAX
    }
}

#[tokio::test(start_paused = true)]
async fn a_decorrelated_wait_grows_with_the_one_before() -> Test {
    let policy = RetryPolicy::default().max_attempts(5).backoff(Backoff::decorrelated(MS * 10, MS * 500));
    let server = Server::failing();
    let _ = layer(policy)?.random(Highest).layer(server.clone()).oneshot(request(1)).await;
    // The highest draw lies a hair below the ceiling, and timers round up to a millisecond.
    assert_eq!(server.gaps(), [MS * 30, MS * 90, MS * 270, MS * 500]);
    Ok(())
}

/// The waits of a hundred requests that fail at the same time, by the default policy.
async fn waits() -> Result<Vec<Vec<Duration>>, tower::BoxError> {
    let layer = layer(RetryPolicy::default())?;
    let calls = (0..100).map(|id| {
        let server = Server::failing();
        let call = layer.layer(server.clone()).oneshot(request(id));
        async move {
            let _ = call.await;
            server.gaps()
        }
    });
    Ok(futures::future::join_all(calls).await)
}

#[tokio::test(start_paused = true)]
async fn every_wait_lies_in_its_documented_range() -> Test {
    for waits in waits().await? {
        // Timers round up to a millisecond.
        assert!(waits.len() == 2 && waits[0] <= MS * 26 && waits[1] <= MS * 51, "{waits:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_do_not_come_back_together() -> Test {
    let mut first: Vec<_> = waits().await?.into_iter().map(|waits| waits[0]).collect();
    first.sort();
    let most = first.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(most < Some(20), "{first:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_the_waits() -> Test {
    let mut seen = Vec::new();
    for seed in [1, 1, 2] {
        let server = Server::failing();
        let layer = layer(RetryPolicy::default().max_attempts(6))?.random(Seeded::new(seed));
        let _ = layer.layer(server.clone()).oneshot(request(1)).await;
        seen.push(server.gaps());
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_processed_goes_out_again_without_a_wait() -> Test {
    for sent in [Sent::No, Sent::Refused] {
        let server = Server::answers([Answer::Bad(Verdict::failure().sent(sent))]);
        layer(RetryPolicy::default())?.layer(server.clone()).oneshot(request(1)).await?;
        assert_eq!(server.gaps(), [Duration::ZERO]);
    }
    Ok(())
}

#[test]
fn a_policy_that_makes_no_sense_is_told_with_all_that_is_wrong() {
    let backoff = Backoff::exponential(MS * 10).cap(MS).factor(0.5);
    let policy = RetryPolicy::default().max_attempts(0).backoff(backoff);
    let invalid = layer(policy).expect_err("three mistakes");
    let fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["max_attempts", "backoff.factor", "backoff.cap"]);
    assert!(layer(RetryPolicy::default().max_attempts(11)).is_err());
}
