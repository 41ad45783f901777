//! Retries, refusals and the budget, through the client.

use mainstay::{
    Error, Ratio, Reason, balance::BalanceOptions, budget::Budget, clock, outcome::Sent, resolve,
    resolve::Resolution,
};

use crate::fleet::*;

#[tokio::test(start_paused = true)]
async fn what_fails_at_one_endpoint_succeeds_at_another() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    let client = client(&stage, resolve::fixed(["a:1", "b:1", "c:1"]));
    for _ in 0..50 {
        client.send(0).await.unwrap();
    }
    let status = client.status();
    assert_eq!((status.successes, status.failures), (50, 0));
    assert_eq!(status.retries as usize, stage.server("a:1").served());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_client_itself_is_not_retried() {
    let stage = Stage::default();
    let (feed, channel) = resolve::channel();
    let client = client(&stage, channel);
    feed.send(Resolution::Absent);
    assert_eq!(reason(&client.send(0).await), Some(Reason::Absent));
    feed.set(["a:1"]);
    settle().await;
    client.send(0).await.unwrap();
    stage.server("a:1").set(Mode::BackOff(Some(secs(60))));
    let asked = client.not_idempotent();
    assert!(asked.send(0).await.is_err());
    let refused = asked.clone().idempotent().send(0).await;
    assert_eq!(reason(&refused), Some(Reason::BackingOff));
    asked.close(ms(0)).await;
    let closed = asked.idempotent();
    let refused = closed.send(0).await.unwrap_err();
    let ours = Error::find(&*refused).unwrap();
    assert_eq!((ours.reason(), ours.sent(), ours.client()), (Reason::Closed, Sent::No, Some("users")));
    let status = closed.status();
    assert_eq!((status.retries, status.budget_exhausted), (0, 0));
    assert_eq!(status.failures, 4);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_as_its_only_endpoint_has_asked_finds_it_there() {
    for wait in [1, 50, 1_000] {
        let stage = Stage::default();
        let client = client(&stage, resolve::fixed(["a:1"]));
        client.send(0).await.unwrap();
        stage.server("a:1").set(Mode::BackOff(Some(ms(wait))));
        let before = clock::now();
        let sent = tokio::spawn(client.send(0));
        settle().await;
        stage.server("a:1").set(Mode::Answer(ms(0)));
        sent.await.unwrap().unwrap();
        assert!(clock::now() - before <= ms(wait + 5));
        assert_eq!(client.status().retries, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_available_and_fail_closed_there_is_one_refusal() {
    let stage = Stage::default();
    let mut options = mainstay::balance::BalanceOptions::default();
    options.panic = mainstay::balance::Panic::FailClosed;
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"])).balance(options).build().unwrap();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    stage.server("b:1").set(Mode::Fail(ms(1)));
    let view = client.clone().max_attempts(1);
    load(&view, 1, 30).await;
    let served: usize = stage.served().iter().sum();
    let error = client.send(0).await.unwrap_err();
    assert_eq!(Error::find(&*error).map(Error::reason), Some(Reason::NoEndpoint));
    assert_eq!(stage.served().iter().sum::<usize>(), served);
    assert_eq!(client.status().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn the_retry_of_a_failed_probe_costs_nothing() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1", "c:1"])).budget(reserve(0)).build().unwrap();
    eject(&stage, &client, "a:1").await;
    let (failures, served) = (client.status().failures, stage.server("a:1").served());
    tokio::time::sleep(secs(10)).await;
    assert_eq!(load(&client, 1, 10).await, 0, "the request that is the probe is answered elsewhere");
    assert_eq!(stage.server("a:1").served(), served + 1);
    let status = client.status();
    assert_eq!((status.failures, status.retries), (failures, 1));
}

#[tokio::test(start_paused = true)]
async fn at_total_failure_the_load_is_what_it_was_and_the_reserve() {
    for clients in [1, 10, 100] {
        let stage = Stage::default();
        for name in ["a:1", "b:1", "c:1"] {
            stage.server(name).set(Mode::Fail(ms(5)));
        }
        let clients: Vec<_> =
            (0..clients).map(|_| client(&stage, resolve::fixed(["a:1", "b:1", "c:1"]))).collect();
        let start = clock::now();
        let rounds = 200;
        for _ in 0..rounds {
            let all = clients.iter().map(|client| client.send(0));
            assert!(futures::future::join_all(all).await.iter().all(Result::is_err));
            tokio::time::sleep(ms(90)).await;
        }
        let lasted = clock::now().saturating_duration_since(start).as_secs() as usize;
        let (asked, served) = (clients.len() * rounds, stage.served().iter().sum::<usize>());
        // One in ten seconds for each client, and the requests that were probes.
        let allowed = clients.len() * (lasted / 10 + 1);
        let budgeted: u64 = clients.iter().map(|client| client.status().retries).sum();
        assert_eq!(served, asked + budgeted as usize);
        let probes = clients.len() * 3 * 3;
        assert!(served - asked <= allowed + probes, "{served} of {asked} in {lasted} s");
        assert!((served as f64) < asked as f64 * 1.06, "{served} of {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_any_failure_rate_the_load_is_at_most_a_fifth_higher() {
    for clients in [1, 10, 100_u32] {
        let stage = Stage::default();
        let mut options = mainstay::balance::BalanceOptions::default();
        // Ejection would end the failures.
        options.health.enabled = false;
        options.load = mainstay::balance::Load::InFlight;
        stage.server("a:1").set(Mode::Fail(ms(5)));
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                let builder = builder(&stage, resolve::fixed(["a:1", "b:1"]));
                builder.balance(options.clone()).build().unwrap()
            })
            .collect();
        let rounds = 20_000 / clients.len();
        for _ in 0..rounds {
            futures::future::join_all(clients.iter().map(|client| client.send(0))).await;
        }
        let (asked, served) = (clients.len() * rounds, stage.served().iter().sum::<usize>());
        let seconds = 20 * rounds / 1_000 + 2;
        let reserve = clients.len() * (seconds / 10 + 1);
        assert!(served as f64 <= asked as f64 * 1.2 + reserve as f64, "{served} of {asked}");
        assert!(served as f64 >= asked as f64 * 1.05, "there was something to bound: {served} of {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_share_a_budget_share_its_reserve() {
    let stage = Stage::default();
    let budget = Budget::new(reserve(3)).unwrap();
    let make = |name| {
        stage.server(name).set(Mode::Fail(ms(1)));
        builder(&stage, resolve::fixed([name])).shared_budget(budget.clone()).build().unwrap()
    };
    let (users, orders) = (make("a:1"), make("b:1"));
    for _ in 0..4 {
        let _ = tokio::join!(users.send(0), orders.send(0));
    }
    assert_eq!(users.status().retries + orders.status().retries, 3);
    assert_eq!((users.status().budget_available, orders.status().budget_available), (0, 0));
    assert!(users.status().budget_exhausted > 0 && orders.status().budget_exhausted > 0);
    // What the options of one client say of its budget does not change the shared one.
    let mut options = users.options();
    options.budget.reserve = 100;
    options.budget.share = Ratio::ONE;
    users.update(options).unwrap();
    assert_eq!(budget.available(clock::now()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_works_again_after_any_idle_time() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    assert_eq!(load(&client, 10, 100).await, 0);
    assert_eq!(client.status().budget_available, 21);
    tokio::time::sleep(secs(400 * 24 * 3_600)).await;
    assert_eq!(client.status().budget_available, 1);
    assert_eq!(load(&client, 10, 100).await, 0);
    assert_eq!(client.status().budget_available, 21);
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_policy_that_fail_together_do_not_come_back_together() {
    let stage = Stage::default();
    let policy = mainstay::retry::RetryPolicy::default();
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            Client::builder("users")
                .resolve(resolve::fixed(["a:1"]))
                .connect(stage.connect())
                .describe(mainstay::describe::Idempotent)
                .retry(policy.clone())
                .build()
                .unwrap()
        })
        .collect();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    let start = clock::now();
    let ends = futures::future::join_all(clients.iter().map(|client| async move {
        let _ = client.clone().max_attempts(2).send(0).await;
        clock::now().saturating_duration_since(start)
    }))
    .await;
    let distinct: std::collections::BTreeSet<_> = ends.iter().collect();
    // Up to 25 ms, and a timer of a millisecond's resolution: by chance about 21 of 24 are drawn.
    assert!(distinct.len() >= 10, "{distinct:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_are_made_from_what_the_capacity_has_to_spare_where_that_is_asked() {
    for (bound, expected) in [(None, 20), (Some(Ratio::percent::<50>()), 0)] {
        let stage = Stage::default();
        let mut options = BalanceOptions::default();
        options.max_in_flight = Some(10);
        options.health.enabled = false;
        let client = builder(&stage, resolve::fixed(["a:1", "b:1"]))
            .balance(options)
            .retry(at_once(2).max_utilisation(bound))
            .budget(reserve(1_000))
            .build()
            .unwrap();
        for name in ["a:1", "b:1"] {
            stage.server(name).set(Mode::Hang);
        }
        client.ready().await.unwrap();
        // Twelve of twenty places are taken.
        let held: Vec<_> = (0..12).map(|_| tokio::spawn(client.send(0))).collect();
        settle().await;
        for name in ["a:1", "b:1"] {
            stage.server(name).set(Mode::Fail(ms(1)));
        }
        assert_eq!(load(&client, 1, 20).await, 20);
        assert_eq!(client.status().retries, expected, "{bound:?}");
        held.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::time::sleep(secs(1)).await;
        let before = client.status().retries;
        assert_eq!(load(&client, 1, 20).await, 20);
        assert_eq!(client.status().retries, before + 20, "now there is room");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_what_is_in_use_needs_to_know_what_there_is() {
    let policy = at_once(2).max_utilisation(Ratio::percent::<50>());
    let stage = Stage::default();
    let built = builder(&stage, resolve::fixed(["a:1"])).retry(policy).build();
    let told = built.unwrap_err().to_string();
    assert!(told.contains("retry.max_utilisation") && told.contains("needs a capacity"), "{told}");
}
