//! etcd's protocol, as much of it as is needed, written by hand: what generates it wants a `protoc`.

mod cluster;
mod connection;
mod messages;
mod watch;

pub use cluster::EtcdCluster;
pub(crate) use connection::Connection;
pub(crate) use watch::{Change, Watch};
