//! How often a request is sent, and which ones are.

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use mainstay::{
    Describe, Verdict, clock,
    context::{self, Inherited},
    outcome::{Again, Class, Sent},
    random::{Random as _, Seeded},
};
use tower::{Layer as _, ServiceExt as _};

use crate::server::{
    Answer, Bad, FAIL, MS, Request, Requests, Server, Test, at_once, bad_number, layer, request, reserve,
};

/// How often a request goes out, with plenty of budget and three attempts.
async fn sent(idempotent: bool, script: &[Answer]) -> Result<usize, tower::BoxError> {
    let server = Server::answers(script);
    let layer = layer(at_once(3))?.describe(Requests { idempotent });
    let _ = layer.layer(server.clone()).oneshot(request(1)).await;
    Ok(server.count())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_tried_as_often_as_the_policy_says_and_no_more() -> Test {
    for attempts in 1..=10 {
        let server = Server::failing();
        let result = layer(at_once(attempts))?.layer(server.clone()).oneshot(request(1)).await;
        assert_eq!(server.count(), attempts as usize);
        assert_eq!(bad_number(&result), Some(attempts), "the last answer is the caller's");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_succeeds_is_not_sent_again() -> Test {
    assert_eq!(sent(true, &[]).await?, 1);
    assert_eq!(sent(true, &[FAIL]).await?, 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_description_a_request_is_sent_once() -> Test {
    let server = Server::failing();
    let layer = layer(at_once(3))?.describe(mainstay::describe::Opaque);
    assert!(layer.layer(server.clone()).oneshot(request(1)).await.is_err());
    assert_eq!(server.count(), 1);
    Ok(())
}

/// Makes so many copies and no more, as a body does that has outgrown what is kept of it.
struct Copies(AtomicU32);

impl Describe<Request> for Copies {
    fn copy(&self, request: &mut Request) -> Option<Request> {
        let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.ok().map(|_| *request)
    }

    fn is_idempotent(&self, _: &Request) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_which_no_copy_can_be_made_is_not_sent() -> Test {
    for (copies, expected) in [(0, 1), (1, 1), (2, 2), (3, 3), (9, 4)] {
        let server = Server::failing();
        let layer = layer(at_once(4))?.describe(Copies(copies.into()));
        let result = layer.layer(server.clone()).oneshot(request(1)).await;
        assert_eq!((bad_number(&result), server.count()), (Some(expected), expected as usize));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_sent_again_only_if_idempotent() -> Test {
    assert_eq!(sent(false, &[FAIL]).await?, 1);
    assert_eq!(sent(false, &[Answer::Bad(Verdict::back_off(None))]).await?, 1);
    assert_eq!(sent(true, &[Answer::Bad(Verdict::back_off(None))]).await?, 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_free_and_does_not_count_as_an_attempt() -> Test {
    let unsent = Answer::Bad(Verdict::failure().sent(Sent::No));
    let server = Server::answers([unsent, unsent, unsent, unsent, FAIL, FAIL]);
    let result = layer(at_once(3))?.layer(server.clone()).oneshot(request(1)).await;
    assert_eq!((result.ok(), server.count()), (Some(7), 7));

    let server = Server::answers([unsent, unsent]);
    let poor = layer(at_once(3))?.budget(reserve(0)).describe(Requests { idempotent: false });
    let result = poor.layer(server.clone()).oneshot(request(1)).await;
    assert_eq!((result.ok(), server.gaps()), (Some(3), vec![Duration::ZERO; 2]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_sent_is_given_up() -> Test {
    let server = Server::new(|_| Answer::Bad(Verdict::failure().sent(Sent::No)));
    let result = layer(at_once(3))?.layer(server.clone()).oneshot(request(1)).await;
    assert_eq!((bad_number(&result), server.count()), (Some(5), 5));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refused_is_free_once_and_draws_on_the_budget_then() -> Test {
    for (budget, expected) in [(0, 2), (1, 3)] {
        let server = Server::new(|_| Answer::Bad(Verdict::failure().sent(Sent::Refused)));
        let layer = layer(at_once(5))?.budget(reserve(budget)).describe(Requests { idempotent: false });
        let _ = layer.layer(server.clone()).oneshot(request(1)).await;
        assert_eq!(server.count(), expected);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refused_on_the_last_attempt_is_sent_once_more() -> Test {
    let refused = Answer::Bad(Verdict::failure().sent(Sent::Refused));
    assert_eq!(sent(true, &[FAIL, FAIL, refused]).await?, 4);
    assert_eq!(sent(true, &[FAIL, FAIL, refused, FAIL]).await?, 4);
    assert_eq!(sent(true, &[refused, FAIL, FAIL]).await?, 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn never_means_never() -> Test {
    for verdict in [Verdict::failure(), Verdict::back_off(None), Verdict::failure().sent(Sent::No)] {
        assert_eq!(sent(true, &[Answer::Bad(verdict.again(Again::Never))]).await?, 1);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_sending_is_stamped_with_its_number_and_what_is_left_of_the_deadline() -> Test {
    let server = Server::answers([Answer::FailIn(MS * 30), Answer::FailIn(MS * 20)]);
    let service = layer(at_once(3))?.layer(server.clone());
    let inherited = Inherited::default().with_deadline(clock::now() + MS * 100);
    context::scope(inherited, service.oneshot(request(7))).await?;
    let stamps: Vec<_> = server.seen().iter().map(|seen| (seen.id, seen.attempt, seen.remaining)).collect();
    assert_eq!(stamps, [(7, 1, Some(MS * 100)), (7, 2, Some(MS * 70)), (7, 3, Some(MS * 50))]);
    Ok(())
}

/// Any verdict that a classifier can give, but success.
fn any_verdict(random: &Seeded) -> Verdict {
    let draw = |choices| random.next() % choices;
    let verdict = match draw(4) {
        0 => Verdict::back_off(None),
        1 => Verdict::inconclusive(),
        _ => Verdict::failure(),
    };
    let verdict = match draw(6) {
        0 => verdict.again(Again::Never),
        1 => verdict.again(Again::After(MS * draw(5_000) as u32)),
        _ => verdict,
    };
    verdict.sent([Sent::Maybe, Sent::No, Sent::Refused][draw(3) as usize])
}

/// Ten thousand requests, each against answers drawn at random, held against the rules as one would read them out.
#[tokio::test(start_paused = true)]
async fn no_script_breaks_a_rule() -> Test {
    let random = Seeded::new(11);
    for round in 0..10_000 {
        let script: Vec<Verdict> = (0..16).map(|_| any_verdict(&random)).collect();
        let (idempotent, attempts) = (random.next().is_multiple_of(2), (random.next() % 10 + 1) as u32);
        let server = Server::answers(script.iter().copied().map(Answer::Bad).collect::<Vec<_>>());
        let layer = layer(at_once(attempts))?.describe(Requests { idempotent });
        let result = layer.layer(server.clone()).oneshot(request(round)).await;
        let seen = &script[..server.count()];
        let (_, before) = seen.split_last().expect("it was sent");
        let context = format!("round {round}: {idempotent} {attempts} {seen:?}");

        let processed = seen.iter().filter(|verdict| verdict.was_sent() == Sent::Maybe).count();
        assert!(idempotent || processed <= 1, "{context}");
        let sent = seen.iter().filter(|verdict| verdict.was_sent() != Sent::No).count();
        let refused = before.iter().any(|verdict| verdict.was_sent() == Sent::Refused);
        assert!(sent <= attempts as usize + usize::from(refused), "{context}");
        assert!(seen.len() - sent <= 5, "{context}");
        assert!(before.iter().all(|verdict| verdict.may_repeat() != Again::Never), "{context}");
        let known =
            |verdict: &Verdict| verdict.was_sent() != Sent::Maybe || verdict.class() != Class::Inconclusive;
        assert!(before.iter().all(known), "{context}");
        // And it is the last answer that comes out.
        let error = result.expect_err("no answer was good");
        assert_eq!(error.downcast_ref::<Bad>().map(|bad| bad.number), Some(seen.len() as u32), "{context}");
    }
    Ok(())
}
