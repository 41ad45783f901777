//! Stops calling what fails, and tries it again with care.
//!
//! # Problem
//! When a service fails most of what it is sent, every further call costs its caller time and the service work that it
//! cannot spare. Retries and queues make it worse. Somebody has to stop calling, notice when calling makes sense again,
//! and not lose his way in between.
//!
//! # Idea
//! A [`CircuitBreaker`] counts how calls end, in a window that really slides. When a rule is broken it *opens*: calls are
//! refused at once, with the time that remains and the reason, and nothing is sent. After that time it is *half-open*: a
//! few calls, each with a lease, decide whether it closes. Each state has a number, and a call that began in an earlier
//! one changes nothing.
//!
//! ```text
//!   closed --- a rule is broken ---> open --- time over ---> half-open --- enough probes succeed ---> closed
//!                                      ^                        |
//!                                      +--- too many fail, or none ends in time
//! ```
//!
//! # When to use it
//! For a whole client, one of its methods, or any service whose callers have something better to do than to wait for an
//! error. Endpoints of a [`Balance`](crate::balance::Balance) have their [`health`](crate::health) instead: one bad
//! instance is no reason to stop calling the others. Around several services at once a breaker does harm: one of them
//! closes the door to all; use a [`KeyedBreakerLayer`].
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use mainstay::{Error, Reason, breaker::{BreakerLayer, BreakerOptions, State}};
//! use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let options = BreakerOptions::default().consecutive(3).open(Duration::from_secs(2));
//! let layer = BreakerLayer::new(options)?.label("reports");
//! let breaker = layer.handle();
//! let reports = ServiceBuilder::new()
//!     .layer(layer)
//!     .service(service_fn(|_: u32| async { Err::<u32, BoxError>("no disk".into()) }));
//! for page in 0..3 {
//!     assert!(reports.clone().oneshot(page).await.is_err());
//! }
//! assert_eq!(breaker.state(), State::Open);
//! let refused = reports.oneshot(3).await.unwrap_err();
//! let refused = Error::find(&*refused).expect("an error of ours");
//! assert_eq!(refused.reason(), Reason::Breaker);
//! assert!(refused.retry_after() > Some(Duration::from_secs(1)));
//! breaker.reset(); // or force_open, open_for, disable, measure_only, update
//! # Ok(())
//! # }
//! ```
//!
//! # Options
//! [`BreakerOptions`] has them all with their defaults: [the last 100 calls, of which at least 20, 50 % failed; open for 5 s;
//! one probe]. What tells a failure is the [`Classify`](crate::Classify) of the innermost layer; back-off answers (429, 503
//! with `Retry-After`) are no failures, and may open it by themselves
//! ([`open_when_asked`](BreakerOptions::open_when_asked)).
//!
//! # Events
//! [`BreakerOpened`](crate::telemetry::Event::BreakerOpened) at error level, `BreakerHalfOpened`, `BreakerForced` and
//! `BreakerExceeded` as warnings, `BreakerClosed`; in the order in which they happened, outside of any lock. With a tokio
//! runtime they come at their time whether there are calls or not.
//!
//! # Do and don't
//! - Do retry *outside* of the breaker: a refusal is final, and a retry layer does not repeat it.
//! - Do set [`min_calls`](BreakerOptions::min_calls) to what you would believe: of two calls, one fails now and then.
//! - Don't let an open breaker stand for a dead one: it is told once, at error level; alert on that.
//! - Don't count the caller's mistakes: a 404 is a success of the service.
//!
//! # Cost
//! Closed: one load to enter; to leave, a guarded pointer, one addition to a word that all calls share, and a few loads. No
//! lock, no allocation, no clock. A window of time adds a clock read and a compare-and-swap, slow calls a clock read. With a
//! [`Track`](crate::Track) each response costs one allocation. A refusal takes a lock.
//!
//! # Sources
//! Michael Nygard's *Release It!* for the idea; resilience4j for the states and rules, with its ring of buckets;
//! gobreaker for generations. What is different: probes are leases that cannot be lost, nothing is read by a wall clock,
//! and reading changes nothing.

mod circuit;
mod future;
mod handle;
mod keyed;
mod layer;
mod live;
#[cfg(all(test, mainstay_loom))]
mod model;
mod open_time;
mod options;
mod period;
mod service;
mod state;
mod teller;
#[cfg(all(test, not(mainstay_loom)))]
mod tests;
mod window;

pub use circuit::{Admission, CircuitBreaker};
pub use future::ResponseFuture;
pub use handle::BreakerHandle;
pub use keyed::{KeyedBreaker, KeyedBreakerLayer, KeyedBreakers};
pub use layer::BreakerLayer;
pub use open_time::{OpenTime, Opening};
pub use options::{BreakerOptions, Lapse, Window};
pub use service::Breaker;
pub use state::{BreakerStatus, Change, Moved, Refusal, State, Trip};

pub(crate) use live::{Owner, Pass};
pub(crate) use service::Judge;
