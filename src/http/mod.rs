//! HTTP: what the layers may know of a request, what an answer says about its endpoint, and how long an attempt lasts.
//!
//! # The parts
//!
//! - [`Description`] tells which requests may be repeated, copies them, and writes the wire headers.
//! - [`Classifier`] gives the verdict on an answer: 5xx and transport errors fail; 429, and 503 with `Retry-After`, ask
//!   for time; any other 4xx is the caller's fault and a success of the endpoint.
//! - [`Replay`] is a request body of which copies can be made, up to a limit, while it is being sent.
//! - [`HttpCheck`] asks an endpoint whether it is well, for [active checks](crate::health::Checks).
//! - [`BodyTrack`] lets an attempt last to the end of the response body, for services whose responses carry a
//!   [`Tracked`] body; [`TrackBodyLayer`] gives any HTTP service such responses.
//!
//! # The caller's word
//!
//! What the method of a request says is overridden by the request's extensions: [`Idempotent`], [`Operation`],
//! [`HashKey`], and [`Criticality`](crate::describe::Criticality).
//!
//! ```
//! use http::{Method, Request};
//! use http_body_util::Full;
//! use mainstay::{Describe, http::{Description, Idempotent, Operation, Replay}};
//!
//! let mut search = Request::post("/search").body(Replay::new(Full::<bytes::Bytes>::from("q=mast"))).unwrap();
//! let description = Description::default();
//! assert!(!description.is_idempotent(&search));
//!
//! search.extensions_mut().insert(Idempotent(true)); // this POST only reads
//! search.extensions_mut().insert(Operation::from("search"));
//! assert!(description.is_idempotent(&search));
//! assert_eq!(description.operation(&search), Some("search"));
//!
//! let copy = description.copy(&mut search).expect("the body is short");
//! assert_eq!(copy.method(), Method::POST);
//! ```
//!
//! # What it costs
//!
//! A body that is never copied passes through [`Replay`] without a lock or an allocation. The first copy allocates once,
//! and from then on each frame of the body costs an uncontended lock. Copying a request clones its header map.

mod body;
mod body_clock;
mod check;
mod classify;
mod describe;
mod errors;
mod extensions;
mod in_flight;
mod retry_after;
mod shared;
mod track;
mod unprocessed;
mod unsendable;

#[cfg(feature = "hyper")]
pub(crate) use body::into_bytes;
pub use body::{Replay, ReplayError};
#[cfg(feature = "reqwest")]
pub(crate) use body_clock::{BodyClock, is_over};
pub use check::HttpCheck;
pub use classify::Classifier;
pub use describe::{Description, DescriptionOptions, HashBy};
pub use errors::of_error;
pub use extensions::{HashKey, Idempotent, Operation, Wanted};
pub use in_flight::InFlightHeader;
pub use track::{BodyTrack, TrackBody, TrackBodyFuture, TrackBodyLayer, Tracked};
pub use unprocessed::UNPROCESSED;
pub use unsendable::Unsendable;

#[cfg(feature = "server")]
pub(crate) use describe::FRAMING;
#[cfg(feature = "reqwest")]
pub(crate) use describe::is_idempotent_by;
#[cfg(feature = "grpc")]
pub(crate) use describe::{stamp_criticality, with_body};
#[cfg(feature = "grpc")]
pub(crate) use unprocessed::is_unprocessed;
