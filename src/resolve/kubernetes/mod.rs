//! Services in Kubernetes, by their EndpointSlices.

mod config;
mod follow;
mod name;
mod resolver;
mod slice;

#[cfg(fuzzing)]
pub(super) use config::fuzz as fuzz_config;
pub use resolver::{Kubernetes, KubernetesOptions, kubernetes};
#[cfg(fuzzing)]
pub(super) use slice::fuzz as fuzz_slices;
