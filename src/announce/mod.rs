//! This process as an instance in a registry: the other half of [`resolve`](crate::resolve).
//!
//! **Problem.** An entry must be there while the process can serve, and at no other time: not before it is ready, not while
//! it is unwell, not after it has gone, even if it went without a word; and not twice, when a session was lost and made anew.
//! **Idea.** The entry hangs on a lease of etcd or a session of ZooKeeper, which end by themselves when nobody speaks up for
//! them. A task speaks up as long as a health check of yours passes. What it has lost it makes anew, after it has removed, in
//! the same transaction, what it had left behind.
//!
//! # When to use it
//! In servers that nobody else announces. Where an orchestrator does (Kubernetes, Nomad, a Nerve beside the process), leave it
//! to that.
//!
//! # Example
//! ```no_run
//! use std::time::Duration;
//! use mainstay::{announce::{Announce, CheckOptions}, registry::Instance};
//! # #[cfg(feature = "etcd")]
//! use mainstay::registry::EtcdCluster;
//!
//! # #[cfg(feature = "etcd")]
//! # async fn serve() -> Result<(), tower::BoxError> {
//! let instance = Instance::new("10.0.0.7:8080").name("users-7").metadata("zone", "eu-1a");
//! let announcement = Announce::etcd(EtcdCluster::new(["etcd-1:2379"]), "services/users", instance)
//!     .check(CheckOptions::default(), || async {
//!         // ask the process whether it is well
//!         Ok::<_, std::io::Error>(())
//!     })
//!     .start()?;
//! // ... serve, until it is time to go:
//! announcement.withdraw().await?; // no new requests come
//! // ... and finish those that are there.
//! # Ok(())
//! # }
//! ```
//!
//! # What happens
//! | when | etcd | ZooKeeper |
//! |---|---|---|
//! | it is announced | a key with a lease \[30 s\], kept three times in its time | an ephemeral, numbered node of the session \[10 s\] |
//! | the process dies without a word | the key goes with its lease | the node goes with its session |
//! | it comes back before that | the key is the same, and is taken over (but where the key says more than the name, as with `NervePath`, and that has changed: then the old one stands until its lease ends) | the old node is removed with the same transaction that makes the new one |
//! | the lease or session is lost | a new lease, the same key | a new session; the old node, if it is still there, is removed as above |
//! | it is [updated](Announcement::update) | the value is put again; where the key says it, the new one is put before the old one goes | the old node is removed with the same transaction that makes the new one |
//! | somebody removes the entry | it is put again at the next keep-alive | it is made again at once |
//! | somebody else announces the same name | the later one stands; the other says so, and waits until the entry is gone | both stand, as they would for Nerve |
//! | the check fails, it is withdrawn or dropped | the lease is ended | the session is ended |
//!
//! What it is at is told by [`Announcement::state`], and each change of it by an event of `tracing` (target
//! `mainstay::announce`): information for what is announced and withdrawn, a warning for what is lost or unwell.
//!
//! # Cost
//! One task, one connection, and two messages each third of the lease, or one each third of the session.
//!
//! # Sources
//! airbnb/nerve: `reporter/zookeeper.rb` and `service_watcher/base.rb`; twitter/finagle: serversets; etcd: leases.

mod builder;
mod check;
#[cfg(feature = "etcd")]
mod etcd;
mod handle;
mod state;
mod task;
#[cfg(feature = "zookeeper")]
mod zookeeper;

pub use builder::{Announce, AnnounceOptions};
pub use check::CheckOptions;
pub use handle::{Announcement, NotWithdrawn};
pub use state::State;
