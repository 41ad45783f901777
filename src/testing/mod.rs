//! A virtual fleet on tokio's paused clock: what would your policy do in that outage?
//!
//! **Problem.** Timeouts, retries and ejections are set once and needed at night. Whether they help shows only when servers
//! are slow, dead or lying, and staging has no such servers. **Idea.** A fleet that exists in memory, under the layers that
//! will run in production: servers with slots, queues and speeds, that fail in every way there is; a network with delays and
//! broken links; clients that send. Time is virtual, so a minute passes in a fraction of a second, and all chance comes
//! from a seed, so what went wrong once goes wrong again.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::{Ratio, Client, testing::{Classifier, Description, Fleet, OpenLoop, Recorder, ServerOptions, Trouble, simulate}};
//!
//! # fn main() -> Result<(), mainstay::Invalid> {
//! let (from, until) = (Duration::from_secs(5), Duration::from_secs(30));
//! let summary = simulate(7, async |world| {
//!     let fleet = Fleet::builder().servers(10, ServerOptions::default()).build(&world)?;
//!     let users = Client::builder("users")
//!         .resolve(fleet.resolver())
//!         .connect(fleet.connect())
//!         .describe(Description)
//!         .classify(Classifier)
//!         .random(world.random("users"))
//!         .build()?;
//!     // From second 10 on two of the ten answer everything with an error, at once.
//!     for server in [3, 7] {
//!         let broken = fleet.server(server);
//!         world.at(Duration::from_secs(10), move || broken.trouble(Ratio::ONE, Trouble::Fail));
//!     }
//!     let recorder = Recorder::new();
//!     OpenLoop::poisson(300.0, until).run(&world, users, &recorder).await?;
//!     recorder.idle().await;
//!     Ok::<_, mainstay::Invalid>(recorder.summary(from, until))
//! })?;
//! assert!(summary.success() > 0.999, "{}", summary.success());
//! # Ok(())
//! # }
//! ```
//!
//! **What is what.** [`simulate`] makes a [`World`], which keeps time and chance. A [`Fleet`] of servers lives in it; a
//! [`ServerHandle`] troubles one of them, at once or at a time that [`World::at`] is told. [`OpenLoop`] and [`ClosedLoop`]
//! send through any [`tower::Service`] and write down what they see with a [`Recorder`]; servers keep a [`ServerTally`] of
//! what reached them. [`ChaosLayer`] makes trouble in front of a service of yours, virtual or real.
//!
//! **What it can show, and what not.** Everything that follows from queues, delays and decisions. tokio's timers tell whole
//! milliseconds: a server works to the nanosecond, but what clients see comes up to a millisecond late, so let durations
//! whose size matters be 20 ms or more. CPU time of the client costs nothing here. Layers that read std's clock instead of
//! tokio's stand still in virtual time.
//!
//! **When not.** For the bytes of a protocol, use real servers on a loopback socket.

mod chaos;
mod connection;
mod distribution;
mod fleet;
mod load;
mod network;
mod record;
mod request;
mod server;
mod tally;
mod trouble;
mod world;

pub use chaos::{Chaos, ChaosFault, ChaosFuture, ChaosLayer, ChaosOptions, ChaosService};
pub use connection::{Calling, Connection, Dial, Dialling};
pub use distribution::Distribution;
pub use fleet::{Fleet, FleetBuilder, ServerHandle};
pub use load::{ClosedLoop, OpenLoop};
pub use record::{Open, Record, Recorder, Summary};
pub use request::{Classifier, Description, Fault, FaultKind, Reporting, Request, Response};
pub use server::ServerOptions;
pub use tally::{ServerTally, Timeline};
pub use trouble::Trouble;
pub use world::{World, simulate};
