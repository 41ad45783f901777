//! What lets requests in: a rate, and a throttle.

use mainstay::{
    Reason,
    describe::Criticality,
    limit::{rate::RateLimitOptions, throttle::ThrottleOptions},
    resolve,
};

use crate::fleet::*;

fn ten() -> RateLimitOptions {
    RateLimitOptions::default().rate(10, secs(1)).burst(2)
}

#[tokio::test(start_paused = true)]
async fn all_views_keep_to_one_rate_and_a_refusal_says_when_to_come_back() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1"])).rate(ten()).build().unwrap();
    client.ready().await.unwrap();
    assert_eq!(client.status().rate_available, Some(2));
    assert!(client.send(1).await.is_ok() && client.method("other").send(1).await.is_ok());
    let refused = client.send(1).await.unwrap_err();
    let error = mainstay::Error::find(&*refused).unwrap();
    assert_eq!((error.reason(), error.client()), (Reason::RateLimit, Some("users")));
    assert_eq!(error.retry_after(), Some(ms(80)), "two requests took 10 ms each");
    assert_eq!((client.status().failures, stage.server("a:1").served()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_wait_for_its_turn_within_its_deadline_and_retries_take_nothing() {
    let stage = Stage::default();
    let patient = ten().burst(1).max_wait(secs(1));
    let client = builder(&stage, resolve::fixed(["a:1"]))
        .rate(patient)
        .budget(reserve(9))
        .retry(every(ms(1), 3))
        .build()
        .unwrap();
    client.ready().await.unwrap();
    stage.server("a:1").set(Mode::Fail(ms(1)));
    assert!(client.send(1).await.is_err());
    assert_eq!(client.status().retries, 2);
    stage.server("a:1").set(Mode::Answer(ms(1)));
    let start = now();
    assert_eq!(reason(&client.clone().deadline(ms(20)).send(1).await), Some(Reason::RateLimit));
    assert_eq!(now(), start);
    assert!(client.send(1).await.is_ok());
    assert!(now() - start > ms(90) && now() - start < ms(110));
}

#[tokio::test(start_paused = true)]
async fn what_the_servers_turn_away_is_kept_back_the_least_important_first() {
    let stage = Stage::default();
    let client = builder(&stage, resolve::fixed(["a:1", "b:1"]))
        .throttle(ThrottleOptions::default().window(secs(10)))
        .retry(at_once(1))
        .build()
        .unwrap();
    assert_eq!(client.status().throttled, Some(0.0));
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::BackOff(Some(ms(1))));
    }
    let mut refused = [0; 2];
    for _ in 0..300 {
        for (class, refused) in
            [Criticality::Sheddable, Criticality::CriticalPlus].into_iter().zip(&mut refused)
        {
            let scope = mainstay::context::Inherited::default().with_criticality(class);
            let result = mainstay::context::scope(scope, client.send(1)).await;
            *refused += u32::from(reason(&result) == Some(Reason::Throttled));
            tokio::time::sleep(ms(2)).await;
        }
    }
    assert!(refused[0] > 250 && refused[1] < refused[0], "{refused:?}");
    for name in ["a:1", "b:1"] {
        stage.server(name).set(Mode::Answer(ms(1)));
    }
    tokio::time::sleep(secs(11)).await;
    assert_eq!((load(&client, 1, 100).await, client.status().throttled), (0, Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn they_can_be_changed_while_the_client_runs() {
    let stage = Stage::default();
    let client = client(&stage, resolve::fixed(["a:1"]));
    let mut options = client.options();
    (options.rate, options.throttle) = (Some(ten()), Some(ThrottleOptions::default()));
    client.update(options.clone()).unwrap();
    assert_eq!(load(&client, 4, 4).await, 2);
    options.throttle = Some(ThrottleOptions::default().window(secs(5)));
    assert_eq!(client.update(options.clone()).unwrap_err().problems()[0].field, "throttle.window");
    (options.rate, options.throttle) = (None, None);
    client.update(options).unwrap();
    assert_eq!(load(&client, 4, 40).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_that_was_turned_off_comes_back_with_its_window_or_not_at_all() {
    let stage = Stage::default();
    let throttle = ThrottleOptions::default().window(secs(2));
    let client = builder(&stage, resolve::fixed(["a:1"])).throttle(throttle.clone()).build().unwrap();
    let set = |throttle: Option<ThrottleOptions>| {
        let mut options = client.options();
        options.throttle = throttle;
        client.update(options)
    };
    set(None).unwrap();
    let invalid = set(Some(throttle.clone().window(secs(120)))).unwrap_err();
    let problem = &invalid.problems()[0];
    assert_eq!((problem.field.as_str(), problem.value.as_str()), ("throttle.window", "120s"));
    assert!(problem.rule.contains("2s") && client.options().throttle.is_none());
    set(Some(throttle)).unwrap();
}
