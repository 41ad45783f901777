//! Which endpoint gets another attempt.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use mainstay::{
    Describe, Endpoint, Error, Ratio, Reason, Verdict,
    balance::{Balance, BalanceOptions, Load},
    budget::BudgetOptions,
    describe::Sending,
    outcome::Sent,
    random::Seeded,
    resolve,
    retry::RetryPolicy,
};
use tower::{Layer as _, ServiceExt as _};

use crate::server::{
    Answer, Believe, FAIL, MS, Request, Requests, Server, Test, at_once, layer, request, reserve,
};

/// A balancer over servers by name. None is ever ejected, and all look equally loaded: what is tried next is decided by
/// what was tried before, and by chance.
fn balance(servers: &[(&'static str, Server)]) -> Result<Balance<Server, Request>, mainstay::Invalid> {
    let mut options = BalanceOptions::default();
    options.health.enabled = false;
    options.load = Load::InFlight;
    let by_name: HashMap<String, Server> =
        servers.iter().map(|(name, server)| (name.to_string(), server.clone())).collect();
    Balance::builder(resolve::fixed(servers.iter().map(|(name, _)| *name)))
        .connect(move |endpoint: &Endpoint| by_name[&endpoint.address().to_string()].clone())
        .classify(Believe)
        .options(options)
        .random(Seeded::new(5))
        .build()
}

#[tokio::test(start_paused = true)]
async fn of_two_endpoints_the_second_attempt_goes_to_the_other() -> Test {
    let (good, bad) = (Server::answers([]), Server::failing());
    let service = layer(at_once(2))?.layer(balance(&[("good", good.clone()), ("bad", bad.clone())])?);
    for id in 0..200 {
        service.clone().oneshot(request(id)).await?;
    }
    assert_eq!(good.count(), 200);
    assert!((60..140).contains(&bad.count()), "{}", bad.count());
    assert!(bad.seen().iter().all(|seen| seen.attempt == 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn with_one_endpoint_it_is_tried_again() -> Test {
    let server = Server::answers([FAIL, FAIL]);
    let service = layer(at_once(3))?.layer(balance(&[("only", server.clone())])?);
    assert_eq!(service.oneshot(request(1)).await?, 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_is_tried_twice_while_another_was_not_tried() -> Test {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    for count in [3, 6, 10, 12] {
        let servers: Vec<_> = NAMES[..count].iter().map(|name| (*name, Server::failing())).collect();
        let service = layer(at_once(10))?.layer(balance(&servers)?);
        for round in 1..=30 {
            let _ = service.clone().oneshot(request(round)).await;
            for (name, server) in &servers {
                // As many attempts as there are endpoints: one each.
                let fresh = |seen: &&Request| seen.id == round && seen.attempt as usize <= count;
                let seen = server.seen().iter().filter(fresh).count();
                assert!(seen <= 1, "{name} of {count} was tried {seen} times by request {round}");
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_goes_elsewhere_at_once_and_free() -> Test {
    let unsent = Server::new(|_| Answer::Bad(Verdict::failure().sent(Sent::No)));
    let good = Server::answers([]);
    let layer = layer(RetryPolicy::default())?.budget(reserve(0)).describe(Requests { idempotent: false });
    let service = layer.layer(balance(&[("unsent", unsent.clone()), ("good", good.clone())])?);
    let start = mainstay::clock::now();
    for id in 0..100 {
        service.clone().oneshot(request(id)).await?;
    }
    assert_eq!(good.count(), 100);
    assert!(unsent.count() > 20);
    assert_eq!(mainstay::clock::now(), start);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asked_for_time_is_passed_over_by_the_retry() -> Test {
    let busy = Server::new(|_| Answer::Bad(Verdict::back_off(Some(MS * 100))));
    let good = Server::answers([]);
    let service = layer(at_once(2))?.layer(balance(&[("busy", busy.clone()), ("good", good.clone())])?);
    for id in 0..20 {
        service.clone().oneshot(request(id)).await?;
    }
    assert_eq!(good.count(), 20);
    Ok(())
}

/// Counts what is sent.
#[derive(Clone, Default)]
struct Sendings(Arc<AtomicU32>);

impl Describe<Request> for Sendings {
    fn copy(&self, request: &mut Request) -> Option<Request> {
        Some(*request)
    }

    fn is_idempotent(&self, _: &Request) -> bool {
        true
    }

    fn stamp(&self, _: &mut Request, _: &Sending) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_whole_balancer_is_final() -> Test {
    let sendings = Sendings::default();
    let service = layer(at_once(3))?.describe(sendings.clone()).layer(balance(&[])?);
    let error = tokio::time::timeout(MS * 60_000, service.oneshot(request(1))).await?.unwrap_err();
    assert_eq!(Error::find(&*error).map(Error::reason), Some(Reason::Absent));
    assert_eq!(sendings.0.load(SeqCst), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_hide_that_an_earlier_attempt_may_have_been_processed() -> Test {
    let ours = |sent| {
        tower::service_fn(move |request: Request| async move {
            let failed = Error::new(Reason::AttemptTimeout).with_sent(sent);
            let refused = Error::new(Reason::Closed);
            Err::<u32, tower::BoxError>(if request.attempt == 1 { failed } else { refused }.into())
        })
    };
    for sent in [Sent::Maybe, Sent::Refused] {
        let service = layer(at_once(3))?.layer(ours(sent));
        let error = service.oneshot(request(1)).await.unwrap_err();
        let found = Error::find(&*error).map(|error| (error.reason(), error.sent()));
        let told = if sent == Sent::Maybe { Sent::Maybe } else { Sent::No };
        assert_eq!(found, Some((Reason::Closed, told)));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_request_that_proves_an_endpoint_bad_goes_elsewhere_free() -> Test {
    let (good, bad) = (Server::answers([]), Server::failing());
    let (inner, broken) = (good.clone(), bad.clone());
    let balance = Balance::builder(resolve::fixed(["good", "bad"]))
        .connect(move |endpoint| match endpoint.address().to_string().as_str() {
            "bad" => broken.clone(),
            _ => inner.clone(),
        })
        .classify(Believe)
        .random(Seeded::new(5))
        .build()?;
    let budget = reserve(100);
    let service = layer(at_once(2))?.budget(budget.clone()).layer(balance.clone());
    let ejected = || balance.status().endpoints.iter().any(|endpoint| !endpoint.is_available());
    // Failures are penalised, so that it takes a while until there have been enough of them.
    for _ in 0..3_600 {
        if ejected() {
            break;
        }
        service.clone().oneshot(request(1)).await?;
        tokio::time::sleep(MS * 1_000).await;
    }
    assert!(ejected());
    let before = bad.count();
    budget.update(&BudgetOptions::default().share(Ratio::ZERO).reserve(0))?;
    for _ in 0..30 {
        service.clone().oneshot(request(2)).await?;
        tokio::time::sleep(MS * 1_000).await;
    }
    assert!(bad.count() > before, "it was never probed");
    Ok(())
}
