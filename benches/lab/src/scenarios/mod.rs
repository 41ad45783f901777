//! The experiments, one file each.

use crate::scenario::{Scenario, Waiting};

/// Those that run.
pub static ALL: &[&dyn Scenario] = &[];

/// Those that wait for their layer.
pub static WAITING: &[Waiting] = &[Waiting {
    number: 8,
    name: "gc_pauses",
    question: "Does hedging hide servers that freeze?",
    waits_for: "hedging",
}];
