//! Retries and deadlines as a user meets them: the layers alone, and over the balancer, on virtual time.

#[path = "retry/attempts.rs"]
mod attempts;
#[path = "retry/budget.rs"]
mod budget;
#[path = "retry/cancel.rs"]
mod cancel;
#[path = "retry/deadline.rs"]
mod deadline;
#[path = "retry/endpoints.rs"]
mod endpoints;
#[path = "retry/lists.rs"]
mod lists;
#[path = "retry/readiness.rs"]
mod readiness;
#[path = "retry/server.rs"]
mod server;
#[path = "retry/stacking.rs"]
mod stacking;
#[path = "retry/waits.rs"]
mod waits;
