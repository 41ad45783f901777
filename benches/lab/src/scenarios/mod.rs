//! The experiments, one file each.

pub mod blink;
pub mod cold_start;
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
pub mod registry;
pub mod retry_frontier;
pub mod rolling_deploy;
pub mod scale;
pub mod sinkhole;
pub mod slow_replica;
pub mod stage;
pub mod sweep;
pub mod theory;
pub mod trace;
pub mod zone_loss;

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
    &cold_start::ColdStart,
    &rolling_deploy::RollingDeploy,
    &zone_loss::ZoneLoss,
    &reconnect_storm::ReconnectStorm,
    &scale::Scale,
    &limiter::Limiter,
    &blink::Blink,
    &sweep::Sweep,
];

/// Those that wait for their layer.
pub static WAITING: &[Waiting] = &[];
