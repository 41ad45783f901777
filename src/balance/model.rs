//! Every interleaving of waiters and publishers. The snapshot is a word here: what it is made of adds no order that the
//! protocol could lean on.

use std::{
    sync::{
        Arc,
        // Not loom's: it counts wake-ups and adds no order of its own.
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use loom::thread;

use super::wake::WakeSet;
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Board {
    waiters: WakeSet,
    generation: AtomicU64,
}

impl Board {
    fn new() -> Arc<Self> {
        Arc::new(Self { waiters: WakeSet::new(), generation: AtomicU64::new(0) })
    }

    fn publish(&self) {
        self.generation.store(1, Relaxed);
        self.waiters.wake_all();
    }

    /// Registers, then looks; whether it saw the publication or was, or will be, woken is for the end to tell.
    fn wait(&self, woken: &Arc<Woken>) -> (bool, super::wake::Place) {
        let waker = Waker::from(woken.clone());
        let place = self.waiters.join(usize::MAX, &Context::from_waker(&waker)).unwrap();
        (self.generation.load(Relaxed) == 1, place)
    }
}

#[test]
fn a_waiter_that_registers_and_then_looks_never_misses_a_publication() {
    loom::model(|| {
        let board = Board::new();
        let publisher = {
            let board = board.clone();
            thread::spawn(move || board.publish())
        };
        let woken = Arc::new(Woken::default());
        let (saw, place) = board.wait(&woken);
        publisher.join().unwrap();
        assert!(saw || woken.0.load(SeqCst) == 1);
        board.waiters.leave(place);
        assert_eq!(board.waiters.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_looks_again_under_another_waker_misses_nothing() {
    loom::model(|| {
        let board = Board::new();
        let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let (_, place) = board.wait(&first);
        let publisher = {
            let board = board.clone();
            thread::spawn(move || board.publish())
        };
        let waker = Waker::from(second.clone());
        board.waiters.register(&place, &Context::from_waker(&waker));
        let saw = board.generation.load(Relaxed) == 1;
        publisher.join().unwrap();
        assert!(saw || second.0.load(SeqCst) == 1);
        board.waiters.leave(place);
    });
}

#[test]
fn a_cancelled_waiter_takes_nobody_s_wake_up_with_it() {
    loom::model(|| {
        let board = Board::new();
        let (staying, leaving) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let (_, leaver) = board.wait(&leaving);
        let publisher = {
            let board = board.clone();
            thread::spawn(move || board.publish())
        };
        let canceller = {
            let board = board.clone();
            thread::spawn(move || board.waiters.leave(leaver))
        };
        let (saw, place) = board.wait(&staying);
        publisher.join().unwrap();
        canceller.join().unwrap();
        assert!(saw || staying.0.load(SeqCst) == 1);
        board.waiters.leave(place);
        assert_eq!(board.waiters.waiting(), 0);
    });
}

/// A member is too much for a model (its histograms have hundreds of words): this is what its in-flight count does.
#[test]
fn places_in_flight_come_back_exactly_once_whoever_gives_them_back() {
    loom::model(|| {
        let in_flight = Arc::new(AtomicU32::new(0));
        let ends = [(); 2].map(|()| {
            let in_flight = in_flight.clone();
            in_flight.fetch_add(1, Relaxed);
            thread::spawn(move || in_flight.fetch_sub(1, Relaxed))
        });
        for end in ends {
            let before = end.join().unwrap();
            assert!((1..=2).contains(&before), "never below nothing");
        }
        assert_eq!(in_flight.load(Relaxed), 0);
    });
}
