//! Endpoints from the keys of etcd.

mod follow;
mod resolver;

pub use resolver::{Etcd, etcd};
