//! The total deadline.

use std::time::Duration;

use mainstay::{
    Reason,
    balance::BalanceOptions,
    clock,
    context::{self, Inherited},
    deadline::AttemptFit,
    resolve,
};

use crate::fleet::*;

async fn timed(client: &Client) -> (Reply, Duration) {
    let start = clock::now();
    let reply = client.send(0).await;
    (reply, clock::now().saturating_duration_since(start))
}

#[tokio::test(start_paused = true)]
async fn it_covers_the_wait_for_a_resolution() {
    let stage = Stage::default();
    let (_feed, channel) = resolve::channel();
    let (reply, took) = timed(&client(&stage, channel).deadline(secs(2))).await;
    assert_eq!((reason(&reply), took), (Some(Reason::Deadline), secs(2)));
}

#[tokio::test(start_paused = true)]
async fn it_covers_the_wait_for_an_endpoint() {
    let stage = Stage::default();
    stage.server("a:1").gate(Gate::Shut);
    let client = client(&stage, resolve::fixed(["a:1"]));
    let (reply, took) = timed(&client).await;
    assert_eq!((reason(&reply), took), (Some(Reason::Deadline), secs(10)));
    assert_eq!(stage.server("a:1").served(), 0);
    assert_eq!(client.status().balance.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn it_covers_all_attempts() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    stage.server("b:1").set(Mode::Hang);
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"]))
        .deadline(secs(1))
        .attempt_limit(ms(300))
        .retry(at_once(10))
        .budget(reserve(100))
        .build()
        .unwrap();
    let (reply, took) = timed(&client).await;
    assert_eq!((reason(&reply), took), (Some(Reason::Deadline), secs(1)));
    assert_eq!(stage.served().iter().sum::<usize>(), 4);
}

#[tokio::test(start_paused = true)]
async fn it_covers_the_waits_between_attempts_and_the_real_error_comes_at_once() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Fail(ms(100)));
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .deadline(secs(1))
        .retry(every(ms(400), 10))
        .budget(reserve(100))
        .build()
        .unwrap();
    let (reply, took) = timed(&client).await;
    assert_eq!(reply.unwrap_err().to_string(), "failed");
    // 100, 400, 100, and another 400 would end at the deadline.
    assert_eq!((took, stage.server("a:1").served()), (ms(600), 2));
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_the_own_and_the_inherited_one_wins() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Hang);
    let client = client(&stage, resolve::fixed(["a:1"])).deadline(secs(2));
    for (inherited, expected) in [(ms(500), ms(500)), (secs(5), secs(2))] {
        let inherited = Inherited::default().with_deadline(clock::now() + inherited);
        let (reply, took) = context::scope(inherited, timed(&client)).await;
        assert_eq!((reason(&reply), took), (Some(Reason::Deadline), expected));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_passed_touches_nothing() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    client.send(0).await.unwrap();
    let inherited = Inherited::default().with_deadline(clock::now());
    for reply in [
        client.clone().deadline(Duration::ZERO).send(0).await,
        context::scope(inherited, client.send(0)).await,
    ] {
        assert_eq!(reason(&reply), Some(Reason::Deadline));
    }
    assert_eq!(stage.server("a:1").served(), 1);
    assert_eq!((client.status().failures, client.status().retries), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn without_one_a_request_may_take_for_ever() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(secs(100_000)));
    let client = builder(&stage, resolve::fixed(["a:1"])).deadline(None).attempt_limit(None).build().unwrap();
    assert_eq!(timed(&client).await.1, secs(100_000));
    assert_eq!(client.explain().worst_case.time, None);
    let endless = client.deadline(Duration::MAX);
    assert_eq!(timed(&endless).await.1, secs(100_000));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_gets_an_equal_share_of_what_is_left_where_that_is_asked() {
    let stage = Stage::default();
    let names = ["a:1", "b:1", "c:1"];
    names.iter().for_each(|name| stage.server(name).set(Mode::Hang));
    let mut seen = Vec::new();
    for fit in [AttemptFit::Fixed, AttemptFit::share()] {
        let client = builder(&stage, resolve::fixed(names))
            .deadline(ms(900))
            .attempt_fit(fit)
            .retry(at_once(3))
            .budget(reserve(100))
            .build()
            .unwrap();
        let before: usize = stage.served().iter().sum();
        let (reply, took) = timed(&client).await;
        assert_eq!((reason(&reply), took), (Some(Reason::Deadline), ms(900)), "the last gets what is left");
        seen.push(stage.served().iter().sum::<usize>() - before);
    }
    assert_eq!(seen, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_gets_all_that_is_left() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(800)));
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .deadline(ms(900))
        .attempt_fit(AttemptFit::share())
        .retry(at_once(3))
        .budget(reserve(100))
        .build()
        .unwrap();
    assert_eq!(reason(&timed(&client).await.0), Some(Reason::Deadline), "a third of it is too little");
    assert!(timed(&client.not_idempotent()).await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cut_off_by_what_attempts_take_where_that_is_asked() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(20)));
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .deadline(secs(10))
        .attempt_fit(AttemptFit::latency())
        .retry(at_once(1))
        .build()
        .unwrap();
    stage.server("a:1").set(Mode::Hang);
    assert_eq!(timed(&client).await.1, secs(3), "nothing is known: the most there may be");
    stage.server("a:1").set(Mode::Answer(ms(20)));
    for _ in 0..200 {
        timed(&client).await.0.unwrap();
    }
    stage.server("a:1").set(Mode::Hang);
    let (reply, took) = timed(&client).await;
    assert_eq!(reason(&reply), Some(Reason::AttemptTimeout));
    assert!((ms(180)..ms(220)).contains(&took), "{took:?} is not ten times the median");
}

/// A service that has become slower than any limit says would never be let answer again, if the limit went by answers
/// alone.
#[tokio::test(start_paused = true)]
async fn when_everything_slows_down_the_limit_gives_way() {
    let stage = Stage::default();
    stage.server("a:1").set(Mode::Answer(ms(20)));
    let mut options = BalanceOptions::default();
    options.health.enabled = false;
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .balance(options)
        .attempt_fit(AttemptFit::latency())
        .retry(at_once(1))
        .build()
        .unwrap();
    for _ in 0..500 {
        timed(&client).await.0.unwrap();
    }
    stage.server("a:1").set(Mode::Answer(ms(500)));
    let mut cut = 0;
    while timed(&client).await.0.is_err() {
        cut += 1;
        assert!(cut < 600, "still cut off after {cut} attempts");
    }
    for _ in 0..1_000 {
        timed(&client).await.0.unwrap();
    }
}
