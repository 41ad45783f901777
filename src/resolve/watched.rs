//! Endpoints from a registry that is watched: the machinery of every resolver that keeps a connection.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    runtime::{Handle, Id},
    sync::Notify,
    task::coop::poll_proceed,
};

use tower::BoxError;

use super::{Resolution, Resolve};
#[cfg(any(feature = "etcd", feature = "file", feature = "web", feature = "zookeeper"))]
use crate::Invalid;

/// A watch under way. It ends only when there is nothing more to be told, ever.
type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells what the watch that `begin` makes tells. `registry` is for people: `ledger at 10.0.0.1:4000`.
///
/// A watch is one `async` function that connects, tells whole sets as they change, tells
/// [`Resolution::Failed`] when it loses its registry, and connects again after a back-off. When it ends, what it told
/// last stays. It runs as a part of the resolver: it spawns no task, and dropping the resolver drops it with its
/// connections. These, and timers, die with their runtime, so on another runtime `begin` is called again.
///
/// ```
/// use std::{io, time::Duration};
/// use mainstay::{Endpoint, backoff::Backoff, random::Entropy, resolve::{self, Resolution, Teller}};
/// use tokio::{io::{AsyncBufReadExt as _, BufReader}, net::TcpStream};
///
/// /// A registry that sends a line with all addresses whenever one changes.
/// async fn follow(tell: &Teller, failures: &mut u32) -> io::Result<()> {
///     let mut lines = BufReader::new(TcpStream::connect("10.0.0.1:4000").await?).lines();
///     while let Some(line) = lines.next_line().await? {
///         *failures = 0;
///         tell.tell(Resolution::bound(line.split(' ')));
///     }
///     Err(io::ErrorKind::UnexpectedEof.into())
/// }
///
/// let ledger = resolve::watch("ledger at 10.0.0.1:4000", |tell| async move {
///     let backoff = Backoff::exponential(Duration::from_millis(100)).cap(Duration::from_secs(30));
///     let (mut failures, mut rest) = (0, Duration::ZERO);
///     while let Err(error) = follow(&tell, &mut failures).await {
///         tell.failed(error);
///         failures += 1;
///         rest = backoff.delay(failures, rest, &Entropy);
///         tokio::time::sleep(rest).await;
///     }
/// });
/// # let _ = ledger;
/// ```
pub fn watch<F: Future<Output = ()> + Send + 'static>(
    registry: impl Into<String>,
    mut begin: impl FnMut(Teller) -> F + Send + 'static,
) -> Watched {
    Watched {
        registry: registry.into(),
        begin: Box::new(move |teller| Box::pin(begin(teller))),
        watch: None,
        ended: false,
        runtime: None,
        teller: Teller::default(),
    }
}

/// The resolver made by [`watch`].
pub struct Watched {
    registry: String,
    begin: Box<dyn FnMut(Teller) -> Watch + Send>,
    watch: Option<Watch>,
    ended: bool,
    runtime: Option<Id>,
    teller: Teller,
}

impl Resolve for Watched {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        // One that never pauses must not keep its task from pausing.
        let budget = ready!(poll_proceed(cx));
        let current = Handle::try_current().ok().map(|handle| handle.id());
        if self.runtime != current {
            self.runtime = current;
            self.watch = None;
        }
        if !self.ended {
            let watch = self.watch.get_or_insert_with(|| (self.begin)(self.teller.clone()));
            if watch.as_mut().poll(cx).is_ready() {
                self.ended = true;
                self.watch = None;
            }
        }
        match self.teller.take(cx) {
            None if !self.ended => Poll::Pending,
            told => {
                budget.made_progress();
                Poll::Ready(told)
            }
        }
    }

    fn refresh(&mut self) {
        self.teller.shared.refresh.notify_one();
    }

    fn describe(&self) -> String {
        self.registry.clone()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("registry", &self.registry)
            .field("begun", &self.watch.is_some())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// A watch that is begun when it is first polled. If what was to be watched breaks a rule, that is told in its place.
#[cfg(any(feature = "etcd", feature = "file", feature = "web", feature = "zookeeper"))]
#[derive(Debug, Default)]
pub(super) enum Begun {
    #[default]
    Not,
    Watching(Watched),
    Refused(Option<Invalid>),
}

#[cfg(any(feature = "etcd", feature = "file", feature = "web", feature = "zookeeper"))]
impl Begun {
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::Not)
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        match self {
            Self::Watching(watched) => watched.poll_next(cx),
            Self::Refused(invalid) => {
                Poll::Ready(invalid.take().map(|invalid| Resolution::Failed(Arc::new(invalid))))
            }
            Self::Not => Poll::Pending,
        }
    }

    /// Asks for an early look-up.
    #[cfg(feature = "eureka")]
    pub(super) fn refresh(&mut self) {
        if let Self::Watching(watched) = self {
            watched.refresh();
        }
    }
}

#[cfg(any(feature = "etcd", feature = "file", feature = "web", feature = "zookeeper"))]
impl From<Result<Watched, Invalid>> for Begun {
    fn from(begun: Result<Watched, Invalid>) -> Self {
        begun.map_or_else(|invalid| Self::Refused(Some(invalid)), Self::Watching)
    }
}

