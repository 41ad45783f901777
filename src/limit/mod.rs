//! At most so many requests at a time.
//!
//! # Problem
//! A server that is given more requests than it can work on at once answers all of them late. A caller that queues
//! without bound turns that into latency and memory of its own.
//!
//! # Idea
//! A [`Gate`] counts who is in. Others wait in line: bounded in number, first come first served, each only until its
//! deadline or for at most a set time. Beyond that they are refused at once with
//! [`Reason::Limit`](crate::Reason::Limit), and nothing was sent.
//!
//! The place is taken inside the response future, not in `poll_ready`. A handle that is ready and not called holds
//! nothing, and shedding load by readiness cannot strand a place on a handle that went idle. A waiting request that is
//! dropped passes its turn on.
//!
//! How many may be in is a number, or what a [`control::Controller`] decides from what requests show. The default of those,
//! [`control::Ebb`], needs no number: it lets a few more in than the servers work on, finds that by lowering the limit a little now
//! and then, and never grows while it is not used. Aimd, Vegas and Gradient2 are there with their sources' defaults.
//!
//! # When to use it
//! Where you know how much a server, a pool or a disk can do at once, or want it found out. Not to bound a rate: a limit of
//! 10 is a hundred requests a second or a hundred thousand, as latency has it.
//!
//! # Example
//! ```
//! use mainstay::limit::{Algorithm, ConcurrencyLimitLayer, ConcurrencyLimitOptions};
//! use tower::{BoxError, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let limit = ConcurrencyLimitLayer::new(ConcurrencyLimitOptions::default().limit(10))?.label("reports");
//! let mut reports = ServiceBuilder::new()
//!     .layer(limit.clone())
//!     .service(service_fn(|page: u32| async move { Ok::<_, BoxError>(page) }));
//! assert_eq!(reports.ready().await?.call(7).await?, 7);
//! // While it runs: another number, or none at all.
//! limit.update(&ConcurrencyLimitOptions::default().limit(20))?;
//! limit.update(&ConcurrencyLimitOptions::default().algorithm(Algorithm::adaptive()))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Queues
//!
//! | [`Queue`] | who is next | how long one may wait |
//! |---|---|---|
//! | none (`max_waiting(0)`) | nobody waits | 0 |
//! | `Fifo` | the first | `max_wait` \[1 s\] |
//! | `Lifo` | the first; under pressure the last | `max_wait` |
//! | `CoDel` | the first | `interval` \[100 ms\]; under pressure `target` \[5 ms\] |
//!
//! Pressure means that the line has not been empty for an interval. Whoever has a deadline, and cannot expect a turn before
//! it by the pace of those before, is refused at once.
//!
//! In all of them who matters more, by the [criticality](crate::describe::Criticality) that a request inherits or its
//! description tells a client, is served first; in a full line it takes the place of the newest of those who matter least.
//!
//! # Next door
//! [`rate`] limits how many go in a time, [`quota`] does so for several processes, [`throttle`] keeps back what the servers would turn away, and [`shed`] refuses what a
//! service is not ready for.
//!
//! # Which algorithm
//! On a simulated server with exponential work, from 10 s after each change of the network's latency on (2, 42, 2 ms; twenty
//! seeds; `cargo test --lib limit::control -- --ignored --nocapture`), throughput as a share of capacity, and latency as a
//! multiple of that without a queue: the median, and the range. The others, with their range widened to 1 to 1,000, begin at
//! 20 and move by steps of a second:
//!
//! | slots | Ebb | Vegas | Gradient2 | Aimd (without drops) |
//! |---|---|---|---|---|
//! | 4 | 93 (79 to 100) %, 1.3 (1.2 to 2.0) | 101 (97 to 104) %, 5.0 (2.3 to 6.0) | 101 (97 to 104) %, 8.5 (4.8 to 11.5) | 101 (97 to 104) %, 10.5 (9.7 to 29.7) |
//! | 20 | 94 (81 to 99) %, 1.3 (1.1 to 1.5) | 100 (25 to 102) %, 1.1 (1.0 to 1.2) | 99 (90 to 102) %, 1.7 (1.0 to 2.2) | 100 (98 to 102) %, 2.1 (2.0 to 5.9) |
//! | 80 | 97 (95 to 99) %, 1.4 (1.3 to 1.6) | 39 (7 to 74) %, 1.0 | 47 (18 to 60) %, 1.0 | 53 (51 to 101) %, 1.0 (1.0 to 1.5) |
//!
//! In a crowd, where twenty such clients share a fleet of 20 servers and ask for twice what it can do, those clients get 99.9 % of
//! its capacity as answers (without a limit 15 %), with a 99th percentile of 2.3 times the unloaded one; of the highest of
//! three classes all are answered (`tests/flow.rs`). Before a single server with 80 slots Ebb that is told
//! [`longest`](control::EbbOptions::longest) = 126 ms, three times the latency without a queue, keeps the mean under 140 ms and
//! the slots over 95 % busy; told nothing it creeps up there.
//!
//! Aimd is for services that turn requests away when they have too many: it looks at drops alone.
//!
//! # Cost
//! A request that need not wait: one atomic operation to enter and one to leave, on one word that all requests of the
//! limit share, besides a clone of the inner service and of two handles. No lock, no allocation, no clock read unless
//! there is a deadline. An adaptive limit adds two clock reads and one addition to a word of the thread's own; one request
//! in a round, ten times a second or less, takes a lock that nobody waits for. One that waits takes a lock, a node of a
//! tree, and the one timer of its request.
//!
//! A place is held until the response future is done, or dropped; with [`track`](ConcurrencyLimitLayer::track) until the
//! body of the response has ended, for one allocation.
//!
//! # Sources
//! Netflix's concurrency-limits for Aimd, Vegas, Gradient2 and their rounds; Facebook's *Fail at Scale* (ACM Queue 2015) for
//! the queues; Uber's Cinnamon for what becomes of a least latency in a long overload; quinn-proto for the form of the
//! controllers.

pub mod control;
mod future;
mod gate;
mod judge;
mod layer;
mod limiter;
mod meter;
mod options;
pub mod quota;
pub mod rate;
mod service;
pub mod shed;
pub mod throttle;

#[cfg(all(test, mainstay_loom))]
mod model;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use future::ResponseFuture;
pub use gate::{Entry, Gate, Permit, Ticket};
pub use judge::{AtEnd, AtHead, Held, Judges};
pub use layer::ConcurrencyLimitLayer;
pub use limiter::LimitStatus;
pub use options::{Algorithm, ConcurrencyLimitOptions, Queue};
pub use service::ConcurrencyLimit;

pub(crate) use judge::timed_out;
pub(crate) use limiter::{Entering, Limiter, Place};
pub(crate) use meter::{Meter, Shown};
