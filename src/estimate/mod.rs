//! What is known of an endpoint from the past: how slow, how reliable, how its latencies are spread.
//!
//! # Problem
//! Choosing an endpoint, ejecting one and delaying a hedge all rest on a summary of what happened lately. It is written
//! with every response and read with every pick, by all threads at once, for thousands of endpoints.
//!
//! # Idea
//! Five summaries, each a handful of atomic words that need no lock and no background task. Time is an argument, and
//! reading changes nothing.
//!
//! | type | answers | bytes |
//! |---|---|---|
//! | [`FadingMean`] | how slow is it, and on how many samples does that stand? | 8 |
//! | [`PeakEwma`] | how slow was it at its worst, lately? | 8 |
//! | [`SuccessRate`] | which share succeeded in the last so many seconds? | 192 |
//! | [`Histogram`], [`Counts`] | which latency do 99 % stay under? | 832 |
//! | [`Recent`] | the same for the last 30 to 60 s | 1,680 once used |
//!
//! # When to use it
//! When you write a load metric, a health rule or a delay of your own. The balancer, the health rules and the hedge
//! use them already. For figures that leave the process use a metrics library: these forget.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::{Outcome, estimate::{Decay, PeakEwma, Recent, SuccessRate}};
//!
//! let epoch = mainstay::clock::now();
//! let ms = Duration::from_millis;
//!
//! // A peak counts at once and is forgotten slowly.
//! let decay = Decay::new(epoch, ms(10_000));
//! let latency = PeakEwma::new();
//! latency.observe(decay.at(epoch), ms(10));
//! latency.observe(decay.at(epoch + ms(100)), ms(90));
//! assert_eq!(latency.value(decay.at(epoch + ms(100))), Some(90e6));
//! assert!(latency.value(decay.at(epoch + ms(10_100))) < Some(34e6));
//!
//! let rate = SuccessRate::over(ms(30_000), epoch);
//! rate.record(epoch, Outcome::Success);
//! rate.record(epoch, Outcome::Failure);
//! assert_eq!(rate.rate(epoch), Some(0.5));
//!
//! let recent = Recent::new(epoch, Recent::PERIOD);
//! recent.record(epoch, ms(20));
//! let median = recent.counts(epoch).quantile(0.5).unwrap();
//! assert!(median > ms(18) && median < ms(22));
//! ```
//!
//! # Cost
//! A read of [`PeakEwma`] or [`FadingMean`] is 12 to 35 instructions. A record is one load and at most one atomic write, on words that
//! only the users of the same endpoint share.
//!
//! # Sources
//! [`Survival`]: E. L. Kaplan and P. Meier, "Nonparametric Estimation from Incomplete Observations" (1958). Peak EWMA: Finagle's `PeakEwma`. Log-linear buckets: Gil Tene's HdrHistogram. A ring of slices with their numbers: the
//! windowed adders of Finagle and of go-zero, without their lock.

mod ewma;
mod histogram;
mod mean;
mod memo;
#[cfg(all(test, mainstay_loom))]
mod model;
mod quantile;
mod recent;
pub(crate) mod slices;
mod survival;
mod window;

pub use ewma::{Decay, Moment, PeakEwma};
pub(crate) use histogram::bucket_of;
pub use histogram::{Counts, Histogram};
pub use mean::{FadingMean, Known};
pub(crate) use memo::Memo;
pub use quantile::FadingQuantile;
pub use recent::Recent;
pub use survival::Survival;
pub use window::SuccessRate;
