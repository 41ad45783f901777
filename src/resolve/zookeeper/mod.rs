//! Endpoints from the children of a node of ZooKeeper.

mod follow;
mod resolver;

pub use resolver::{ZooKeeper, zookeeper};
