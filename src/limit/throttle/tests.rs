//! The formulas, by the number, and the layer.

use std::time::{Duration, Instant};

use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::{
    Error, Ratio, Reason, Verdict, clock,
    context::{self, Inherited},
    describe::Criticality,
    random::Seeded,
};

const SECOND: Duration = Duration::from_secs(1);

fn with(options: ThrottleOptions, accepted: u32, overloaded: u32) -> (Throttle, Instant) {
    let now = clock::now();
    let throttle = Throttle::new(options, now);
    (0..accepted).for_each(|_| throttle.ended(now, Answer::Accepted));
    (0..overloaded).for_each(|_| throttle.ended(now, Answer::Overloaded));
    (throttle, now)
}

#[test]
fn the_refused_share_is_googles() {
    for (accepted, overloaded, expected) in
        [(0, 0, 0.0), (100, 0, 0.0), (50, 50, 0.0), (25, 75, 50.0 / 101.0), (0, 100, 100.0 / 101.0)]
    {
        let (throttle, now) = with(ThrottleOptions::default(), accepted, overloaded);
        let share = throttle.probability(now);
        assert!((share - expected).abs() < 1e-12, "{accepted} of {}: {share}", accepted + overloaded);
    }
}

#[test]
fn the_refused_share_is_finagles() {
    let options = || ThrottleOptions::nack().window(SECOND * 10);
    for (accepted, overloaded, expected) in
        [(100, 0, 0.0), (50, 50, 0.0), (25, 75, 0.5), (0, 100, 0.75), (5, 44, 0.0), (10, 40, 0.6)]
    {
        let (throttle, now) = with(options(), accepted, overloaded);
        let share = throttle.probability(now);
        assert!((share - expected).abs() < 1e-12, "{accepted} of {}: {share}", accepted + overloaded);
    }
}

#[test]
fn what_is_refused_here_counts_among_the_requests_and_what_is_old_does_not() {
    let (throttle, now) = with(ThrottleOptions::default().window(SECOND * 10), 10, 90);
    let random = Seeded::new(1);
    let before = throttle.probability(now);
    let sent = (0..1_000).filter(|_| throttle.admit(now, Criticality::Critical, &random)).count();
    assert!(throttle.probability(now) > before);
    // It would go on to send twice what is accepted; none of these has an answer yet.
    assert!((10..200).contains(&sent), "{sent}");
    let later = now + SECOND * 10;
    assert_eq!(throttle.probability(later), 0.0);
    assert!((0..100).all(|_| throttle.admit(later, Criticality::Critical, &random)));
}

#[test]
fn a_server_sees_about_twice_what_it_accepts_and_its_recovery_is_noticed() {
    let now = clock::now();
    let throttle = Throttle::new(ThrottleOptions::default().window(SECOND * 10), now);
    let random = Seeded::new(3);
    let run = |seconds: std::ops::Range<u32>, capacity: u32| {
        let mut sent = 0;
        for second in seconds.clone() {
            let now = now + SECOND * second;
            let mut taken = 0;
            for _ in 0..1_000 {
                if throttle.admit(now, Criticality::Critical, &random) {
                    sent += 1;
                    taken += 1;
                    throttle
                        .ended(now, if taken <= capacity { Answer::Accepted } else { Answer::Overloaded });
                }
            }
        }
        f64::from(sent) / f64::from(seconds.end - seconds.start)
    };
    run(0..20, 100);
    let in_trouble = run(20..40, 100);
    assert!((150.0..260.0).contains(&in_trouble), "{in_trouble} a second for 100");
    run(40..60, 1_000);
    assert_eq!(run(60..70, 1_000), 1_000.0);
}

#[test]
fn the_least_important_go_first() {
    let (throttle, now) = with(ThrottleOptions::default(), 400, 800);
    let random = Seeded::new(5);
    let classes = [
        Criticality::Sheddable,
        Criticality::SheddablePlus,
        Criticality::Critical,
        Criticality::CriticalPlus,
    ];
    let mut sent = [0; 4];
    for _ in 0..500 {
        for (class, sent) in classes.iter().zip(&mut sent) {
            *sent += u32::from(throttle.admit(now, *class, &random));
        }
    }
    // At first a third is refused, and more with each refusal: the lowest of the four classes, then the next, a part of the
    // third, and nothing of the highest.
    assert!(sent[0] < 25 && sent[1] < sent[2] && sent[2] > 250 && sent[3] == 500, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn the_layer_refuses_by_name_and_failures_are_no_overload() {
    let classify = |result: Result<&u16, &BoxError>| match result {
        Ok(429) => Verdict::back_off(None),
        Ok(500) => Verdict::failure(),
        _ => Verdict::success(),
    };
    let layer = ThrottleLayer::new(ThrottleOptions::default()).unwrap().label("users").classify(classify);
    let layer = layer.random(Seeded::new(1));
    let service = layer.layer(service_fn(|status: u16| async move { Ok::<_, BoxError>(status) }));
    for _ in 0..200 {
        service.clone().oneshot(500).await.unwrap();
    }
    assert_eq!(layer.throttle().probability(clock::now()), 0.0);
    let mut refused = None;
    for _ in 0..2_000 {
        refused = service.clone().oneshot(429).await.err().or(refused);
    }
    let refused = refused.unwrap();
    let error = Error::find(&*refused).unwrap();
    assert_eq!((error.reason(), error.client()), (Reason::Throttled, Some("users")));
    let plus = Inherited::default().with_criticality(Criticality::CriticalPlus);
    assert!(context::scope(plus, service.oneshot(200)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn attempts_that_were_cut_off_are_overload_and_a_refusal_further_in_is_nothing() {
    let layer = ThrottleLayer::new(ThrottleOptions::default()).unwrap();
    for (reason, expected) in
        [(Reason::NoEndpoint, false), (Reason::Limit, false), (Reason::AttemptTimeout, true)]
    {
        let service = layer
            .layer(service_fn(move |(): ()| async move { Err::<u16, BoxError>(Error::new(reason).into()) }));
        assert!(service.oneshot(()).await.is_err());
        assert_eq!(layer.throttle().probability(clock::now()) > 0.0, expected, "{reason:?}");
    }
}

#[test]
fn its_options_are_checked_and_the_window_stays() {
    let layer = ThrottleLayer::new(ThrottleOptions::default()).unwrap();
    assert!(layer.update(ThrottleOptions::default().most(Ratio::percent::<90>())).is_ok());
    assert!(layer.update(ThrottleOptions::default().window(SECOND)).is_err());
    let wrong = ThrottleOptions::default().formula(Formula::Sre { factor: 0.5 }).window(Duration::ZERO);
    assert_eq!(wrong.validate().unwrap_err().problems().len(), 2);
}
