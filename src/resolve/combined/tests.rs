use std::{future::poll_fn, task::Poll, time::Duration};

use super::*;
use crate::{
    Endpoint, clock,
    resolve::{Feed, Resolution, Resolve, ResolveExt as _, channel, fixed},
};

/// What a resolution says, in a word.
fn word(told: Option<Resolution>) -> String {
    match told {
        None => "over".to_owned(),
        Some(Resolution::Pending) => "pending".to_owned(),
        Some(Resolution::Absent) => "absent".to_owned(),
        Some(Resolution::Failed(cause)) => format!("failed: {cause}"),
        Some(Resolution::Bound(set)) => {
            let one = |endpoint: &std::sync::Arc<Endpoint>| {
                let (weight, priority) = (endpoint.weight(), endpoint.priority());
                format!("{}*{weight}@{priority}", endpoint.address())
            };
            set.iter().map(one).collect::<Vec<_>>().join(" ")
        }
    }
}

async fn next(resolver: &mut impl Resolve) -> String {
    word(poll_fn(|cx| resolver.poll_next(cx)).await)
}

async fn is_silent(resolver: &mut impl Resolve) -> bool {
    poll_fn(|cx| Poll::Ready(resolver.poll_next(cx).is_pending())).await
}

fn failure() -> Resolution {
    Resolution::Failed(std::sync::Arc::new(std::io::Error::other("away")))
}

fn three<M: Merge>(make: impl Fn() -> Combined<M>) -> (Vec<Feed>, Combined<M>) {
    let mut feeds = Vec::new();
    let mut combined = make();
    for _ in 0..3 {
        let (feed, fed) = channel();
        feeds.push(feed);
        combined = combined.with(fed);
    }
    (feeds, combined)
}

#[tokio::test(start_paused = true)]
async fn the_first_that_has_endpoints_is_used_and_the_next_where_it_has_none() {
    let (feeds, mut first) = three(first);
    feeds[0].set([""; 0]);
    feeds[1].set(["b:1"]);
    assert_eq!(next(&mut first).await, "b:1*1@0");
    feeds[2].set(["c:1"]);
    assert!(is_silent(&mut first).await, "what comes later does not matter");
    feeds[0].set(["a:1"]);
    assert_eq!(next(&mut first).await, "a:1*1@0");
    feeds[0].send(failure());
    assert_eq!(next(&mut first).await, "a:1*1@0", "a failure takes nothing away");
    assert_eq!(next(&mut first).await, "failed: fed by the application: away");
    let before = clock::now();
    feeds[0].send(Resolution::Absent);
    assert_eq!(next(&mut first).await, "a:1*1@0", "the trouble is over");
    assert_eq!(next(&mut first).await, "b:1*1@0");
    assert_eq!((clock::now() - before).as_secs(), 30, "a loss has its grace period");
}

