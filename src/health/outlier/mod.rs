//! Outlier detection: endpoints that are worse than the others.
//!
//! **Problem.** An endpoint that fails one request in ten breaks no rule that looks at it alone, and hurts callers all the
//! same if the others fail one in a thousand. The usual remedy compares success rates with their mean less 1.9 standard deviations, and
//! fails where it matters: with three of ten endpoints bad, the bad ones move the mean down and the deviation up so far that
//! none of them is seen; and where all are good, somebody is always furthest from the mean.
//!
//! **Idea.** Compare with the *median*, which half of the endpoints have to be bad to move, and ask two things: whether the
//! endpoint is worse by so much that it matters, and whether so many failures could be chance. The second is answered by
//! the Chernoff bound: that an endpoint with failure rate `p` shows `f` or more in `n` requests is at most as probable as
//! `exp(-n KL(f || p))`. See [`Robust`].
//!
//! **When to use it.** It is on by default, from five endpoints on. **When not.** An endpoint that is slow, and right, is
//! better given less, which load balancing does; so [`Robust::latency`] is off unless asked for. With traffic too low for
//! 100 requests to each of five endpoints in five minutes nothing is compared; [`Accrual`](super::Accrual) looks at each
//! endpoint alone all the time.
//!
//! What is found is a judgement: it counts under the cap of
//! [`HealthOptions::max_ejected`](super::HealthOptions::max_ejected), and the endpoint comes back as others do, by a request that proves it.
//! The rules of gRPC and Envoy are there by name, for those who compare, with their numbers: [`Grpc`], [`Envoy`].
//!
//! ```
//! use mainstay::{health::outlier::{Outliers, Robust, Sample, Sweep}, random::Seeded};
//!
//! // Of ten endpoints three fail one request in five.
//! let fleet: Vec<_> = (0..10).map(|id| Sample::new(id, 1_000, if id < 3 { 200 } else { 10 })).collect();
//! let mut found = Vec::new();
//! let rules = Outliers::Robust(Robust::default());
//! Sweep::new().run(&rules, &fleet, &Seeded::new(1), &mut |verdict| {
//!     found.push(verdict.id);
//!     true // it goes
//! });
//! found.sort();
//! assert_eq!(found, [0, 1, 2]);
//! ```
//!
//! **Cost.** Nothing on the way of a request: the background task reads what health counts anyway, once in an interval, and sorts it.
//! A thousand endpoints take some 0.1 ms.
//!
//! **Sources.** Envoy's outlier detection (interval, volumes, the masking of which is what the median avoids); gRFC A50;
//! H. Chernoff, *A measure of asymptotic efficiency for tests of a hypothesis based on the sum of observations* (1952);
//! F. Hampel on median and MAD, *The influence curve and its role in robust estimation* (1974).

mod envoy;
mod grpc;
mod robust;
mod rules;
mod sweep;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use envoy::Envoy;
pub use grpc::{FailurePercentage, Grpc, SuccessRate};
pub use robust::{LatencyRule, Robust};
pub use rules::Outliers;
pub use sweep::{Sample, Sweep, Unenforced, Verdict};
