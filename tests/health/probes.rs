//! The request that decides over an endpoint's return, of a client that sends it elsewhere if it fails.

use mainstay::{
    balance::Load,
    client::ClientBuilder,
    describe::Idempotent,
    health::{State, Trip},
    hedge::HedgeOptions,
    outcome::Verdict,
    random::Seeded,
    resolve,
    retry::RetryPolicy,
    track::Guard,
};

use crate::stage::{Conn, Ends, Gate, Mode, Stage, ms, now, secs, settle};

type Client = mainstay::Client<Conn, u32>;

fn builder(stage: &Stage, attempts: u32) -> ClientBuilder<Conn, u32> {
    Client::builder("users")
        .resolve(resolve::fixed(["a:1", "b:1", "c:1", "d:1"]))
        .connect(stage.connect())
        .describe(Idempotent)
        .balance(crate::stage::options(|options| options.load = Load::InFlight))
        .retry(RetryPolicy::default().max_attempts(attempts))
        .random(Seeded::new(7))
}

fn state(client: &Client, name: &str) -> State {
    let status = client.status().balance;
    status.endpoints.iter().find(|row| &*row.name == name).unwrap().state
}

/// Sets an endpoint aside that fails from now on: after `seconds` it waits for a request.
fn eject(stage: &Stage, client: &Client, name: &str, seconds: u64) {
    stage.server(name).set(Mode::Fail(ms(1)));
    let identity = mainstay::Endpoint::new(name);
    assert!(client.endpoint(identity.identity()).unwrap().eject(Some(secs(seconds))));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_probe_of_one_endpoint_and_then_goes_to_one_that_is_known_to_be_good() {
    let stage = Stage::default();
    let client = builder(&stage, 3).build().unwrap();
    client.ready().await.unwrap();
    eject(&stage, &client, "a:1", 1);
    eject(&stage, &client, "b:1", 1);
    tokio::time::sleep(secs(1) + ms(5)).await;
    for probes in 1..=2 {
        assert!(client.send(0).await.is_ok());
        assert_eq!(stage.server("a:1").served() + stage.server("b:1").served(), probes);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_never_a_probe() {
    for (attempts, probes) in [(2, 0), (3, 1)] {
        let stage = Stage::default();
        let client = builder(&stage, attempts).build().unwrap();
        client.ready().await.unwrap();
        eject(&stage, &client, "a:1", 1);
        let set =
            |mode: Mode| ["b:1", "c:1", "d:1"].iter().for_each(|name| stage.server(name).set(mode.clone()));
        set(Mode::Fail(ms(200)));
        tokio::time::sleep(ms(900)).await;
        let request = tokio::spawn(client.send(0));
        settle().await;
        set(Mode::Answer(ms(1)));
        // Its first attempt fails when `a:1` waits for a probe already.
        assert!(request.await.unwrap().is_ok());
        assert_eq!(stage.server("a:1").served(), probes, "of {attempts} attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_hedged_and_not_retried_is_no_probe() {
    let stage = Stage::default();
    let client = builder(&stage, 1).hedge(HedgeOptions::default()).build().unwrap();
    client.ready().await.unwrap();
    eject(&stage, &client, "a:1", 1);
    tokio::time::sleep(secs(1) + ms(5)).await;
    for _ in 0..20 {
        assert!(client.send(0).await.is_ok());
    }
    assert_eq!(stage.server("a:1").served(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_its_caller_gives_up_after_overlong_is_a_failure() {
    let stage = Stage::default();
    let client = builder(&stage, 3).build().unwrap();
    for _ in 0..300 {
        client.send(0).await.unwrap();
    }
    eject(&stage, &client, "a:1", 1);
    stage.server("a:1").set(Mode::Hang);
    tokio::time::sleep(secs(1) + ms(5)).await;
    let before = stage.server("a:1").served();
    assert!(tokio::time::timeout(ms(100), client.send(0)).await.is_err());
    assert_eq!(stage.server("a:1").served(), before + 1);
    assert!(matches!(state(&client, "a:1"), State::Ejected { why: Trip::ByHand, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_probe_takes_no_longer_than_any_attempt_may() {
    let stage = Stage::default();
    let balance = crate::stage::options(|options| {
        (options.load, options.attempt_limit) = (Load::InFlight, Some(ms(200)));
    });
    let client = builder(&stage, 3).balance(balance).build().unwrap();
    client.ready().await.unwrap();
    eject(&stage, &client, "a:1", 1);
    stage.server("a:1").set(Mode::Hang);
    tokio::time::sleep(secs(1) + ms(5)).await;
    let start = now();
    assert!(client.send(0).await.is_ok());
    assert_eq!(stage.server("a:1").served(), 1);
    assert!(start.elapsed() >= ms(200) && start.elapsed() < ms(250), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_endpoint_that_is_not_ready_passes_to_the_next_request() {
    let stage = Stage::default();
    let client = builder(&stage, 3).build().unwrap();
    client.ready().await.unwrap();
    eject(&stage, &client, "a:1", 1);
    let a = stage.server("a:1");
    a.set(Mode::Answer(ms(1)));
    a.gate(Gate::Shut);
    tokio::time::sleep(secs(1) + ms(5)).await;
    for _ in 0..5 {
        assert_ne!(client.send(0).await.unwrap(), "a:1");
    }
    a.gate(Gate::Open);
    assert_eq!(client.send(0).await.unwrap(), "a:1");
    assert_eq!(state(&client, "a:1"), State::Available);
}

#[tokio::test(start_paused = true)]
async fn what_began_as_the_probe_goes_on_as_an_attempt_of_the_state_that_it_has_brought_about() {
    let (stage, ends) = (Stage::default(), Ends::default());
    let client = builder(&stage, 3).track(ends.clone()).build().unwrap();
    client.ready().await.unwrap();
    eject(&stage, &client, "a:1", 1);
    stage.server("a:1").set(Mode::Answer(ms(1)));
    ends.keep(true);
    tokio::time::sleep(secs(1) + ms(5)).await;
    assert_eq!(client.send(0).await.unwrap(), "a:1");
    assert_eq!(state(&client, "a:1"), State::Available);
    // Until it has its share again.
    tokio::time::sleep(secs(11)).await;
    while stage.server("a:1").served() < 5 {
        client.send(0).await.unwrap();
    }
    let of_a = |guard: &Guard| guard.endpoint().is_some_and(|name| &**name == "a:1");
    ends.take().into_iter().filter(of_a).for_each(|guard| guard.end(Verdict::failure()));
    assert!(matches!(state(&client, "a:1"), State::Ejected { why: Trip::Consecutive, .. }));
}
