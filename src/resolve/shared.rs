//! One resolution for many clients.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
};

use futures::future::{Either, select};
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, coop::poll_proceed},
};

use super::{Resolution, Resolve};
use crate::Invalid;

/// One resolution for all clones, so that a thousand clients ask a registry once and share the endpoints' data: what
/// [`ResolveExt::shared`](super::ResolveExt::shared) makes.
///
/// The resolver behind it is polled by a task of its own, on the runtime of the clone that is polled first. If that
/// runtime ends the next poll of another clone goes on with it. The task ends with the last clone. A clone that is made
/// later is told at once what is known.
pub struct Shared {
    common: Arc<Common>,
    reader: Arc<Reader>,
}

/// What all clones share.
struct Common {
    describe: String,
    valid: Result<(), Invalid>,
    state: Mutex<State>,
    refresh: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Not here while the task has it.
    resolver: Option<Box<dyn Resolve>>,
    task: Option<AbortHandle>,
    /// The last word that said what there is, the trouble after it, and how many words there were.
    known: Option<(u64, Resolution)>,
    trouble: Option<(u64, Resolution)>,
    words: u64,
    ended: bool,
    readers: Vec<Arc<Reader>>,
}

/// One clone.
#[derive(Default)]
struct Reader {
    waker: Mutex<Option<Waker>>,
    /// How many words this clone has heard.
    heard: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(resolver: impl Resolve) -> Self {
        let common = Common {
            describe: resolver.describe(),
            valid: resolver.validate(),
            state: Mutex::new(State { resolver: Some(Box::new(resolver)), ..State::default() }),
            refresh: Arc::default(),
        };
        Self::of(Arc::new(common))
    }

    fn of(common: Arc<Common>) -> Self {
        let reader = Arc::new(Reader::default());
        lock(&common.state).readers.push(reader.clone());
        Self { common, reader }
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        Self::of(self.common.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut state = lock(&self.common.state);
        state.readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        if state.readers.is_empty()
            && let Some(task) = state.task.take()
        {
            task.abort();
        }
    }
}

impl Resolve for Shared {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        let mut state = lock(&self.common.state);
        let mut heard = lock(&self.reader.heard);
        for (word, told) in state.known.iter().chain(&state.trouble) {
            if *word > *heard {
                *heard = *word;
                return Poll::Ready(Some(told.clone()));
            }
        }
        if state.ended {
            return Poll::Ready(None);
        }
        *lock(&self.reader.waker) = Some(cx.waker().clone());
        let Ok(runtime) = Handle::try_current() else { return Poll::Pending };
        let Some(resolver) = state.resolver.take() else { return Poll::Pending };
        // A runtime that is shutting down drops what it is given, which comes back by the same lock.
        drop(state);
        let common = Arc::downgrade(&self.common);
        let lent = Lent { resolver: Some(resolver), common, refresh: self.common.refresh.clone() };
        let task = runtime.spawn(lent.run()).abort_handle();
        lock(&self.common.state).task = Some(task);
        Poll::Pending
    }

    fn refresh(&mut self) {
        self.common.refresh.notify_one();
    }

    fn describe(&self) -> String {
        self.common.describe.clone()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.common.valid.clone()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.common.describe)
    }
}

impl State {
    fn take(&mut self, resolution: Resolution) {
        self.words += 1;
        let word = Some((self.words, resolution));
        if matches!(word, Some((_, Resolution::Pending | Resolution::Failed(_)))) {
            self.trouble = word;
        } else {
            self.known = word;
            self.trouble = None;
        }
    }
}

/// The resolver while the task has it. Whatever ends the task, its runtime among others, gives it back; but one that
/// panics has ended.
struct Lent {
    resolver: Option<Box<dyn Resolve>>,
    common: Weak<Common>,
    refresh: Arc<Notify>,
}

impl Lent {
    async fn run(mut self) {
        let refresh = self.refresh.clone();
        loop {
            let next = poll_fn(|cx| {
                // One that never pauses must not keep its task from pausing.
                let budget = ready!(poll_proceed(cx));
                // One that panics is not put back: the next who polls it would be the next to panic, for ever.
                let Some(mut resolver) = self.resolver.take() else { return Poll::Ready(None) };
                let told = resolver.poll_next(cx);
                self.resolver = Some(resolver);
                let told = ready!(told);
                budget.made_progress();
                Poll::Ready(told)
            });
            let told = match select(next, pin!(refresh.notified())).await {
                Either::Left((told, _)) => told,
                Either::Right(_) => {
                    if let Some(resolver) = &mut self.resolver {
                        resolver.refresh();
                    }
                    continue;
                }
            };
            let Some(common) = self.common.upgrade() else { return };
            let ended = told.is_none();
            {
                let mut state = lock(&common.state);
                match told {
                    Some(resolution) => state.take(resolution),
                    None => state.ended = true,
                }
            }
            common.wake();
            if ended {
                self.resolver = None;
                return;
            }
        }
    }
}

