//! Views: other wishes, the same client.

use mainstay::{Reason, describe::NotIdempotent, resolve};

use crate::fleet::*;

#[tokio::test(start_paused = true)]
async fn views_share_endpoints_health_budget_and_counters() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).budget(reserve(3)).build().unwrap();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    stage.server("b:1").set(Mode::Fail(ms(1)));
    let view = client.method("GetUser").max_attempts(2).deadline(secs(1));
    for _ in 0..3 {
        assert!(view.send(0).await.is_err());
    }
    assert_eq!((client.status().retries, client.status().budget_available), (3, 0));
    assert_eq!((client.status().failures, view.status().failures), (3, 3));
    let failures =
        |client: &Client| client.status().balance.endpoints.iter().map(|row| row.failures).sum::<u64>();
    assert_eq!((failures(&client), failures(&view)), (6, 6));
    assert_eq!(stage.server("a:1").made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_view_overrides_what_the_description_says() {
    for (view, sent) in [(None, 1), (Some(true), 3), (Some(false), 1)] {
        let stage = Stage::default();
        stage.server("a:1").set(Mode::Fail(ms(1)));
        let client = builder(&stage, resolve::fixed(["a:1"]))
            .describe(NotIdempotent)
            .budget(reserve(100))
            .build()
            .unwrap();
        let client = match view {
            Some(true) => client.idempotent(),
            Some(false) => client.idempotent().not_idempotent(),
            None => client,
        };
        assert!(client.send(0).await.is_err());
        assert_eq!(stage.server("a:1").served(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_may_ask_for_another_number_of_attempts() {
    for (attempts, sent) in [(0, 1), (1, 1), (2, 2), (6, 6), (10, 10), (u32::MAX, 10)] {
        let stage = Stage::default();
        stage.server("a:1").set(Mode::Fail(ms(1)));
        let client =
            builder(&stage, resolve::fixed(["a:1"])).retry(at_once(3)).budget(reserve(29)).build().unwrap();
        let view = client.max_attempts(attempts);
        assert!(view.send(0).await.is_err());
        assert_eq!(stage.server("a:1").served(), sent, "{attempts}");
        assert_eq!(view.explain().worst_case.attempts, attempts.clamp(1, 10));
    }
}

#[tokio::test(start_paused = true)]
async fn wishes_add_up_and_leave_the_client_alone() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let client = client(&stage, resolve::fixed(["a:1"]));
    let view = client.clone().deadline(ms(200)).method("GetUser").max_attempts(1);
    assert_eq!(reason(&view.send(0).await), Some(Reason::Deadline));
    assert_eq!(reason(&client.max_attempts(1).send(0).await), Some(Reason::AttemptTimeout));
}
