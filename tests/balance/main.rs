//! The balancer, from outside.
#![allow(missing_docs)]

#[path = "../stage/mod.rs"]
mod stage;

mod answered;
mod cancel;
mod deadline;
mod dial;
mod distribution;
mod events;
mod handles;
mod hedging;
mod limits;
mod members;
mod options;
mod picks;
mod priorities;
mod probes;
mod readiness;
mod reports;
mod runtimes;
mod shared;
mod subsets;
mod waiting;
mod width;
