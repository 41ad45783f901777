//! tower's way of telling endpoints: services that come and go.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::poll_fn,
    hash::Hash,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::task::coop::{poll_proceed, unconstrained};
use tower::{
    BoxError,
    discover::{Change, Discover},
};

use super::{Endpoints, Resolution, Resolve};
use crate::Endpoint;

/// How many changes are taken between two yields to other tasks.
const BATCH: usize = 1_000;

/// After how many batches without a pause what is known is told: a source that never pauses is heard all the same.
const BATCHES: usize = 32;

/// Resolves to the keys of `discover`, and connects to them with the services that came with them.
///
/// A [`Discover`] tells differences. They are collected into whole sets: what it has ready at once is one set, however
/// much that is, in the order of insertion. An endpoint's address is its key as text. An endpoint whose service is
/// replaced is a new endpoint with no history, since nothing is known of the new service; its
/// [`instance`](Endpoint::instance) says which of the services it was.
///
/// An error keeps the last set and is told as [`Resolution::Failed`]; what comes after it is still heard, at once: a
/// source that may fail again and again should wait in between. After its end `discover` is dropped, not polled again,
/// and the last set stays.
///
/// ```
/// use mainstay::{Endpoint, resolve};
/// use tower::{BoxError, discover::Change, service_fn};
///
/// let echo = service_fn(|word: &'static str| async move { Ok::<_, BoxError>(word) });
/// let changes = futures::stream::iter([Ok::<_, BoxError>(Change::Insert("10.0.0.1:80", echo))]);
/// let (resolver, connect) = resolve::discover(changes);
/// # let _ = (resolver, connect);
/// ```
///
/// # Panics
/// The function that connects panics for an endpoint that this resolver did not make. It knows the services of removed
/// endpoints for as long as anybody holds the endpoint.
pub fn discover<D>(
    discover: D,
) -> (Discovered<D>, impl Fn(&Endpoint) -> D::Service + Clone + Send + Sync + 'static)
where
    D: Discover + Send + 'static,
    D::Key: Clone + Eq + Hash + fmt::Display + Send + 'static,
    D::Service: Clone + Send + 'static,
    D::Error: Into<BoxError>,
{
    let services = Services::default();
    let connect = {
        let services = services.clone();
        move |endpoint: &Endpoint| {
            services
                .get(endpoint)
                .unwrap_or_else(|| panic!("{} was not discovered here", endpoint.identity()))
        }
    };
    let resolver = Discovered {
        discover: Some(Box::pin(discover)),
        inserted: 0,
        keys: HashMap::new(),
        endpoints: BTreeMap::new(),
        services,
        batches: 0,
        changed: false,
        failed: None,
    };
    (resolver, connect)
}

/// The resolver made by [`discover`].
pub struct Discovered<D: Discover> {
    discover: Option<Pin<Box<D>>>,
    inserted: u64,
    keys: HashMap<D::Key, u64>,
    /// By the number of their insertion.
    endpoints: BTreeMap<u64, Arc<Endpoint>>,
    services: Services<D::Service>,
    batches: usize,
    /// Whether there is something to tell.
    changed: bool,
    failed: Option<BoxError>,
}

/// Why no more changes are taken for now.
enum Pause {
    Waiting,
    Yielding,
    Failed,
    Ended,
}

impl<D> Discovered<D>
where
    D: Discover,
    D::Key: Clone + Eq + Hash + fmt::Display,
    D::Service: Clone,
    D::Error: Into<BoxError>,
{
    fn take_batch(&mut self, cx: &mut Context<'_>) -> Pause {
        for _ in 0..BATCH {
            let Some(discover) = &mut self.discover else { return Pause::Ended };
            match discover.as_mut().poll_discover(cx) {
                Poll::Ready(Some(Ok(change))) => self.apply(change),
                Poll::Ready(Some(Err(error))) => {
                    self.failed = Some(error.into());
                    return Pause::Failed;
                }
                Poll::Ready(None) => {
                    self.discover = None;
                    return Pause::Ended;
                }
                Poll::Pending => return Pause::Waiting,
            }
        }
        Pause::Yielding
    }

    fn apply(&mut self, change: Change<D::Key, D::Service>) {
        let before = match change {
            Change::Insert(key, service) => {
                self.inserted += 1;
                let instance: Arc<str> = self.inserted.to_string().into();
                let endpoint = Endpoint::new(key.to_string()).with_instance(instance.clone());
                self.endpoints.insert(self.inserted, Arc::new(endpoint));
                self.services.insert(instance, service);
                self.changed = true;
                self.keys.insert(key, self.inserted)
            }
            Change::Remove(key) => self.keys.remove(&key),
        };
        if let Some(removed) = before.and_then(|before| self.endpoints.remove(&before)) {
            self.services.depart(&removed);
            self.changed = true;
        }
    }

    fn tell(&mut self) -> Poll<Option<Resolution>> {
        self.changed = false;
        self.batches = 0;
        let set: Endpoints = self.endpoints.values().cloned().collect();
        Poll::Ready(Some(Resolution::Bound(set)))
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        self.services.forget_departed();
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Resolution::Failed(Arc::from(error))));
        }
        // tokio's channels pretend to be empty after 128 items of one poll, which would tell parts of a set. The batches
        // here yield in its stead.
        let batch = pin!(unconstrained(poll_fn(|cx| Poll::Ready(self.take_batch(cx))))).poll(cx);
        let Poll::Ready(pause) = batch else { return Poll::Pending };
        match pause {
            Pause::Yielding if self.batches < BATCHES => {
                self.batches += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ if self.changed => self.tell(),
            Pause::Failed => {
                Poll::Ready(self.failed.take().map(|error| Resolution::Failed(Arc::from(error))))
            }
            Pause::Ended => Poll::Ready(None),
            Pause::Waiting | Pause::Yielding => Poll::Pending,
        }
    }
}

