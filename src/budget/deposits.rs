//! The counting of deposits: a ring of slots per stripe of threads.

use super::SLOTS;
use crate::{
    estimate::slices::Ring,
    sync::{Padded, stripes},
};

/// Deposits of the last [`SLOTS`] slots. Threads write to different cache lines and are summed up by who withdraws.
#[derive(Debug)]
pub(super) struct Deposits(Box<[Padded<Ring<SLOTS>>]>);

impl Deposits {
    pub(super) fn new() -> Self {
        Self((0..stripes()).map(|_| Padded(Ring::new())).collect())
    }

    /// Counts one in `slot`, on the stripe numbered `stripe`. One that is older than what stands in its place is dropped,
    /// which errs on the side of fewer retries.
    #[inline]
    pub(super) fn add(&self, stripe: usize, slot: u64) {
        self.0[stripe & (self.0.len() - 1)].0.add(slot);
    }

    /// What was deposited in `slot` and the `SLOTS - 1` before it. A deposit made meanwhile may be missed, never one
    /// counted that was not made.
    pub(super) fn sum(&self, slot: u64) -> u64 {
        self.0.iter().map(|stripe| stripe.0.sum(slot)).sum()
    }
}
