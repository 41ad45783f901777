//! One value for each key, for a bounded number of keys.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    estimate::slices::Slices,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, Swap, lock},
};

/// How many keys there may be, and how long one is kept that nobody uses.
///
/// A key that is known costs a look into a table that nobody locks. One that is new has the table copied, under a lock that
/// only new keys meet: some 50 ns for each key there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyOptions {
    /// The most keys that are kept \[1,024, 1 to 65,536\].
    pub max_keys: u32,
    /// How long a key is kept without use \[10 min, 1 ms to 10 years\], to a sixteenth. It goes when a new key comes; that of a
    /// rate limit not before its whole burst is there again.
    pub idle: Duration,
}

impl KeyOptions {
    /// Sets [`max_keys`](Self::max_keys).
    pub const fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets [`idle`](Self::idle).
    pub const fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    pub(crate) fn check(&self, check: &mut crate::invalid::Check) {
        check.rule((1..=65_536).contains(&self.max_keys), "max_keys", self.max_keys, "1 to 65,536").rule(
            self.idle >= Duration::from_millis(1) && self.idle <= crate::invalid::FOREVER,
            "idle",
            self.idle,
            "at least 1 ms and at most 10 years",
        );
    }
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self { max_keys: 1_024, idle: Duration::from_secs(600) }
    }
}

/// How finely an idle time is measured: a key that is used writes its word once in this part of it.
const STEPS: u64 = 16;

/// The values. A key that is known is found without a lock, in a map that is replaced whole when a key comes.
pub(crate) struct Keyed<K, V> {
    map: Swap<HashMap<K, Arc<Entry<V>>>>,
    changing: Mutex<()>,
    max_keys: usize,
    steps: Slices,
}

struct Entry<V> {
    value: V,
    used: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone> Keyed<K, V> {
    pub(crate) fn new(options: KeyOptions, now: Instant) -> Self {
        let step = (options.idle / STEPS as u32).max(Duration::from_nanos(1));
        Self {
            map: Swap::new(HashMap::new()),
            changing: Mutex::new(()),
            max_keys: options.max_keys as usize,
            steps: Slices::new(now, step),
        }
    }

    /// The value of `key`, made if it is new. `None` if there are too many keys already and none of them may go: `may_go`
    /// says of a value whether it may, told whether it is idle. All that are idle and may go do so when a key comes, and one
    /// that is not if there is no room.
    pub(crate) fn get(
        &self,
        key: &K,
        now: Instant,
        make: impl FnOnce() -> V,
        may_go: impl Fn(&V, bool) -> bool,
    ) -> Option<V> {
        let step = self.steps.number(now);
        if let Some(entry) = self.map.load().get(key) {
            entry.touch(step);
            return Some(entry.value.clone());
        }
        let _changing = lock(&self.changing);
        let known = self.map.load();
        if let Some(entry) = known.get(key) {
            return Some(entry.value.clone());
        }
        // Nothing is copied for a key that there is no room for: of those there may be very many.
        let stays = |entry: &Entry<V>| entry.used.load(Relaxed) + STEPS > step || !may_go(&entry.value, true);
        let mut stay: Vec<_> = known.iter().filter(|(_, entry)| stays(entry)).collect();
        if stay.len() >= self.max_keys {
            let spare = stay.iter().enumerate().filter(|(_, (_, entry))| may_go(&entry.value, false));
            let oldest = spare.min_by_key(|(_, (_, entry))| entry.used.load(Relaxed))?.0;
            stay.swap_remove(oldest);
        }
        let mut map: HashMap<_, _> =
            stay.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let value = make();
        map.insert(key.clone(), Arc::new(Entry { value: value.clone(), used: AtomicU64::new(step) }));
        self.map.store(map);
        Some(value)
    }

    /// The value of a key that is known. Looking is no use.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.map.load().get(key).map(|entry| entry.value.clone())
    }

    /// Changes all the values there are, while no key comes: those that do later are made after `change`.
    pub(crate) fn change(&self, change: impl FnOnce(Vec<(K, V)>)) {
        let _changing = lock(&self.changing);
        change(self.all());
    }

    /// All the keys and values there are.
    pub(crate) fn all(&self) -> Vec<(K, V)> {
        self.map.load().iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }
}

impl<V> Entry<V> {
    fn touch(&self, step: u64) {
        if self.used.load(Relaxed) < step {
            self.used.store(step, Relaxed);
        }
    }
}

impl<K, V> fmt::Debug for Keyed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("keys", &self.map.load().len())
            .field("max_keys", &self.max_keys)
            .finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: fn(&u32, bool) -> bool = |_, idle| idle;

    fn keyed(max_keys: u32) -> (Keyed<u32, u32>, Instant) {
        let now = crate::clock::now();
        (Keyed::new(KeyOptions::default().max_keys(max_keys).idle(SECOND * 16), now), now)
    }

    fn keys(keyed: &Keyed<u32, u32>) -> Vec<u32> {
        let mut keys: Vec<_> = keyed.all().into_iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_key_has_one_value() {
        let (keyed, now) = keyed(2);
        assert_eq!(keyed.get(&1, now, || 10, IDLE), Some(10));
        assert_eq!(keyed.get(&1, now, || panic!("made twice"), IDLE), Some(10));
    }

    #[test]
    fn idle_keys_go_when_a_new_one_comes() {
        let (keyed, now) = keyed(8);
        for key in 0..4 {
            keyed.get(&key, now + SECOND * key, || key, IDLE);
        }
        keyed.get(&0, now + SECOND * 10, || 0, IDLE);
        keyed.get(&9, now + SECOND * 18, || 9, IDLE);
        assert_eq!(keys(&keyed), [0, 3, 9]);
    }

    #[test]
    fn an_idle_key_that_may_not_go_stays() {
        let (keyed, now) = keyed(8);
        for key in 0..4 {
            keyed.get(&key, now, || key, IDLE);
        }
        keyed.get(&9, now + SECOND * 40, || 9, |value, idle| idle && *value != 2);
        assert_eq!(keys(&keyed), [2, 9]);
    }

    #[test]
    fn when_it_is_full_the_longest_unused_that_nothing_is_lost_with_goes() {
        let (keyed, now) = keyed(3);
        for key in 0..3 {
            keyed.get(&key, now + SECOND * key, || key, IDLE);
        }
        assert_eq!(keyed.get(&7, now + SECOND * 3, || 7, IDLE), None);
        assert_eq!(keyed.get(&7, now + SECOND * 3, || 7, |value, _| *value > 0), Some(7));
        assert_eq!(keys(&keyed), [0, 2, 7]);
    }
}
