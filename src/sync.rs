//! The atomics and locks that are shared between threads: std's, or loom's in the models.
//!
//! Every type of this crate that is proven by a loom model takes its primitives from here, so the model runs the very
//! type that serves requests.

#[cfg(not(mainstay_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(mainstay_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Locks `mutex`, taking what a panicking holder left: every critical section of this crate leaves its state whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Keeps a value on cache lines of its own (two lines: x86 fetches them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// How many stripes a striped counter has: the machine's parallelism, a power of two, at most 32.
pub(crate) fn stripes() -> usize {
    #[cfg(mainstay_loom)]
    return 2;
    #[cfg(not(mainstay_loom))]
    {
        use std::sync::OnceLock;
        static STRIPES: OnceLock<usize> = OnceLock::new();
        *STRIPES.get_or_init(|| {
            std::thread::available_parallelism().map_or(4, usize::from).next_power_of_two().min(32)
        })
    }
}

/// The calling thread's stripe number; reduce it modulo the number of stripes, which is a power of two.
///
/// Threads are numbered as they come, so up to as many threads as stripes never share one.
#[inline]
pub(crate) fn stripe() -> usize {
    use std::{cell::Cell, sync::atomic::AtomicUsize as Plain, sync::atomic::Ordering::Relaxed};
    static NEXT: Plain = Plain::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        let number = mine.get();
        if number != usize::MAX {
            return number;
        }
        let number = NEXT.fetch_add(1, Relaxed) & (usize::MAX >> 1);
        mine.set(number);
        number
    })
}

/// A value that is replaced whole and read without a lock.
///
/// A reader keeps what it has read, whatever is put in its place meanwhile. In a model it is a lock around the pointer:
/// what is proven there is the use that is made of it.
#[derive(Debug)]
pub(crate) struct Swap<T>(Inside<T>);

#[cfg(not(mainstay_loom))]
type Inside<T> = arc_swap::ArcSwap<T>;
#[cfg(mainstay_loom)]
type Inside<T> = Mutex<std::sync::Arc<T>>;

impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inside::new(std::sync::Arc::new(value)))
    }

    #[cfg(not(mainstay_loom))]
    #[inline]
    pub(crate) fn load(&self) -> arc_swap::Guard<std::sync::Arc<T>> {
        self.0.load()
    }

    #[cfg(mainstay_loom)]
    pub(crate) fn load(&self) -> std::sync::Arc<T> {
        lock(&self.0).clone()
    }

    pub(crate) fn store(&self, value: T) {
        let value = std::sync::Arc::new(value);
        #[cfg(not(mainstay_loom))]
        self.0.store(value);
        #[cfg(mainstay_loom)]
        {
            *lock(&self.0) = value;
        }
    }
}
