//! What servers have done.

use std::time::Duration;

/// The counts of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerTally {
    /// Requests that arrived, whatever became of them.
    pub received: u64,
    /// Handshakes that arrived, whatever became of them.
    pub handshakes: u64,
    /// Served, and wanted to the end.
    pub served: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Turned away: refused, rejected, reset, or asked to come later.
    pub turned_away: u64,
    /// Let go of when the caller gave up.
    pub given_up: u64,
    /// Served to the end for nobody.
    pub wasted: u64,
    /// Time spent in slots, all slots together.
    pub worked: Duration,
}

/// Counts in equal steps of the world's time, [`STEP`](Self::STEP) each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(Vec<u64>);

impl Timeline {
    /// How long a step is.
    pub const STEP: Duration = Duration::from_millis(100);

    pub(super) fn count(&mut self, now: Duration) {
        let step = (now.as_nanos() / Self::STEP.as_nanos()) as usize;
        if self.0.len() <= step {
            self.0.resize(step + 1, 0);
        }
        self.0[step] += 1;
    }

    /// The counts, from the beginning of the world on; what is missing at the end is 0.
    pub fn steps(&self) -> &[u64] {
        &self.0
    }

    /// What was counted from `from` up to before `to`, in whole steps.
    pub fn between(&self, from: Duration, to: Duration) -> u64 {
        let step = |at: Duration| ((at.as_nanos() / Self::STEP.as_nanos()) as usize).min(self.0.len());
        self.0[step(from)..step(to).max(step(from))].iter().sum()
    }
}