impl<D> Resolve for Discovered<D>
where
    D: Discover + Send + 'static,
    D::Key: Clone + Eq + Hash + fmt::Display + Send + 'static,
    D::Service: Clone + Send + 'static,
    D::Error: Into<BoxError>,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        // One that fails for ever must not keep its task from pausing.
        let budget = ready!(poll_proceed(cx));
        let told = self.poll_told(cx);
        if told.is_ready() {
            budget.made_progress();
        }
        told
    }

    fn describe(&self) -> String {
        format!("discovered, {} at present", self.endpoints.len())
    }
}

impl<D: Discover> fmt::Debug for Discovered<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovered")
            .field("endpoints", &self.endpoints.len())
            .field("ended", &self.discover.is_none())
            .finish_non_exhaustive()
    }
}

/// The services by the instance of their endpoint.
struct Services<S>(Arc<Mutex<Known<S>>>);

struct Known<S> {
    by_instance: HashMap<Arc<str>, S>,
    departed: Vec<Arc<str>>,
}

impl<S: Clone> Services<S> {
    fn lock(&self) -> MutexGuard<'_, Known<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, instance: Arc<str>, service: S) {
        self.lock().by_instance.insert(instance, service);
    }

    fn get(&self, endpoint: &Endpoint) -> Option<S> {
        self.lock().by_instance.get(endpoint.instance()?).cloned()
    }

    fn depart(&self, endpoint: &Endpoint) {
        let mut known = self.lock();
        let Some((instance, _)) = endpoint.instance().and_then(|it| known.by_instance.get_key_value(it))
        else {
            return;
        };
        let instance = instance.clone();
        known.departed.push(instance);
    }

    /// Drops the services of removed endpoints that nobody holds any more: their instance is known here alone.
    fn forget_departed(&self) {
        let mut known = self.lock();
        if known.departed.is_empty() {
            return;
        }
        let mut forgotten = Vec::new();
        let Known { by_instance, departed } = &mut *known;
        departed.retain(|instance| {
            // One is in the map and one in the list.
            let held = Arc::strong_count(instance) > 2;
            if !held {
                forgotten.extend(by_instance.remove(instance));
            }
            held
        });
        // The services' own drops run outside of the lock.
        drop(known);
    }
}

