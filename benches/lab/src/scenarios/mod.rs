//! The experiments, one file each.

pub mod blink;
pub mod collapse;
pub mod finagle;
pub mod gc_pauses;
pub mod gray;
pub mod halves;
pub mod hedging_frontier;
pub mod limiter;
pub mod metastable;
pub mod noisy_fleet;
pub mod overload;
pub mod priority;
pub mod reconnect_storm;
pub mod retry_frontier;
pub mod sinkhole;
pub mod slow_replica;
pub mod stage;
pub mod sweep;
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
    &gray::Gray,
    &gc_pauses::GcPauses,
    &metastable::Metastable,
    &retry_frontier::RetryFrontier,
    &collapse::Collapse,
    &overload::Overload,
    &priority::Priority,
    &hedging_frontier::HedgingFrontier,
    &reconnect_storm::ReconnectStorm,
    &limiter::Limiter,
    &blink::Blink,
    &sweep::Sweep,
];

/// Those that wait for their layer.
pub static WAITING: &[Waiting] = &[
    Waiting {
        number: 15,
        name: "cold_start",
        question: "A tenth of the fleet is new and cold: who notices?",
        waits_for: "balancing that is ready for it",
    },
    Waiting {
        number: 16,
        name: "rolling_deploy",
        question: "A hundred servers are replaced in batches: does a request fail?",
        waits_for: "drain and probation in full",
    },
    Waiting {
        number: 17,
        name: "zone_loss",
        question: "A zone goes, or cannot be reached by some: what is lost?",
        waits_for: "localities",
    },
    Waiting {
        number: 19,
        name: "scale",
        question: "A thousand clients of ten thousand endpoints: how even, how large?",
        waits_for: "subsets",
    },
];
