//! Limits for each endpoint that are found out.

use mainstay::limit::{
    Algorithm,
    control::{AimdOptions, EbbOptions},
};

use crate::stage::*;

#[tokio::test(start_paused = true)]
async fn each_endpoint_has_a_limit_of_its_own_and_a_full_one_is_given_nothing() {
    let stage = Stage::default();
    let aimd = Algorithm::Aimd(AimdOptions::default().range(2, 1, 50));
    let balance = stage
        .builder(mainstay::resolve::fixed(["a:1", "b:1"]))
        .options(options(|options| options.limit = Some(aimd)))
        .build()
        .unwrap();
    balance.ready().await.unwrap();
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(100)));
    }
    let calls: Vec<_> = (0..6).map(|n| tokio::spawn(balance.send(n))).collect();
    settle().await;
    for name in ["a:1", "b:1"] {
        assert_eq!((stage.server(name).active(), status(&balance, name).limit), (2, Some(2)));
    }
    assert_eq!(balance.status().waiting, 2);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(balance.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_asks_to_be_left_alone_gets_narrower_and_those_that_are_used_wider() {
    let stage = Stage::default();
    let aimd = Algorithm::Aimd(AimdOptions::default().range(20, 1, 50));
    let balance = stage
        .builder(mainstay::resolve::fixed(["a:1", "b:1"]))
        .options(options(|options| options.limit = Some(aimd)))
        .build()
        .unwrap();
    stage.server("a:1").set(Mode::BackOff(Some(ms(1))));
    stage.server("b:1").set(Mode::Answer(ms(100)));
    for second in 0..6 {
        let calls: Vec<_> = (0..60).map(|n| tokio::spawn(balance.send(second * 100 + n))).collect();
        for call in calls {
            let _ = call.await;
        }
        tokio::time::sleep(ms(900)).await;
    }
    let limit = |name| status(&balance, name).limit.unwrap();
    assert!(limit("a:1") < 20 && limit("b:1") > 20, "{} and {}", limit("a:1"), limit("b:1"));
}

#[tokio::test(start_paused = true)]
async fn a_wider_endpoint_wakes_those_who_wait_and_attempts_given_up_count() {
    let stage = Stage::default();
    let ebb = Algorithm::Ebb(EbbOptions::default().range(30, 1, 100));
    let balance = stage
        .builder(mainstay::resolve::fixed(["a:1"]))
        .options(options(|options| {
            options.limit = Some(ebb);
            options.attempt_limit = Some(ms(200));
        }))
        .build()
        .unwrap();
    balance.ready().await.unwrap();
    stage.server("a:1").set(Mode::Answer(ms(20)));
    for n in 0..2_000 {
        tokio::spawn(balance.send(n));
        tokio::time::sleep(ms(1)).await;
    }
    assert_eq!(balance.status().waiting, 0);
    let before = status(&balance, "a:1").limit.unwrap();
    // From now on it hangs: everything is cut off.
    stage.server("a:1").set(Mode::Hang);
    for n in 0..2_000 {
        tokio::spawn(balance.send(n));
        tokio::time::sleep(ms(1)).await;
    }
    let after = status(&balance, "a:1").limit.unwrap();
    assert!(after < before / 2, "{before}, then {after}");
}

#[test]
fn the_algorithm_cannot_be_changed_while_it_runs() {
    let stage = Stage::default();
    let balance = stage.client(mainstay::resolve::fixed(["a:1"]));
    let invalid = balance.update(options(|options| options.limit = Some(Algorithm::adaptive()))).unwrap_err();
    assert_eq!(invalid.problems()[0].field, "limit");
}

#[derive(Debug, Default)]
struct Body(Option<mainstay::track::Guard>);

struct InBody;

impl mainstay::Track<Body> for InBody {
    fn track(&self, response: &mut Body, guard: mainstay::track::Guard) {
        response.0 = Some(guard);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_grows_where_bodies_last_longer_than_heads() {
    let balance = mainstay::balance::Balance::builder(mainstay::resolve::fixed(["a:1", "b:1"]))
        .connect(|_: &mainstay::Endpoint| {
            tower::service_fn(|_: u32| async {
                tokio::time::sleep(ms(10)).await;
                Ok::<_, tower::BoxError>(Body::default())
            })
        })
        .track(InBody)
        .options(options(|options| options.limit = Some(Algorithm::adaptive())))
        .build()
        .unwrap();
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let balance = balance.clone();
            tokio::spawn(async move {
                loop {
                    let body = balance.send(number).await;
                    tokio::time::sleep(ms(30)).await;
                    drop(body);
                }
            })
        })
        .collect();
    tokio::time::sleep(secs(40)).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    for endpoint in balance.status().endpoints {
        assert!(endpoint.limit > Some(30), "{:?}", endpoint.limit);
    }
}
