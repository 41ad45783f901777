//! Services in Consul, by their health.

mod follow;
mod parse;
mod resolver;

#[cfg(fuzzing)]
pub(super) use parse::fuzz;
pub use resolver::{Consul, ConsulOptions, Reading, consul};
