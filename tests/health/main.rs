//! Endpoint health, through the balancer.
#![allow(missing_docs)]

#[path = "../stage/mod.rs"]
mod stage;

mod asked;
mod checks;
mod cut_off;
mod ejection;
mod hands;
mod operations;
mod outliers;
mod probes;
mod sharing;
mod tracked;
mod watches;
