//! Endpoint health: which endpoints may be given requests, judged by what requests show.
//!
//! **Problem.** An endpoint that is dead, or fails a good part of what it is given, must stop hurting callers within a
//! few requests, and must come back by itself. **Idea.** Every end of an attempt is counted where it happens
//! ([`Accrual`]); when a rule trips, the endpoint is set aside for a growing, jittered time; then one request that may
//! safely be repeated decides whether it comes back ([`Health`]). No state waits for traffic: whatever must happen later
//! has a time, told by [`Health::due`]. What shows only beside the others is found by [`outlier`]; and whoever knows better
//! [drains](Health::drain), [ejects](Health::eject_by_hand) and [restores](Health::restore_by_hand) by hand.
//!
//! **Checks.** Requests are the evidence. [Active checks](Checks) add what they can where there are no requests, by one rule:
//! they take out only what no request has shown to be well since they began to fail, and bring back only what they have
//! taken out. What an endpoint [says of itself](ServingStatus) unasked is a whole run of checks at once, by the same rule.
//!
//! **Operations.** With [`HealthOptions::per_operation`] an operation has a health of its own at each endpoint, by the same
//! rules. It is set aside there alone while another operation, or a request without one, has succeeded at that endpoint within the
//! window; if none has, it is the endpoint that fails. Failures of an operation that is set aside do not count for the endpoint, nor do those that
//! brought it there, but as part of a row: if another operation fails before any has succeeded, nothing works there. At most
//! [`max_ejected`](HealthOptions::max_ejected) of the endpoints are without an operation; beyond that it is the operation that
//! fails, and neither it nor the endpoint is set aside. It is a preference: where no other endpoint may be used, one
//! that is without the operation is. The history of an operation at an endpoint begins with its first failure there. What
//! [`outlier`] compares are whole endpoints.
//!
//! **When not.** With a single endpoint there is nowhere else to go, so nothing is ejected.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use mainstay::health::{Accrual, HealthOptions, Trip};
//!
//! let (options, now) = (HealthOptions::default(), mainstay::clock::now());
//! let accrual = Accrual::new(now, options.window);
//! for _ in 0..4 {
//!     assert_eq!(accrual.failure(now, &options), None);
//! }
//! assert_eq!(accrual.failure(now, &options), Some(Trip::Consecutive)); // the fifth in a row
//! ```
//!
//! **Cost.** A success pays one relaxed increment and one compare-and-swap. A failure takes a lock of its endpoint. With health per
//! operation a success pays a look into a table that nobody locks and at most two stores more, and the same increment and
//! compare-and-swap once again where the operation has failed; its pick goes the longer way: 3,000 instructions for a balanced call where 1,300 are usual. Nothing is allocated.
//!
//! **Sources.** Finagle's failure accrual (hybrid of consecutive failures and windowed success rate, equal-jittered
//! ejection), Envoy's ejection cap, Linkerd's penalty for endpoints that ask to be left alone. What is different: probes
//! are leases that cannot be lost, and a straggler's answer is never taken for a probe's.

mod accrual;
mod check;
mod hands;
mod ledger;
#[cfg(all(test, mainstay_loom))]
mod model;
mod operation;
mod options;
pub mod outlier;
mod state;
mod suspicion;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;
mod trip;

pub use accrual::Accrual;
pub use check::{CheckOptions, Checks, Finding, ServingStatus};
pub use ledger::Ledger;
pub use operation::{Blame, Evidence, Operation, OperationOptions, Operations};
pub(crate) use operation::{SHARED, Successes};
pub use options::HealthOptions;
pub use state::{Health, Lease, Sentence, State, Transition};
pub use trip::{Share, Slowness, Trip};
