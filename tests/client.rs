//! The client as a user meets it: one handle over the whole stack, on virtual time, with servers in memory.
#![allow(missing_docs)]

#[path = "client/admission.rs"]
mod admission;
#[path = "client/breaker.rs"]
mod breaker;
#[path = "client/build.rs"]
mod build;
#[path = "client/cancel.rs"]
mod cancel;
#[path = "client/conservation.rs"]
mod conservation;
#[path = "client/deadline.rs"]
mod deadline;
#[path = "client/explain.rs"]
mod explain;
#[path = "client/fleet.rs"]
mod fleet;
#[path = "client/hedging.rs"]
mod hedging;
#[path = "client/life.rs"]
mod life;
#[path = "client/limit.rs"]
mod limit;
#[path = "client/nested.rs"]
mod nested;
#[path = "client/retries.rs"]
mod retries;
#[path = "stage/mod.rs"]
mod stage;
#[path = "client/status.rs"]
mod status;
#[path = "client/threads.rs"]
mod threads;
#[path = "client/tower.rs"]
mod tower_stack;
#[path = "client/update.rs"]
mod update;
#[path = "client/views.rs"]
mod views;
