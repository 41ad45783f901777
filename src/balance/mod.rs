//! The balancer: one service over many endpoints.
//!
//! **Problem.** Instances differ, and differ from one moment to the next: slow, loaded, cold, gone. **Idea.** Of a few
//! endpoints drawn at random the least loaded one gets the request, where load is what this client has in flight there,
//! times how long it takes there on average. The endpoint is picked when the request is sent, not when the service is
//! asked whether it is ready, so the pick sees the request and the freshest load, and a handle that is never called holds
//! nothing.
//!
//! Two draws ("the power of two choices") are what makes the difference where all endpoints are alike and their queues are
//! known. Where they differ and a client sees only its own share of what happens there, four draws and a mean that knows on
//! how many samples it stands have a p99 of 0.65 to 0.75 of what two draws and a peak have: see the lab's `noisy_fleet`.
//! [`BalanceOptions::choices`] and [`Load`] choose.
//!
//! ```
//! use mainstay::{balance::Balance, resolve};
//! use tower::{service_fn, ServiceExt as _};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower::BoxError> {
//! let balance = Balance::new(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]), |endpoint: &mainstay::Endpoint| {
//!     let address = endpoint.address().to_string();
//!     service_fn(move |request: String| {
//!         let answer = format!("{request} to {address}");
//!         async move { Ok::<_, tower::BoxError>(answer) }
//!     })
//! });
//! let answer = balance.oneshot("hello".to_owned()).await?;
//! assert!(answer.starts_with("hello to 10.0.0."));
//! # Ok(())
//! # }
//! ```
//!
//! **How it works.** A background task watches the resolution, dials, and publishes an immutable snapshot of the
//! endpoints; it starts with the first call and ends with the last handle. A call reads the snapshot without a lock,
//! picks, counts itself in at the endpoint, and calls a clone of the endpoint's service. Endpoints that fail are set
//! aside by [`health`](crate::health).
//!
//! **Priorities and zones.** Of the [priorities](crate::Endpoint::with_priority) of endpoints the lowest number keeps
//! everything while enough of its endpoints are available; what they do not cover spills to the next, by Envoy's formula
//! ([`BalanceOptions::overprovisioning`]). Within a priority a client that says where it stands
//! ([`BalanceOptions::localities`]) prefers its own zone, as far as that can take it. The shares are worked out by the
//! background task; a pick draws one of them, and then as always.
//!
//! **Subsets.** With [`BalanceOptions::subset`] a client uses, connects to and keeps state for a part of a large fleet only.
//!
//! **Other rules.** [`BalanceOptions::distribution`] sends requests in turn, or those with the same key to the same endpoint;
//! [`BalanceOptions::sticky`] lets a request name its endpoint. Keys and names come from a
//! [`Describe`](crate::Describe), here told to the [builder](BalanceBuilder::describe):
//!
//! ```
//! use mainstay::{Describe, balance::{Balance, BalanceOptions, Distribution, RingOptions}, describe::key_of, resolve};
//! use tower::{service_fn, BoxError};
//!
//! struct ByUser;
//! impl Describe<String> for ByUser {
//!     fn hash_key(&self, user: &String) -> Option<u64> {
//!         Some(key_of(user.as_bytes()))
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let mut options = BalanceOptions::default();
//! options.distribution = Distribution::Ring(RingOptions::default().bound(150));
//! let caches = Balance::builder(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]))
//!     .connect(|endpoint: &mainstay::Endpoint| {
//!         let address = endpoint.address().to_string();
//!         service_fn(move |_: String| { let address = address.clone(); async move { Ok::<_, BoxError>(address) } })
//!     })
//!     .describe(ByUser)
//!     .options(options)
//!     .build()?;
//! assert_eq!(caches.send("ada".to_owned()).await?, caches.send("ada".to_owned()).await?);
//! # Ok(())
//! # }
//! ```
//!
//! Servers may help: where their answers say what they have in flight, and
//! [`reports`](BalanceOptions::reports) is on, that is what an endpoint's load goes by;
//! [`Distribution::ByReports`] goes round by weights from their utilisation, as gRPC does.
//!
//! For the shortest tail before tens of servers that differ, or whose speed changes, draw among those that have answered last
//! ([`Candidates::Answered`]): requests then keep to the servers that are quick now, and are spread less evenly.
//!
//! **When not.** Behind a proxy or a virtual address that balances by itself there is only one endpoint to see; the
//! health rules then do nothing, and an event says so.
//!
//! **Cost.** No allocation, no lock, two clock reads; see the `overhead` benchmark.
//!
//! **Sources.** Mitzenmacher, "The power of two choices in randomized load balancing"; Finagle's P2C and peak EWMA, which
//! [`Load::PeakEwma`] with two choices is; the constants of the default are from the lab, and stand beside it in the code.

mod alias;
mod answered;
mod aperture;
mod attempt;
mod bell;
mod check;
mod choice;
mod connect;
mod control;
mod distribution;
mod estimator;
mod fleet;
mod groups;
mod hands;
mod hearsay;
mod heat;
mod lane;
mod lease;
mod localities;
mod maglev;
mod member;
#[cfg(all(test, mainstay_loom))]
mod model;
mod options;
mod order;
mod pace;
mod pick;
mod place;
mod pool;
mod priority;
#[cfg(all(test, not(mainstay_loom)))]
mod probe_tests;
mod probes;
mod reported;
mod ring;
mod roster;
mod service;
mod shared;
mod snapshot;
mod status;
mod stride;
mod subset;
mod told;
mod wake;
mod width;
mod zone;

pub use aperture::ApertureOptions;
pub use attempt::Attempt;
pub(crate) use attempt::Untimed;
pub(crate) use check::Checker;
pub use connect::Connector;
pub use distribution::{Distribution, Sticky};
pub(crate) use fleet::Fleet;
pub use hands::EndpointHandle;
pub use hearsay::SharedHealth;
pub use localities::Localities;
pub use maglev::{Maglev, MaglevOptions};
pub use options::{BalanceOptions, BodyOptions, Candidates, Load, Panic, SlowStart};
pub use probes::ProbeOptions;
pub use reported::{ReportedOptions, ReportedWeight};
pub use ring::{Ring, RingOptions};
pub use service::{Balance, BalanceBuilder};
pub use shared::Shared;
pub use status::{
    BalanceStatus, EndpointStatus, OperationStatus, OperationsStatus, PriorityStatus, ZoneStatus,
};
pub use stride::Stride;
pub use subset::{DeterministicOptions, RendezvousOptions, Subset};
