//! Virtual time: what happens when, exactly.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::random::{Random as _, Seeded};

/// The order of events of one simulation, and its chance. A clone is a handle to the same world.
///
/// Actions are run at exact times, to the nanosecond, in the order of their times, whatever tokio's timers know: those tell
/// whole milliseconds, so everybody outside sees what happened up to a millisecond late, but nothing that follows from it
/// inside drifts.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    seed: u64,
    epoch: Instant,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    heap: BinaryHeap<Event>,
    sequence: u64,
    /// The exact time of the action that is being run.
    running: Option<Duration>,
    /// What the driver is asleep until; `None` while it is awake.
    asleep: Option<Option<Duration>>,
    driver: Option<Waker>,
}

struct Event {
    at: Duration,
    sequence: u64,
    action: Box<dyn FnOnce() + Send>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// The earliest is the greatest; of the same time, the one that was asked for first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Runs `scene` in a world of its own: on one thread, on tokio's paused clock, with all chance from `seed`. The same seed
/// gives the same result.
///
/// Virtual time costs no real time: a minute of a small fleet passes in well under a second.
///
/// # Panics
/// If the operating system refuses what a runtime needs, or `scene` panics.
pub fn simulate<T, F: Future<Output = T>>(seed: u64, scene: impl FnOnce(World) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime on this thread alone needs next to nothing");
    runtime.block_on(async { scene(World::new(seed)).await })
}

impl World {
    /// A world whose time begins now, on the current runtime; see [`simulate`] for one with a runtime of its own. On a
    /// runtime whose clock is not paused it runs in real time.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let inner =
            Arc::new(Inner { seed, epoch: Instant::from_std(crate::clock::now()), events: Mutex::default() });
        tokio::spawn(Driver {
            inner: Arc::downgrade(&inner),
            sleep: Box::pin(tokio::time::sleep_until(inner.epoch)),
        });
        Self(inner)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The time since the world began: within an action the exact one, elsewhere what tokio's clock says.
    pub fn now(&self) -> Duration {
        self.0.lock().running.unwrap_or_else(|| self.0.passed())
    }

    /// When the world's time is `at`.
    pub fn instant(&self, at: Duration) -> Instant {
        self.0.epoch + at
    }

    /// Waits until the world's time is `at`.
    pub async fn until(&self, at: Duration) {
        tokio::time::sleep_until(self.instant(at)).await;
    }

    /// Runs `action` at `at`, or as soon as may be if that is over. Actions must not block.
    pub fn at(&self, at: Duration, action: impl FnOnce() + Send + 'static) {
        let mut events = self.0.lock();
        events.sequence += 1;
        let sequence = events.sequence;
        events.heap.push(Event { at, sequence, action: Box::new(action) });
        let too_late = events.asleep.is_some_and(|until| until.is_none_or(|until| at < until));
        let driver = if too_late { events.driver.take() } else { None };
        drop(events);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Runs `action` when `after` has passed.
    pub fn after(&self, after: Duration, action: impl FnOnce() + Send + 'static) {
        self.at(self.now() + after, action);
    }

    /// A source of chance of its own for `what`: the same for the same seed, whoever else draws how often.
    pub fn random(&self, what: impl AsRef<[u8]>) -> Seeded {
        let name = what.as_ref().iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        self.random_of(&[name])
    }

    /// The same, named by numbers.
    pub(super) fn random_of(&self, names: &[u64]) -> Seeded {
        let mut word = self.0.seed;
        for name in names {
            word = Seeded::new(word ^ name.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next();
        }
        Seeded::new(word)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passed(&self) -> Duration {
        Instant::from_std(crate::clock::now()).saturating_duration_since(self.epoch)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.0.seed).field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The one task that lets events happen.
struct Driver {
    inner: Weak<Inner>,
    sleep: Pin<Box<Sleep>>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(inner) = self.inner.upgrade() else { return Poll::Ready(()) };
        inner.lock().asleep = None;
        loop {
            let passed = inner.passed();
            let next = loop {
                let mut events = inner.lock();
                match events.heap.peek().map(|event| event.at) {
                    Some(at) if at <= passed => {}
                    next => break next,
                }
                let Some(event) = events.heap.pop() else { break None };
                events.running = Some(event.at);
                drop(events);
                (event.action)();
                inner.lock().running = None;
            };
            if let Some(next) = next {
                self.sleep.as_mut().reset(inner.epoch + next);
                if self.sleep.as_mut().poll(cx).is_ready() {
                    continue;
                }
            }
            let mut events = inner.lock();
            events.asleep = Some(next);
            events.driver = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Actions hold what they act on, which holds the world: without a driver nothing would ever let go.
        if let Some(inner) = self.inner.upgrade() {
            let forgotten = std::mem::take(&mut inner.lock().heap);
            drop(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn actions_happen_in_the_order_of_their_exact_times() {
        let seen = simulate(1, async |world| {
            let seen = Arc::new(Mutex::new(Vec::new()));
            for micros in [10_700_u64, 10_200, 3_000, 10_900] {
                let (own, inner) = (seen.clone(), world.clone());
                world.at(Duration::from_micros(micros), move || {
                    own.lock().unwrap().push(inner.now().as_micros() as u64);
                });
            }
            world.until(MS * 20).await;
            seen.lock().unwrap().clone()
        });
        assert_eq!(seen, [3_000, 10_200, 10_700, 10_900]);
    }

    #[test]
    fn an_action_may_ask_for_others_within_the_same_millisecond() {
        let at = simulate(1, async |world| {
            let at = Arc::new(Mutex::new(Duration::ZERO));
            let (own, inner) = (at.clone(), world.clone());
            world.at(Duration::from_micros(500), move || {
                let again = inner.clone();
                inner.after(Duration::from_micros(100), move || *own.lock().unwrap() = again.now());
            });
            world.until(MS * 2).await;
            *at.lock().unwrap()
        });
        assert_eq!(at, Duration::from_micros(600));
    }

    #[test]
    fn what_is_asked_for_while_everybody_sleeps_is_not_slept_through() {
        simulate(1, async |world| {
            let done = Arc::new(tokio::sync::Notify::new());
            world.at(MS * 500, || {});
            world.until(MS * 10).await;
            let own = done.clone();
            world.after(MS * 5, move || own.notify_one());
            done.notified().await;
            assert_eq!(world.now(), MS * 15);
        });
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed_and_name_and_for_no_other() {
        let draw = |seed, name| simulate(seed, async move |world| world.random(name).next());
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn what_never_happened_is_let_go_with_the_runtime() {
        let held = Arc::new(());
        simulate(1, async |world| {
            let (own, inner) = (held.clone(), world.clone());
            world.at(Duration::from_secs(3_600), move || drop((own, inner)));
        });
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
