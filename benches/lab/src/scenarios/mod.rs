//! The experiments, one file each.

pub mod collapse;
pub mod finagle;
pub mod halves;
pub mod metastable;
pub mod noisy_fleet;
pub mod retry_frontier;
pub mod sinkhole;
pub mod slow_replica;
pub mod stage;
pub mod theory;
pub mod trace;

use crate::scenario::{Scenario, Waiting};

/// Those that run, by their rows.
pub static ALL: &[&dyn Scenario] = &[
    &theory::Theory,
    &slow_replica::SlowReplica,
    &finagle::Finagle,
    &noisy_fleet::NoisyFleet,
    &halves::Halves,
    &sinkhole::Sinkhole,
    &metastable::Metastable,
    &retry_frontier::RetryFrontier,
    &collapse::Collapse,
];

/// Those that wait for their layer.
pub static WAITING: &[Waiting] = &[Waiting {
    number: 8,
    name: "gc_pauses",
    question: "Does hedging hide servers that freeze?",
    waits_for: "hedging",
}];
