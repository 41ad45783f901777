//! Services in Consul, by their health.

mod follow;
mod parse;
mod resolver;

pub use resolver::{Consul, ConsulOptions, Reading, consul};
