//! What is announced is found: by resolvers, and by clients that were not written here.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mainstay::{
    announce::{Announce, Announcement, CheckOptions, State},
    registry::Instance,
};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 9, 9, last], 80))
}

fn instance(last: u8) -> Instance {
    Instance::new(address(last).to_string())
}

async fn until(announcement: &Announcement, what: &str, want: impl FnMut(&State) -> bool) -> State {
    let reached = timeout(SECOND * 12, announcement.until(want)).await;
    reached.unwrap_or_else(|_| panic!("never {what}: {announcement:?}"))
}

async fn announced(announcement: &Announcement) -> String {
    match until(announcement, "announced", |state| matches!(state, State::Announced(_))).await {
        State::Announced(node) => node.to_string(),
        other => panic!("{other}"),
    }
}

/// Asks until the answer is `owed`.
async fn eventually<T: PartialEq + Debug>(patience: Duration, owed: T, mut ask: impl AsyncFnMut() -> T) {
    let mut seen = None;
    let reached = timeout(patience, async {
        loop {
            let answer = ask().await;
            if answer == owed {
                return;
            }
            seen = Some(answer);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let reached = reached.await;
    assert!(reached.is_ok(), "never {owed:?} within {patience:?}: {seen:?}");
}

/// A check that says what the switch says.
fn checked(announce: Announce, is_well: &Arc<AtomicBool>) -> Announce {
    let is_well = is_well.clone();
    let options = CheckOptions::default().interval(SECOND / 20).rise(2).fall(2);
    announce.check(options, move || {
        let is_well = is_well.load(Relaxed);
        async move { if is_well { Ok(()) } else { Err("its disk is full") } }
    })
}

/// It is there without a pause, first of one weight and then of another.
async fn is_replaced_and_never_gone(
    announce: impl FnOnce(Instance) -> Announce,
    mut resolver: Box<dyn mainstay::resolve::Resolve>,
) {
    use mainstay::resolve::Resolution;
    let announcement = announce(instance(1).weight(1.0)).start().unwrap();
    announced(&announcement).await;
    let refused = announcement.update(instance(2).weight(0.5)).unwrap_err();
    assert!(
        refused.to_string().contains("announce.instance.address = \"127.9.9.2:80\": another instance"),
        "{refused}"
    );
    for weight in 2..6 {
        announcement.update(instance(1).weight(f64::from(weight))).unwrap();
        loop {
            match timeout(SECOND * 5, crate::suite::next(&mut *resolver)).await {
                Ok(Some(Resolution::Bound(set))) => {
                    assert_eq!(set.len(), 1, "it was gone, or there twice");
                    if set[0].weight() == f64::from(weight) {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    announcement.withdraw().await.unwrap();
}

/// It is there as long as its check passes.
async fn follows_its_check(announce: Announce, mut is_there: impl AsyncFnMut() -> bool) {
    let is_well = Arc::new(AtomicBool::new(false));
    let announcement = checked(announce, &is_well).start().unwrap();
    let unwell = |state: &State| matches!(state, State::Unwell(_));
    assert_eq!(
        until(&announcement, "unwell", unwell).await.to_string(),
        "not announced, its check fails: its disk is full"
    );
    assert!(!is_there().await);
    is_well.store(true, Relaxed);
    announced(&announcement).await;
    assert!(is_there().await);
    is_well.store(false, Relaxed);
    until(&announcement, "unwell", unwell).await;
    assert!(!is_there().await);
    is_well.store(true, Relaxed);
    announced(&announcement).await;
    announcement.withdraw().await.unwrap();
    assert!(!is_there().await);
}
