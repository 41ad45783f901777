//! The one clock of the crate.

use std::time::Instant;

/// The current time of tokio's clock, so that paused-time tests and simulations see the time they set.
///
/// Nothing else in the crate reads a clock. Algorithms take `now` as an argument.
#[inline]
pub fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    tokio::time::Instant::now().into_std()
}
