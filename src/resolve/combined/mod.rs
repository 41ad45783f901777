//! Several resolvers as one.

mod branch;
mod merge;
mod service;

#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use merge::{Failover, First, Merge, Union};
pub use service::{Combined, failover, first, union};
