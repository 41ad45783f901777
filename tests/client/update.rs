//! Options that are replaced while the client runs.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mainstay::{Reason, balance::Load, client::ClientOptions, resolve, telemetry::Event};

use crate::fleet::*;

fn options(change: impl FnOnce(&mut ClientOptions)) -> ClientOptions {
    let mut options = ClientOptions::default();
    change(&mut options);
    options
}

#[tokio::test(start_paused = true)]
async fn what_does_not_hold_together_changes_nothing_and_tells_every_mistake() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let before = client.options();
    let bad = options(|options| {
        options.deadline = Some(ms(100));
        options.balance.attempt_limit = Some(ms(200));
        options.retry.max_attempts = 11;
        options.budget.window = secs(5);
        options.balance.health.window = secs(5);
        options.balance.load = Load::PeakEwma { decay: secs(0) };
        options.balance.dials = 0;
    });
    let invalid = client.update(bad).unwrap_err();
    let mut fields: Vec<_> = invalid.problems().iter().map(|problem| problem.field.as_str()).collect();
    fields.sort_unstable();
    let expected = [
        "balance.attempt_limit",
        "balance.dials",
        "balance.health.window",
        "balance.load.decay",
        "budget.window",
        "retry.max_attempts",
    ];
    assert_eq!(fields, expected, "{invalid}");
    assert_eq!(client.options(), before);
    assert_eq!(client.status().budget_available, 1);
}

#[tokio::test(start_paused = true)]
async fn a_good_one_acts_on_the_next_request_and_keeps_all_state() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1", "b:1", "c:1"]));
    eject(&stage, &client, "a:1").await;
    let before = client.status();
    client
        .update(options(|options| {
            options.deadline = Some(ms(5));
            options.retry.max_attempts = 1;
            options.budget.reserve = 50;
        }))
        .unwrap();
    let after = client.status();
    assert_eq!(after.budget_available, before.budget_available + 49);
    assert_eq!((after.successes, after.retries), (before.successes, before.retries));
    for (before, after) in before.balance.endpoints.iter().zip(&after.balance.endpoints) {
        assert_eq!((before.state, before.since), (after.state, after.since));
        assert_eq!((before.successes, before.failures), (after.successes, after.failures));
        assert_eq!(before.estimate, after.estimate);
    }
    // They answer after 10 ms.
    assert_eq!(reason(&client.send(0).await), Some(Reason::Deadline));
    assert_eq!(client.status().retries, before.retries);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_keeps_its_deadline() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(secs(2)));
    let client = client(&stage, resolve::fixed(["a:1"]));
    let request = tokio::spawn(client.send(0));
    settle().await;
    client.update(options(|options| options.deadline = Some(secs(1)))).unwrap();
    request.await.unwrap().unwrap();
    assert_eq!(reason(&client.send(0).await), Some(Reason::Deadline));
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_update_again() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let own: Arc<OnceLock<Client>> = Arc::default();
    let (handle, told) = (own.clone(), Arc::new(AtomicUsize::new(0)));
    let count = told.clone();
    client.observe(move |_: &str, event: &Event| {
        if let (Event::Updated, Some(client), 0) = (event, handle.get(), count.fetch_add(1, SeqCst)) {
            assert_eq!(client.options().deadline, Some(secs(1)));
            client.update(options(|options| options.deadline = Some(secs(2)))).unwrap();
        }
    });
    own.set(client.clone()).unwrap();
    client.update(options(|options| options.deadline = Some(secs(1)))).unwrap();
    assert_eq!((client.options().deadline, told.load(SeqCst)), (Some(secs(2)), 2));
}