impl Common {
    /// Wakes every clone, with no lock of the state held: a waker may run anything.
    fn wake(&self) {
        let readers = lock(&self.state).readers.clone();
        for reader in readers {
            let waker = mem::take(&mut *lock(&reader.waker));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let resolver = self.resolver.take();
        if let Some(common) = self.common.upgrade() {
            {
                let mut state = lock(&common.state);
                state.ended = resolver.is_none();
                state.resolver = resolver;
                state.task = None;
            }
            common.wake();
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::resolve::{self, Endpoints, ResolveExt as _};

    fn set(told: Option<Resolution>) -> Option<Endpoints> {
        match told {
            Some(Resolution::Bound(set)) => Some(set),
            _ => None,
        }
    }

    async fn next(shared: &mut Shared) -> Option<Resolution> {
        tokio::time::timeout(Duration::from_secs(60), poll_fn(|cx| shared.poll_next(cx))).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_clones_ask_once_and_share_the_endpoints() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let first = resolve::poll(Duration::from_secs(3600), || async {
            ASKED.fetch_add(1, Ordering::Relaxed);
            Ok::<_, tower::BoxError>(vec!["10.0.0.1:80"])
        })
        .shared();
        let mut clones: Vec<Shared> = (0..1_000).map(|_| first.clone()).collect();
        let mut sets = Vec::new();
        for clone in &mut clones {
            sets.push(set(next(clone).await).unwrap());
        }
        assert!(sets.iter().all(|set| Arc::ptr_eq(set, &sets[0])));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_clone_hears_every_word_once_and_a_late_one_what_is_known() {
        let (feed, fed) = resolve::channel();
        let mut one = fed.shared();
        let mut two = one.clone();
        feed.set(["10.0.0.1:80"]);
        assert_eq!(set(next(&mut one).await).unwrap().len(), 1);
        assert_eq!(set(next(&mut two).await).unwrap().len(), 1);
        assert!(poll_fn(|cx| Poll::Ready(one.poll_next(cx).is_pending())).await);
        feed.send(Resolution::Failed(Arc::new(std::io::Error::other("away"))));
        assert!(matches!(next(&mut one).await, Some(Resolution::Failed(_))));
        let mut late = one.clone();
        assert_eq!(set(next(&mut late).await).unwrap().len(), 1, "the set that is still good");
        assert!(matches!(next(&mut late).await, Some(Resolution::Failed(_))));
        drop(feed);
        assert!(next(&mut late).await.is_none());
        assert!(matches!(next(&mut two).await, Some(Resolution::Failed(_))));
        assert!(next(&mut two).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_last_clone() {
        let (feed, fed) = resolve::channel();
        let mut one = fed.shared();
        let two = one.clone();
        feed.set(["10.0.0.1:80"]);
        next(&mut one).await;
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 1);
        drop(one);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.num_alive_tasks(), 1);
        drop(two);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.num_alive_tasks(), 0);
    }

    #[test]
    fn when_the_runtime_that_resolves_ends_another_goes_on() {
        let (feed, fed) = resolve::channel();
        let mut here = fed.shared();
        let mut there = here.clone();
        let runtime =
            || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (first, second) = (runtime(), runtime());
        feed.set(["10.0.0.1:80"]);
        assert!(set(first.block_on(next(&mut here))).is_some());
        let waits = second.spawn(async move {
            let one = set(next(&mut there).await).unwrap().len();
            (one, set(next(&mut there).await).unwrap().len())
        });
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        std::thread::sleep(Duration::from_millis(50));
        feed.set(["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(second.block_on(waits).unwrap(), (1, 2));
    }

    #[test]
    fn where_nothing_can_be_spawned_nothing_is_lost() {
        let (feed, fed) = resolve::channel();
        let mut shared = fed.shared();
        feed.set(["10.0.0.1:80"]);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut poll = || shared.poll_next(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(poll(), "there is no runtime");
        let ended = runtime();
        let handle = ended.handle().clone();
        drop(ended);
        {
            let _entered = handle.enter();
            assert!(poll(), "and one that has ended is none");
        }
        assert!(set(runtime().block_on(next(&mut shared))).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_panics_is_not_asked_again() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let broken = |_: &mut Context<'_>| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            panic!("broken")
        };
        let mut shared = resolve::stream(futures::stream::poll_fn(broken)).shared();
        let told = tokio::time::timeout(Duration::from_secs(60), poll_fn(|cx| shared.poll_next(cx))).await;
        assert!(matches!(told, Ok(None)), "{told:?}");
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_look_up_reaches_the_resolver_behind() {
        let mut shared = resolve::watch("x", |tell| async move {
            for count in 1_usize.. {
                tell.tell(Resolution::bound((0..count).map(|index| format!("10.0.0.{index}:80"))));
                tell.refreshed().await;
            }
        })
        .shared();
        assert_eq!(set(next(&mut shared).await).unwrap().len(), 1);
        shared.clone().refresh();
        assert_eq!(set(next(&mut shared).await).unwrap().len(), 2);
    }
}
