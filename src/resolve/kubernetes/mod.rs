//! Services in Kubernetes, by their EndpointSlices.

mod config;
mod follow;
mod name;
mod resolver;
mod slice;

pub use resolver::{Kubernetes, KubernetesOptions, kubernetes};
