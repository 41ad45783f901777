//! What the client tells of itself while it works.

use mainstay::{client::ClientStatus, resolve, telemetry::Event};

use crate::fleet::*;

fn total(status: &ClientStatus) -> u64 {
    status.successes + status.failures + status.cancelled
}

#[tokio::test(start_paused = true)]
async fn successes_failures_and_cancellations_are_all_the_requests() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1", "b:1"]));
    load(&client, 5, 100).await;
    stage.server("a:1").set(Mode::Fail(ms(1)));
    stage.server("b:1").set(Mode::Fail(ms(1)));
    let failed = load(&client.clone().max_attempts(1), 5, 50).await;
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Hang);
    for _ in 0..7 {
        assert!(tokio::time::timeout(ms(20), client.send(0)).await.is_err());
    }
    let status = client.status();
    assert_eq!((status.successes, status.failures, status.cancelled), (100, failed as u64, 7));
    assert_eq!(total(&status), 157);
    let rows = &status.balance.endpoints;
    assert_eq!(rows.iter().map(|row| row.successes).sum::<u64>(), 100);
    assert_eq!(rows.iter().map(|row| row.failures).sum::<u64>(), 50);
    assert_eq!(rows.iter().map(|row| row.cancelled).sum::<u64>(), 7);
    assert!(rows.iter().all(|row| row.in_flight == 0));
    assert_eq!((&*status.label, &*status.balance.label), ("users", "users"));
}

#[tokio::test(start_paused = true)]
async fn latencies_are_those_of_whole_requests_that_succeeded() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).retry(every(ms(100), 3)).build().unwrap();
    load(&client, 1, 100).await;
    let status = client.status();
    assert_eq!(status.latency.count, 100);
    let median = status.latency.p50.unwrap();
    assert!(median.abs_diff(ms(10)) <= ms(10) / 16, "{median:?}");
    assert!(status.balance.endpoints[0].p50.unwrap().abs_diff(ms(10)) <= ms(10) / 16);
    // One that fails first takes its first attempt, the wait and its second.
    stage.server("a:1").set(Mode::Fail(ms(10)));
    let request = tokio::spawn(client.send(0));
    tokio::time::sleep(ms(50)).await;
    stage.server("a:1").set(Mode::Answer(ms(10)));
    request.await.unwrap().unwrap();
    let slowest = client.status().latency.p999.unwrap();
    assert!(slowest.abs_diff(ms(120)) <= ms(120) / 16, "{slowest:?}");
    assert_eq!(client.status().latency.count, 101);
    tokio::time::sleep(secs(61)).await;
    assert_eq!(client.status().latency.count, 0);
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_in_order() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client =
        builder(&stage, resolve::fixed(["a:1", "b:1", "c:1"])).observe(heard.observer()).build().unwrap();
    let late = Heard::default();
    load(&client, 4, 20).await;
    client.observe(late.observer());
    eject(&stage, &client, "a:1").await;
    stage.server("a:1").set(Mode::Answer(ms(10)));
    tokio::time::sleep(secs(10)).await;
    load(&client, 4, 20).await;
    client.update(client.options()).unwrap();
    client.close(secs(1)).await;
    let kinds = |heard: &Heard| heard.all().iter().map(Event::kind).collect::<Vec<_>>();
    let expected = ["resolved", "resolution_ended", "ejected", "probation", "restored", "updated", "closed"];
    assert_eq!(kinds(&heard), expected);
    assert_eq!(kinds(&late), expected[2..]);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_harms_nobody() {
    let stage = Stage::default();
    let heard = Heard::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1", "c:1"]))
        .observe(|_: &str, event: &Event| panic!("{event}"))
        .observe(heard.observer())
        .build()
        .unwrap();
    eject(&stage, &client, "a:1").await;
    assert_eq!(load(&client, 4, 100).await, 0);
    client.update(client.options()).unwrap();
    assert!(client.close(secs(1)).await);
    assert_eq!((heard.count("ejected"), heard.count("updated"), heard.count("closed")), (1, 1, 1));
}
