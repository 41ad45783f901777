//! Applications in Eureka.

mod follow;
mod parse;
mod registry;
mod resolver;

pub use resolver::{Eureka, EurekaOptions, eureka};
