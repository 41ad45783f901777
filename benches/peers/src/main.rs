//! What breakers and limits cost while all goes well: mainstay's beside those of other crates, in one run.
//!
//! ```text
//! cd benches/peers && cargo run --release
//! ```
//!
//! Each row is driven by one thread, then by two that share it; the number is wall time by all calls of both, so perfect scaling
//! halves it. Rows of the same kind take turns, round by round, and the median is told. What is a function is called with a
//! closure that succeeds; what is a service sits on one that answers at once, and is readied and called by a clone of its
//! own.
#![allow(clippy::disallowed_methods, reason = "it measures")]

mod functions;
mod services;

use std::{
    sync::{Arc, Barrier},
    time::Instant,
};

/// Something to be called many times, by one thread of its own.
type Calls = Box<dyn FnMut(u64) + Send>;

/// A row: its name, and what makes the calls of one thread; all that it makes share one breaker or limit.
struct Case {
    kind: &'static str,
    name: &'static str,
    caller: Box<dyn Fn() -> Calls>,
}

const CALLS: u64 = 400_000;
const ROUNDS: usize = 9;

fn main() {
    let mut cases = functions::cases();
    cases.extend(services::cases());
    let mut times = vec![[const { Vec::new() }; 2]; cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            for (threads, times) in [1, 2].into_iter().zip(times) {
                times.push(round(case, threads));
            }
        }
    }
    println!("{:<14}{:<44}{:>14}{:>14}", "kind", "what", "ns, 1 thread", "2 threads");
    for (case, times) in cases.iter().zip(&mut times) {
        let [one, two] = times.each_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        println!("{:<14}{:<44}{one:>14.1}{two:>14.1}", case.kind, case.name);
    }
}

/// Nanoseconds of a call, by the wall.
fn round(case: &Case, threads: usize) -> f64 {
    let gate = Arc::new(Barrier::new(threads + 1));
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let (mut calls, gate) = ((case.caller)(), gate.clone());
            std::thread::spawn(move || {
                calls(CALLS / 20);
                gate.wait();
                calls(CALLS);
                gate.wait();
            })
        })
        .collect();
    gate.wait();
    let start = Instant::now();
    gate.wait();
    let took = start.elapsed();
    for thread in running {
        thread.join().expect("a caller that ends");
    }
    took.as_nanos() as f64 / (CALLS * threads as u64) as f64
}