#[tokio::test(start_paused = true)]
async fn who_comes_first_is_waited_for_but_not_for_ever() {
    let (feeds, mut first) = three(first);
    let before = clock::now();
    feeds[1].set(["b:1"]);
    assert_eq!(next(&mut first).await, "b:1*1@0");
    assert_eq!((clock::now() - before).as_secs(), 1);
    feeds[0].set(["a:1"]);
    assert_eq!(next(&mut first).await, "a:1*1@0");
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_is_not_waited_for() {
    let (feeds, mut failover) = three(failover);
    let before = clock::now();
    feeds[0].set(["a:1"]);
    assert_eq!(next(&mut failover).await, "a:1*1@0");
    assert_eq!(clock::now(), before);
}

#[tokio::test(start_paused = true)]
async fn failover_puts_each_behind_all_levels_of_those_before() {
    let (feeds, mut failover) = three(failover);
    feeds[0].set([Endpoint::new("a:1"), Endpoint::new("a:2").with_priority(2)]);
    feeds[1].send(failure());
    feeds[2].set([Endpoint::new("c:1"), Endpoint::new("a:1").with_weight(9.0)]);
    assert_eq!(next(&mut failover).await, "a:1*1@0 a:2*1@2 c:1*1@3", "and an endpoint of two is the first's");
    assert_eq!(next(&mut failover).await, "failed: fed by the application: away");
    feeds[1].set(["b:1"]);
    assert_eq!(next(&mut failover).await, "a:1*1@0 a:2*1@2 b:1*1@3 c:1*1@4");
}

#[tokio::test(start_paused = true)]
async fn a_union_gives_each_its_share_whatever_its_size() {
    let (blue, fed_blue) = channel();
    let (green, fed_green) = channel();
    let mut union = union().weighted(fed_blue, 9.0).weighted(fed_green, 1.0);
    blue.set(["a:1", "a:2", "a:3"]);
    green.set([Endpoint::new("b:1"), Endpoint::new("b:2").with_weight(3.0)]);
    assert_eq!(next(&mut union).await, "a:1*3@0 a:2*3@0 a:3*3@0 b:1*0.25@0 b:2*0.75@0");
    blue.set(["a:1"]);
    assert_eq!(next(&mut union).await, "a:1*9@0 b:1*0.25@0 b:2*0.75@0");
}

#[tokio::test(start_paused = true)]
async fn a_union_without_weights_is_all_of_them_once() {
    let mut union = union().with(fixed(["a:1", "b:1"])).with(fixed(["b:1", "c:1"]));
    assert_eq!(next(&mut union).await, "a:1*1@0 b:1*1@0 c:1*1@0");
    assert_eq!(next(&mut union).await, "over");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_two_registries_know_by_different_names_is_one_endpoint() {
    let known_as = |instance: &str| fixed([Endpoint::new("a:1").with_instance(instance)]);
    let two_of_one = fixed(["i-1", "i-2"].map(|instance| Endpoint::new("b:1").with_instance(instance)));
    let mut union =
        union().with(known_as("uid-7")).with(fixed(["a:1"])).with(two_of_one).with(fixed(["b:1"]));
    assert_eq!(next(&mut union).await, "a:1*1@0 b:1*1@0 b:1*1@0", "unless one registry tells two of them");
    let mut failover = failover().with(known_as("i-1")).with(known_as("uid-7"));
    assert_eq!(next(&mut failover).await, "a:1*1@0");
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_keeps_its_memory() {
    let (green, fed) = channel();
    let mut union = union().weighted(fixed(["a:1", "a:2"]), 4.0).with(fed);
    let mut kept = Vec::new();
    for word in ["b:1", "b:2"] {
        green.set([word]);
        let Some(Resolution::Bound(set)) = poll_fn(|cx| union.poll_next(cx)).await else { panic!("no set") };
        kept.push(set[0].clone());
    }
    assert!(std::sync::Arc::ptr_eq(&kept[0], &kept[1]));
}

#[tokio::test(start_paused = true)]
async fn when_none_has_any_the_worst_is_told() {
    let (feeds, mut first) = three(first);
    feeds[0].send(Resolution::Absent);
    feeds[1].send(Resolution::Absent);
    assert!(is_silent(&mut first).await, "one is still to be heard");
    feeds[2].send(failure());
    assert_eq!(next(&mut first).await, "failed: fed by the application: away");
    feeds[2].set([""; 0]);
    assert_eq!(next(&mut first).await, "");
    feeds[2].send(Resolution::Absent);
    assert_eq!(next(&mut first).await, "absent");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_lost_whoever_else_is_silent() {
    for patience in [1, 120] {
        let patience = Duration::from_secs(patience);
        let (feeds, mut failover) = three(|| failover().patience(patience));
        feeds[0].set(["a:1"]);
        assert_eq!(next(&mut failover).await, "a:1*1@0");
        let before = clock::now();
        feeds[0].set([""; 0]);
        let told = tokio::time::timeout(Duration::from_secs(600), next(&mut failover)).await;
        assert_eq!((told.as_deref(), (clock::now() - before).as_secs()), (Ok(""), 30));
    }
}

#[tokio::test(start_paused = true)]
async fn every_mistake_is_told_with_its_place() {
    assert_eq!(
        first().validate().unwrap_err().to_string(),
        "invalid options: first.resolvers = 0: at least one resolver, added by `with`"
    );
    let bad = || union().weighted(fixed(["a:1"]), f64::NAN).with(crate::resolve::name("x:///y"));
    let told = bad().validate().unwrap_err().to_string();
    assert!(told.contains("union.resolvers[0].weight = NaN: a positive finite number"), "{told}");
    assert!(told.contains("union.resolvers[1].name.scheme = \"x\""), "{told}");
    let mut bad = bad();
    assert!(next(&mut bad).await.starts_with("failed: invalid options"));
    assert_eq!(next(&mut bad).await, "over");
}

#[tokio::test(start_paused = true)]
async fn an_early_look_up_goes_to_all() {
    let counting = || {
        crate::resolve::watch("counting", |tell| async move {
            for count in 1_u32.. {
                tell.tell(Resolution::bound([Endpoint::new("a:1").with_weight(f64::from(count))]));
                tell.refreshed().await;
            }
        })
    };
    let mut union = union().with(counting()).with(counting().map(|_| Endpoint::new("b:1")));
    assert_eq!(next(&mut union).await, "a:1*1@0 b:1*1@0");
    union.refresh();
    assert_eq!(next(&mut union).await, "a:1*2@0 b:1*1@0");
}

#[tokio::test] // A clock that is paused stands still while there is something to do.
async fn one_that_never_pauses_keeps_nobody_from_being_heard() {
    let restless = crate::resolve::stream(futures::stream::repeat(Resolution::Pending));
    let mut union = union().with(restless).with(fixed(["b:1"])).patience(Duration::from_millis(1));
    let told = tokio::time::timeout(Duration::from_secs(5), next(&mut union)).await;
    assert_eq!(told.as_deref(), Ok("b:1*1@0"));
}
