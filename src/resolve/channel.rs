//! Resolutions that the application feeds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Resolution, Resolve};
use crate::Endpoint;

/// A feed and the resolver it feeds. Of several resolutions fed in a burst only the last is seen.
pub fn channel() -> (Feed, Channel) {
    let shared = Arc::new(Shared::default());
    (Feed { shared: shared.clone() }, Channel { shared })
}

#[derive(Debug, Default)]
struct Shared(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    latest: Option<Resolution>,
    waker: Option<Waker>,
    ended: bool,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Slot)) {
        let waker = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut slot);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The feeding side. When it is dropped, what was fed last stays.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// Feeds a whole set of endpoints.
    pub fn set<E: Into<Endpoint>>(&self, endpoints: impl IntoIterator<Item = E>) {
        self.send(Resolution::bound(endpoints));
    }

    /// Feeds any resolution.
    pub fn send(&self, resolution: Resolution) {
        self.shared.change(|slot| slot.latest = Some(resolution));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.change(|slot| slot.ended = true);
    }
}

/// The resolver made by [`channel`].
#[derive(Debug)]
pub struct Channel {
    shared: Arc<Shared>,
}

impl Resolve for Channel {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        let mut slot = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.latest.take() {
            Some(resolution) => Poll::Ready(Some(resolution)),
            None if slot.ended => Poll::Ready(None),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn describe(&self) -> String {
        "fed by the application".to_owned()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn names(resolution: Option<Resolution>) -> Vec<String> {
        match resolution {
            Some(Resolution::Bound(set)) => {
                set.iter().map(|endpoint| endpoint.address().to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_burst_is_seen_as_its_last_set() {
        let (feed, mut fed) = channel();
        feed.set(["10.0.0.1:1"]);
        feed.set(["10.0.0.2:1"]);
        assert_eq!(names(poll_fn(|cx| fed.poll_next(cx)).await), ["10.0.0.2:1"]);
    }

    #[tokio::test]
    async fn the_last_word_is_heard_after_the_feed_is_gone() {
        let (feed, mut fed) = channel();
        let waiting = tokio::spawn(async move {
            let first = names(poll_fn(|cx| fed.poll_next(cx)).await);
            (first, poll_fn(|cx| fed.poll_next(cx)).await.is_none())
        });
        tokio::task::yield_now().await;
        feed.set(["10.0.0.1:1"]);
        drop(feed);
        assert_eq!(waiting.await.ok(), Some((vec!["10.0.0.1:1".to_owned()], true)));
    }

    #[test]
    fn duplicates_merge_and_a_bad_weight_fails_the_whole_set_by_name() {
        let twice = Resolution::bound([Endpoint::new("a:1"), Endpoint::new("a:1").with_weight(2.0)]);
        assert_eq!(names(Some(twice)), ["a:1"]);
        let Resolution::Failed(cause) = Resolution::bound([Endpoint::new("a:1").with_weight(f64::NAN)])
        else {
            panic!("a weight that is no number was taken")
        };
        assert_eq!(cause.to_string(), "endpoint a:1: weight = NaN: a positive finite number");
    }
}