impl<S> Clone for Services<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Default for Services<S> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Known { by_instance: HashMap::new(), departed: Vec::new() })))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use futures::{StreamExt as _, stream};
    use tokio::sync::mpsc;

    use super::*;

    type Told = Result<Change<u16, Arc<str>>, BoxError>;

    /// A discover on a tokio channel, which takes part in tokio's budget.
    fn from_channel(
        mut changes: mpsc::UnboundedReceiver<Told>,
    ) -> impl Discover<Key = u16, Service = Arc<str>, Error = BoxError> {
        stream::poll_fn(move |cx| changes.poll_recv(cx))
    }

    fn insert(key: u16, service: &str) -> Told {
        Ok(Change::Insert(key, service.into()))
    }

    async fn next(resolver: &mut impl Resolve) -> Option<Resolution> {
        poll_fn(|cx| resolver.poll_next(cx)).await
    }

    async fn set(resolver: &mut impl Resolve) -> Endpoints {
        match next(resolver).await {
            Some(Resolution::Bound(set)) => set,
            other => panic!("no set but {other:?}"),
        }
    }

    fn addresses(set: &Endpoints) -> Vec<String> {
        set.iter().map(|endpoint| endpoint.address().to_string()).collect()
    }

    #[tokio::test]
    async fn changes_become_whole_sets_in_the_order_of_insertion() {
        let (tell, changes) = mpsc::unbounded_channel();
        let (mut resolver, _) = discover(from_channel(changes));
        for change in [insert(3, "c"), insert(1, "a"), insert(2, "b"), Ok(Change::Remove(1))] {
            tell.send(change).unwrap();
        }
        assert_eq!(addresses(&set(&mut resolver).await), ["3", "2"]);
        tell.send(Ok(Change::Remove(3))).unwrap();
        assert_eq!(addresses(&set(&mut resolver).await), ["2"]);
    }

    #[tokio::test]
    async fn a_burst_beyond_the_runtimes_budget_is_one_set() {
        let (tell, changes) = mpsc::unbounded_channel();
        let (mut resolver, _) = discover(from_channel(changes));
        (0..10_000).for_each(|key| tell.send(insert(key, "s")).unwrap());
        assert_eq!(set(&mut resolver).await.len(), 10_000);
    }

    #[tokio::test]
    async fn a_source_that_never_pauses_is_heard_and_lets_others_run() {
        let endless = stream::iter(0_u64..).map(|at| Ok::<_, BoxError>(Change::Insert(at % 10, at)));
        let (mut resolver, _) = discover(endless);
        let mut yields = 0;
        let resolution = poll_fn(|cx| {
            let next = resolver.poll_next(cx);
            yields += usize::from(next.is_pending());
            next
        })
        .await;
        assert!(matches!(resolution, Some(Resolution::Bound(set)) if set.len() == 10));
        assert_eq!(yields, BATCHES);
    }

    #[tokio::test]
    async fn a_replaced_service_is_a_new_endpoint_at_the_same_address() {
        let (tell, changes) = mpsc::unbounded_channel();
        let (mut resolver, connect) = discover(from_channel(changes));
        tell.send(insert(1, "old")).unwrap();
        let old = set(&mut resolver).await[0].clone();
        tell.send(insert(1, "new")).unwrap();
        let new = set(&mut resolver).await[0].clone();
        assert_eq!(old.address(), new.address());
        assert_ne!(old.identity(), new.identity());
        assert_eq!((&*connect(&old), &*connect(&new)), ("old", "new"));
    }

    #[tokio::test]
    async fn a_removed_service_is_kept_as_long_as_its_endpoint_and_no_longer() {
        let (tell, changes) = mpsc::unbounded_channel();
        let (mut resolver, connect) = discover(from_channel(changes));
        let service: Arc<str> = "s".into();
        tell.send(Ok(Change::Insert(1, service.clone()))).unwrap();
        let kept = set(&mut resolver).await;
        tell.send(Ok(Change::Remove(1))).unwrap();
        assert!(set(&mut resolver).await.is_empty());
        assert!(poll_fn(|cx| Poll::Ready(resolver.poll_next(cx))).await.is_pending());
        assert_eq!(&*connect(&kept[0]), "s");
        drop(kept);
        assert!(poll_fn(|cx| Poll::Ready(resolver.poll_next(cx))).await.is_pending());
        assert_eq!(Arc::strong_count(&service), 1);
    }

    #[tokio::test]
    async fn an_error_is_told_after_the_set_before_it_and_ends_nothing() {
        let (tell, changes) = mpsc::unbounded_channel();
        let (mut resolver, _) = discover(from_channel(changes));
        for change in [insert(1, "a"), Err("registry down".into()), insert(2, "b")] {
            tell.send(change).unwrap();
        }
        assert_eq!(addresses(&set(&mut resolver).await), ["1"]);
        assert!(
            matches!(next(&mut resolver).await, Some(Resolution::Failed(cause)) if cause.to_string() == "registry down")
        );
        assert_eq!(addresses(&set(&mut resolver).await), ["1", "2"]);
    }

    #[tokio::test]
    async fn a_source_that_fails_for_ever_lets_others_run() {
        let failing = stream::repeat_with(|| Err::<Change<u16, ()>, _>(BoxError::from("registry down")));
        let (mut resolver, _) = discover(failing);
        let told =
            poll_fn(|cx| Poll::Ready((0..10_000).take_while(|_| resolver.poll_next(cx).is_ready()).count()))
                .await;
        assert!((1..1_000).contains(&told), "{told}");
    }

    #[tokio::test]
    async fn the_end_is_told_after_the_last_set_and_nothing_is_polled_again() {
        let mut left = vec![None, Some(Ok::<_, BoxError>(Change::Insert(1, "a")))];
        let once = stream::poll_fn(move |_| {
            Poll::Ready(left.pop().unwrap_or_else(|| panic!("polled after its end")))
        });
        let (mut resolver, _) = discover(once);
        assert_eq!(addresses(&set(&mut resolver).await), ["1"]);
        assert!(next(&mut resolver).await.is_none());
        assert!(next(&mut resolver).await.is_none());
    }
}
