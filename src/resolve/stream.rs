//! Resolutions that come as a stream.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use tokio::task::coop::poll_proceed;

use super::{Resolution, Resolve};

/// Tells what `stream` tells. When it ends, what it told last stays; it is dropped then and not polled again.
pub fn stream(stream: impl Stream<Item = Resolution> + Send + 'static) -> Streamed {
    Streamed(Some(Box::pin(stream)))
}

/// The resolver made by [`stream`].
pub struct Streamed(Option<Pin<Box<dyn Stream<Item = Resolution> + Send>>>);

impl Resolve for Streamed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        let Some(stream) = &mut self.0 else { return Poll::Ready(None) };
        // One that never pauses must not keep its task from pausing.
        let budget = ready!(poll_proceed(cx));
        let next = ready!(stream.as_mut().poll_next(cx));
        budget.made_progress();
        if next.is_none() {
            self.0 = None;
        }
        Poll::Ready(next)
    }

    fn describe(&self) -> String {
        "a stream".to_owned()
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("ended", &self.0.is_none()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use futures::stream::poll_fn as from_fn;

    use super::*;

    #[tokio::test]
    async fn a_stream_that_has_ended_is_never_polled_again() {
        let mut left = vec![None, Some(Resolution::bound(["a:1"]))];
        let mut streamed = stream(from_fn(move |_| {
            Poll::Ready(left.pop().unwrap_or_else(|| panic!("polled after its end")))
        }));
        assert!(matches!(poll_fn(|cx| streamed.poll_next(cx)).await, Some(Resolution::Bound(_))));
        assert!(poll_fn(|cx| streamed.poll_next(cx)).await.is_none());
        assert!(poll_fn(|cx| streamed.poll_next(cx)).await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_never_pauses_lets_others_run() {
        let mut streamed = stream(futures::stream::repeat(Resolution::Pending));
        let told =
            poll_fn(|cx| Poll::Ready((0..10_000).take_while(|_| streamed.poll_next(cx).is_ready()).count()));
        assert!((1..1_000).contains(&told.await));
    }
}
