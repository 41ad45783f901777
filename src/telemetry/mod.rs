//! What a client tells about itself: events to observers and `tracing`, counters and latencies as plain data.
//!
//! An event is a change somebody may want to be woken for; it is told once, when it happens, outside of any lock, and
//! an observer that panics harms nobody. What happens with every request is only counted.
//!
//! ```
//! use mainstay::telemetry::{Event, Observer};
//!
//! struct Print;
//! impl Observer for Print {
//!     fn event(&self, client: &str, event: &Event) {
//!         println!("{client}: {event}");
//!     }
//! }
//! ```

mod counters;
mod event;

pub use event::{Event, Observer};

pub(crate) use counters::{Counter, Tally};
pub(crate) use event::Observers;