/// What a watch tells by. A clone tells the same resolver.
#[derive(Clone, Debug, Default)]
pub struct Teller {
    shared: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    slot: Mutex<Slot>,
    refresh: Notify,
}

#[derive(Debug, Default)]
struct Slot {
    /// The last that says what there is.
    known: Option<Resolution>,
    /// What was told after it and says that nothing is known, which takes nothing away.
    trouble: Option<Resolution>,
    waker: Option<Waker>,
}

impl Teller {
    /// Tells `resolution`. Of several that are told in a burst the last that says what there is is heard, and then the
    /// trouble that came after it, if any.
    pub fn tell(&self, resolution: Resolution) {
        let mut slot = self.shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(resolution, Resolution::Pending | Resolution::Failed(_)) {
            slot.trouble = Some(resolution);
        } else {
            slot.known = Some(resolution);
            slot.trouble = None;
        }
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells that the registry failed. A set that was told just before, and has not been heard yet, is not lost.
    pub fn failed(&self, cause: impl Into<BoxError>) {
        self.tell(Resolution::Failed(Arc::from(cause.into())));
    }

    /// Waits until somebody asks for an early look-up ([`Resolve::refresh`]). One that was asked for before counts.
    pub async fn refreshed(&self) {
        self.shared.refresh.notified().await;
    }

    fn take(&self, cx: &Context<'_>) -> Option<Resolution> {
        let mut slot = self.shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let told = slot.known.take().or_else(|| slot.trouble.take());
        if told.is_none() {
            slot.waker = Some(cx.waker().clone());
        }
        told
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::Endpoint;

    fn sizes(resolution: Option<Resolution>) -> Option<usize> {
        match resolution {
            Some(Resolution::Bound(set)) => Some(set.len()),
            _ => None,
        }
    }

    fn set(size: usize) -> Resolution {
        Resolution::bound((0..size).map(|index| Endpoint::new(format!("10.0.0.{index}:80"))))
    }

    async fn is_silent(watched: &mut Watched) -> bool {
        poll_fn(|cx| Poll::Ready(watched.poll_next(cx).is_pending())).await
    }

    #[tokio::test]
    async fn trouble_takes_nothing_away_that_was_told_before_it() {
        let mut watched = watch("x", |teller| async move {
            teller.failed("first");
            teller.tell(set(3));
            teller.failed("second");
            teller.failed("third");
            pending::<()>().await;
        });
        assert_eq!(sizes(poll_fn(|cx| watched.poll_next(cx)).await), Some(3));
        let Some(Resolution::Failed(cause)) = poll_fn(|cx| watched.poll_next(cx)).await else {
            panic!("the trouble was not told")
        };
        assert_eq!(cause.to_string(), "third");
        assert!(is_silent(&mut watched).await);
    }

    #[tokio::test]
    async fn of_a_burst_only_the_last_word_is_heard() {
        let mut watched = watch("x", |teller| async move {
            (1..=5).for_each(|size| teller.tell(set(size)));
            pending::<()>().await;
        });
        assert_eq!(sizes(poll_fn(|cx| watched.poll_next(cx)).await), Some(5));
        assert!(is_silent(&mut watched).await);
    }

    #[tokio::test]
    async fn what_a_watch_told_before_its_end_is_heard() {
        let mut watched = watch("x", |teller| async move { teller.tell(set(2)) });
        assert_eq!(sizes(poll_fn(|cx| watched.poll_next(cx)).await), Some(2));
        assert!(poll_fn(|cx| watched.poll_next(cx)).await.is_none());
        assert!(poll_fn(|cx| watched.poll_next(cx)).await.is_none());
    }

    #[tokio::test]
    async fn an_early_look_up_reaches_the_watch() {
        let mut watched = watch("x", |teller| async move {
            for size in 1.. {
                teller.tell(set(size));
                teller.refreshed().await;
            }
        });
        assert_eq!(sizes(poll_fn(|cx| watched.poll_next(cx)).await), Some(1));
        assert!(is_silent(&mut watched).await);
        watched.refresh();
        assert_eq!(sizes(poll_fn(|cx| watched.poll_next(cx)).await), Some(2));
    }

    #[test]
    fn on_another_runtime_the_watch_begins_anew() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let mut watched = watch("x", |teller| async move {
            teller.tell(set(1 + BEGUN.fetch_add(1, Ordering::Relaxed)));
            // A timer of a runtime that has ended would panic or never fire.
            tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        });
        for expected in 1..=3 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            assert_eq!(sizes(runtime.block_on(poll_fn(|cx| watched.poll_next(cx)))), Some(expected));
        }
    }

    #[tokio::test]
    async fn one_that_is_never_done_lets_others_run() {
        let mut watched = watch("x", |teller| {
            poll_fn(move |cx| {
                teller.tell(set(1));
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        });
        let told =
            poll_fn(|cx| Poll::Ready((0..10_000).take_while(|_| watched.poll_next(cx).is_ready()).count()));
        assert!((1..1_000).contains(&told.await));
    }
}
