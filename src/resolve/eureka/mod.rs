//! Applications in Eureka.

mod follow;
mod parse;
mod registry;
mod resolver;

#[cfg(fuzzing)]
pub(super) use parse::fuzz;
pub use resolver::{Eureka, EurekaOptions, eureka};
