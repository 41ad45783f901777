//! What is known of a registry by those who read it and those who write to it.
//!
//! **Problem.** Who looks up `services/users` and who announces itself there must mean the same servers, the same rights
//! and the same way to write an instance down. **Idea.** One description of each registry, `EtcdCluster` and
//! `Ensemble`, taken by [`resolve`](crate::resolve) and [`announce`](crate::announce) alike, and one [`Encoding`] of an
//! [`Instance`], read and written by the same functions.
//!
//! # When to use it
//! With `resolve::etcd`, `resolve::zookeeper` and `announce`, wherever a registry is not on this host's loopback, or wants to
//! know who asks.
//!
//! # Encodings
//! | | in | says |
//! |---|---|---|
//! | [`Plain`](Encoding::Plain) | | address |
//! | [`Grpc`](Encoding::Grpc) | etcd | address, metadata; `weight` and `name` among these |
//! | [`Nerve`](Encoding::Nerve), [`NervePath`](Encoding::NervePath) | ZooKeeper, etcd | address, name, weight, labels |
//! | [`Serverset`](Encoding::Serverset) | ZooKeeper | address, additional addresses, status, shard, metadata |
//!
//! What is read becomes an endpoint so:
//! - **Address**: a socket address, or a host and port that the transport looks up. Of several nodes with one address the
//!   fittest counts, and of those the last.
//! - **Weight**: as it says; 0 is told as going away, since nothing may be balanced by it. In a serverset, the product of what
//!   its vectors say of it.
//! - **Status** of a serverset: `ALIVE` and `WARNING` are healthy, `STOPPING` is draining, `STARTING` is unhealthy, `DEAD` and
//!   `STOPPED` are left out; a member that says nothing is taken as it is. Finagle takes those alone that are alive.
//! - **Metadata**: labels and metadata, with `name` and `shard`; `region`, `zone` and `sub_zone` make the locality.
//!
//! # Cost
//! Each node is read once for each change of it. Nothing of this runs on a request's way.
//!
//! # Sources
//! airbnb/nerve `reporter/*.rb`; twitter/finagle `serverset2/Entry.scala`, `Vector.scala`; etcd `client/v3/naming`;
//! RFC 4648 for names in base 64.

mod encoding;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
#[cfg(fuzzing)]
pub mod fuzzing;
mod pace;
mod source;
#[cfg(feature = "etcd")]
mod tls;
mod trouble;
#[cfg(feature = "zookeeper")]
pub(crate) mod zookeeper;

#[cfg(feature = "zookeeper")]
pub(crate) use encoding::is_self_contained;
pub(crate) use encoding::{Assembly, Node};
pub use encoding::{Encoding, Instance, Status};
#[cfg(feature = "zookeeper")]
pub(crate) use encoding::{Entry, read};
#[cfg(feature = "etcd")]
pub use etcd::EtcdCluster;
pub(crate) use pace::Pace;
pub use source::Source;
#[cfg(feature = "etcd")]
pub use tls::Tls;
pub(crate) use trouble::{Skipped, Trouble};
#[cfg(feature = "zookeeper")]
pub use zookeeper::{Acl, Ensemble};
