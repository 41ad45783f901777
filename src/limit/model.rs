//! Every interleaving of entering, leaving, giving up a place, and changing the limit.

use std::{
    sync::{
        Arc,
        // Not loom's: the models keep their books in the order in which things happen, and add no order of their own.
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use loom::thread;

use super::{Algorithm, Entry, Gate, Permit, Ticket};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Somebody who wants in.
#[derive(Default)]
struct Caller(Arc<Woken>);

impl Caller {
    fn acquire(&self, gate: &Gate) -> Entry {
        gate.acquire(&mut Context::from_waker(&Waker::from(self.0.clone())))
    }

    fn wait(&self, gate: &Gate) -> Ticket {
        match self.acquire(gate) {
            Entry::Wait(ticket) => ticket,
            other => panic!("not in line: {other:?}"),
        }
    }

    /// The permit of a ticket whose turn must have come, with a word to its holder.
    fn turn(&self, mut ticket: Ticket) -> Permit {
        assert!(self.0.0.load(SeqCst), "nobody was told");
        match ticket.poll_turn(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => permit,
            Poll::Pending => panic!("the turn was lost"),
        }
    }
}

fn assert_unused(gate: &Gate) {
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
    assert!(gate.limit() == 0 || gate.try_acquire().is_some(), "the fast path stayed closed");
}

#[test]
fn never_more_than_the_limit_are_in() {
    loom::model(|| {
        let (gate, inside) = (Gate::new(1, 1), Arc::new(AtomicUsize::new(0)));
        let visit = |gate: Gate, inside: Arc<AtomicUsize>| {
            move || {
                let enter = |permit: Permit| {
                    assert_eq!(inside.fetch_add(1, SeqCst), 0);
                    inside.fetch_sub(1, SeqCst);
                    drop(permit);
                };
                match Caller::default().acquire(&gate) {
                    Entry::Permit(permit) => enter(permit),
                    Entry::Wait(mut ticket) => {
                        if let Poll::Ready(permit) = ticket.poll_turn(&mut Context::from_waker(Waker::noop()))
                        {
                            enter(permit);
                        }
                    }
                    Entry::Full => {}
                }
            }
        };
        let threads = [(); 2].map(|()| thread::spawn(visit(gate.clone(), inside.clone())));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_unused(&gate);
    });
}

#[test]
fn who_gets_in_line_while_the_last_one_leaves_gets_the_turn() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let leaver = thread::spawn(move || drop(held));
        let caller = Caller::default();
        let entry = caller.acquire(&gate);
        leaver.join().unwrap();
        match entry {
            Entry::Permit(permit) => drop(permit),
            Entry::Wait(ticket) => drop(caller.turn(ticket)),
            Entry::Full => panic!("there was room"),
        }
        assert_unused(&gate);
    });
}

#[test]
fn a_turn_given_to_one_who_gives_up_passes_on() {
    loom::model(|| {
        let gate = Gate::new(1, 2);
        let held = gate.try_acquire().unwrap();
        let (first, second) = (Caller::default(), Caller::default());
        let (gives_up, waits) = (first.wait(&gate), second.wait(&gate));
        let leaver = thread::spawn(move || drop(held));
        let quitter = thread::spawn(move || drop(gives_up));
        leaver.join().unwrap();
        quitter.join().unwrap();
        drop(second.turn(waits));
        assert_unused(&gate);
    });
}

#[test]
fn the_last_in_line_gives_up_while_another_comes() {
    loom::model(|| {
        let gate = Gate::new(1, 2);
        let held = gate.try_acquire().unwrap();
        let gives_up = Caller::default().wait(&gate);
        let quitter = thread::spawn(move || drop(gives_up));
        let caller = Caller::default();
        let ticket = caller.wait(&gate);
        quitter.join().unwrap();
        drop(held);
        drop(caller.turn(ticket));
        assert_unused(&gate);
    });
}

#[test]
fn a_raised_limit_and_a_leaver_let_both_in_line_in() {
    loom::model(|| {
        let gate = Gate::new(1, 2);
        let held = gate.try_acquire().unwrap();
        let callers = [Caller::default(), Caller::default()];
        let tickets = callers.each_ref().map(|caller| caller.wait(&gate));
        let leaver = thread::spawn(move || drop(held));
        gate.set_limit(2);
        leaver.join().unwrap();
        let permits: Vec<Permit> =
            callers.iter().zip(tickets).map(|(caller, ticket)| caller.turn(ticket)).collect();
        assert_eq!(gate.in_flight(), 2);
        drop(permits);
        assert_unused(&gate);
    });
}

