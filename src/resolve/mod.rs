//! From a name to the endpoints behind it.
//!
//! **Problem.** Instances come and go, and the registry that knows them fails, too. **Idea.** A [`Resolve`] tells whole
//! sets, never differences: [`Resolution`]. What a set means for requests is decided in one place, [`Steady`]: once
//! there was a good set, a registry that is silent, fails, or claims for a moment that nothing exists, changes nothing.
//!
//! ```
//! use mainstay::{Endpoint, resolve};
//!
//! let known = resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]);
//! let (feed, fed) = resolve::channel();
//! feed.set([Endpoint::new("10.0.0.1:80").with_weight(2.0)]);
//! # let _ = (known, fed);
//! ```
//!
//! | where endpoints come from | |
//! |---|---|
//! | a name with a scheme, such as `dns:///users.internal:8080` | [`name`] |
//! | a list that never changes | [`fixed`] |
//! | a host name, through DNS | `dns` and `srv`, with the feature `dns` |
//! | a host name, through the system's resolver | [`system`] |
//! | a file | `file`, with the feature of that name |
//! | a service in Kubernetes, Consul or Eureka | `kubernetes`, `consul`, `eureka`, with the features of these names |
//! | a function that is asked from time to time | [`poll`] |
//! | the application, when it likes; a stream | [`channel`]; [`stream`] |
//! | etcd, ZooKeeper | `etcd`, `zookeeper`, with the features of these names |
//! | a registry of your own that is watched | [`watch`] |
//! | tower's `Discover` | [`discover`] |
//! | several of these | [`first`], [`failover`], [`union`] |
//! | one of these, changed, steadied, or shared by many clients | [`ResolveExt`] |
//! | anything else | your own [`Resolve`] |
//!
//! **Cost.** Nothing of this runs on a request's way.

mod channel;
mod combined;
#[cfg(feature = "consul")]
mod consul;
mod discover;
#[cfg(feature = "dns")]
mod dns;
mod each;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "eureka")]
mod eureka;
mod ext;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(all(fuzzing, feature = "kubernetes", feature = "consul", feature = "eureka"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod options;
mod periodic;
mod poll;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod reading;
mod schemes;
mod shared;
mod stable;
mod steady;
mod stream;
mod system;
mod target;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod told;
mod watched;
#[cfg(feature = "web")]
mod web;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

pub use channel::{Channel, Feed, channel};
pub use combined::{Combined, Failover, First, Merge, Union, failover, first, union};
#[cfg(feature = "consul")]
pub use consul::{Consul, ConsulOptions, Reading, consul};
pub use discover::{Discovered, discover};
#[cfg(feature = "tonic")]
pub use dns::ServiceConfigs;
#[cfg(feature = "dns")]
pub use dns::{Dns, DnsOptions, Families, dns, srv};
pub use each::Each;
#[cfg(feature = "etcd")]
pub use etcd::{Etcd, etcd};
#[cfg(feature = "eureka")]
pub use eureka::{Eureka, EurekaOptions, eureka};
pub use ext::ResolveExt;
#[cfg(feature = "file")]
pub use file::{DocumentError, File, FileOptions, Format, Saved, SavedOptions, file};
pub use fixed::{Fixed, fixed};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{Kubernetes, KubernetesOptions, kubernetes};
pub use options::{PollOptions, WatchOptions};
pub use poll::{Polled, poll};
pub use schemes::{Named, Schemes, name};
pub use shared::Shared;
pub use stable::{Keeper, Stable, StableOptions};
pub use steady::{Effective, Steady};
pub use stream::{Streamed, stream};
pub use system::{System, system};
pub use target::Target;
pub use watched::{Teller, Watched, watch};
#[cfg(feature = "web")]
pub use web::{Access, Pem, Secret};
#[cfg(feature = "zookeeper")]
pub use zookeeper::{ZooKeeper, zookeeper};

use crate::{Endpoint, Invalid, error::Cause};

/// A set of endpoints: shared, complete, without duplicates.
pub type Endpoints = Arc<[Arc<Endpoint>]>;

/// What a resolver knows of a name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Resolution {
    /// Nothing yet.
    Pending,
    /// These endpoints, all of them. An empty set means that the name exists and nobody is there.
    Bound(Endpoints),
    /// The name does not exist.
    Absent,
    /// The look-up failed.
    Failed(Cause),
}

impl Resolution {
    /// These endpoints. Of endpoints with the same identity the first one counts. A weight that is not a positive
    /// finite number makes the whole resolution [`Failed`](Self::Failed), so that the last good set stays.
    pub fn bound<E: Into<Endpoint>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self::shared(endpoints.into_iter().map(|endpoint| Arc::new(endpoint.into())))
    }

    /// [`bound`](Self::bound), of endpoints that others have, too.
    pub fn shared(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        let mut seen = HashSet::new();
        let mut set = Vec::new();
        for endpoint in endpoints {
            let weight = endpoint.weight();
            if !(weight.is_finite() && weight > 0.0) {
                return Self::Failed(Arc::new(BadWeight {
                    endpoint: endpoint.identity().to_string(),
                    weight,
                }));
            }
            if seen.insert(endpoint.identity().clone()) {
                set.push(endpoint);
            }
        }
        Self::Bound(set.into())
    }
}

impl<E: Into<Endpoint>> From<Vec<E>> for Resolution {
    fn from(endpoints: Vec<E>) -> Self {
        Self::bound(endpoints)
    }
}

/// A weight that cannot be balanced by.
#[derive(Debug, thiserror::Error)]
#[error("endpoint {endpoint}: weight = {weight}: a positive finite number")]
struct BadWeight {
    endpoint: String,
    weight: f64,
}

/// Watches what a name stands for.
///
/// It is polled by the background task of a client, never by a request.
pub trait Resolve: Send + 'static {
    /// The next resolution. After `None` it is never polled again, and what it told last stays.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>>;

    /// Asks for an early look-up: what it told last does not seem to be true any more.
    fn refresh(&mut self) {}

    /// What is being resolved, for people: `dns users.internal:8080`.
    fn describe(&self) -> String;

    /// What is wrong with it, asked when a client is built. A resolver that is polled all the same tells this as
    /// [`Resolution::Failed`].
    ///
    /// # Errors
    /// [`Invalid`] with every mistake in its name or options.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Resolve for Box<dyn Resolve> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        (**self).poll_next(cx)
    }

    fn refresh(&mut self) {
        (**self).refresh();
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn validate(&self) -> Result<(), Invalid> {
        (**self).validate()
    }
}

impl fmt::Debug for dyn Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolve({})", self.describe())
    }
}