#[test]
fn who_gets_in_line_while_the_limit_is_raised_gets_the_turn() {
    loom::model(|| {
        let gate = Gate::new(0, 1);
        let raiser = thread::spawn({
            let gate = gate.clone();
            move || gate.set_limit(1)
        });
        let caller = Caller::default();
        let entry = caller.acquire(&gate);
        raiser.join().unwrap();
        match entry {
            Entry::Permit(permit) => drop(permit),
            Entry::Wait(ticket) => drop(caller.turn(ticket)),
            Entry::Full => panic!("there was room"),
        }
        assert_unused(&gate);
    });
}

#[test]
fn what_is_counted_while_a_round_is_closed_is_in_one_round_only() {
    use std::time::Duration;

    use super::{
        control::{Controller, Pace, Round},
        meter::{Meter, Shown},
    };

    #[derive(Debug)]
    struct Sum(Arc<AtomicUsize>);
    impl Controller for Sum {
        fn limit(&self) -> u32 {
            1
        }
        fn round(&mut self, round: &Round) -> u32 {
            self.0.fetch_add(round.samples as usize, SeqCst);
            1
        }
        fn pace(&self) -> Pace {
            Pace::new(Duration::from_nanos(1), 1, Duration::from_secs(1))
        }
    }

    loom::model(|| {
        let told = Arc::new(AtomicUsize::new(0));
        let meter = Arc::new(Meter::new(Some(Box::new(Sum(told.clone())))));
        // The first round has no beginning, and is none.
        meter.count(Shown::Nothing, 1, 1, |_| ());
        meter.count(Shown::Nothing, 1, 2_000_000_002, |_| ());
        let took = Shown::Took(Duration::from_micros(5));
        let theirs = meter.clone();
        let thread = thread::spawn(move || {
            theirs.count(took, 1, 2_000_000_010, |_| ());
        });
        meter.count(took, 1, 2_000_000_020, |_| ());
        thread.join().unwrap();
        assert_eq!(told.load(SeqCst) + meter.left() as usize, 2);
    });
}

#[test]
fn a_round_that_is_closed_while_another_controller_comes_has_not_the_last_word() {
    use std::time::Duration;

    use super::{
        control::{Controller, Pace, Round},
        meter::{Meter, Shown},
    };

    #[derive(Debug)]
    struct Eight;
    impl Controller for Eight {
        fn limit(&self) -> u32 {
            8
        }
        fn round(&mut self, _: &Round) -> u32 {
            8
        }
        fn pace(&self) -> Pace {
            Pace::new(Duration::from_nanos(1), 0, Duration::from_secs(1))
        }
    }

    loom::model(|| {
        // Loom's: what is set may be read between deciding and setting.
        let limit = Arc::new(loom::sync::atomic::AtomicU32::new(8));
        let meter = Arc::new(Meter::new(Some(Box::new(Eight))));
        meter.count(Shown::Nothing, 1, 1, |_| ());
        let thread = thread::spawn({
            let (meter, limit) = (meter.clone(), limit.clone());
            move || meter.count(Shown::Nothing, 1, 10, |told| limit.store(told, SeqCst))
        });
        meter.replace(&Algorithm::Fixed, |told| limit.store(told.unwrap_or(3), SeqCst));
        thread.join().unwrap();
        assert_eq!(limit.load(SeqCst), 3);
    });
}

#[test]
fn who_is_pushed_out_of_a_line_while_its_turn_comes_holds_no_place() {
    use std::time::Duration;

    use crate::describe::Criticality;

    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let (low, high) = (Caller::default(), Caller::default());
        let now = crate::clock::now();
        let come = |caller: &Caller, class| {
            let waker = Waker::from(caller.0.clone());
            gate.acquire_at(&mut Context::from_waker(&waker), now, Some(Duration::from_secs(1)), class)
        };
        let Entry::Wait(lowest) = come(&low, Criticality::Sheddable) else { panic!("not in line") };
        let leaver = thread::spawn(move || drop(held));
        let entry = come(&high, Criticality::CriticalPlus);
        leaver.join().unwrap();
        match entry {
            Entry::Permit(permit) => drop(permit),
            // Either the lower had its turn before, and passes it on, or it was pushed out.
            Entry::Wait(ticket) => {
                drop(lowest);
                drop(high.turn(ticket));
                assert_unused(&gate);
                return;
            }
            Entry::Full => panic!("somebody in line matters less"),
        }
        drop(lowest);
        assert_unused(&gate);
    });
}
