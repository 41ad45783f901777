//! gRPC's service config: what the owner of a service says of timeouts, retries, hedges and balancing, method by method.
//!
//! # Problem
//! How often a method may be tried is known to those who wrote its server, not to each of its callers.
//!
//! # Idea
//! gRPC has a JSON document for that, which every gRPC library reads. [`ServiceConfig::parse`] reads it by gRPC's own rules, and
//! says of a wrong one which fields break which; [`ServiceConfig::method`] is the policy for a method.
//! `mainstay::tonic::Client` goes by it.
//!
//! # When to use it
//! Where such a document is there already, or clients in several languages are to behave alike.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::grpc::{Attempts, ServiceConfig};
//!
//! let config = ServiceConfig::parse(r#"{"methodConfig": [{
//!     "name": [{"service": "users.Users", "method": "Get"}, {"service": "orders.Orders"}],
//!     "timeout": "1.5s",
//!     "retryPolicy": {
//!         "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
//!         "retryableStatusCodes": ["UNAVAILABLE"]
//!     }
//! }]}"#)?;
//! let policy = config.method("/users.Users/Get").expect("it is named");
//! assert_eq!(policy.timeout, Some(Duration::from_millis(1_500)));
//! assert!(matches!(&policy.attempts, Attempts::Retry { policy, .. } if policy.max_attempts == 3));
//! assert!(config.method("/users.Users/Put").is_none());
//!
//! let wrong = ServiceConfig::parse(r#"{"retryThrottling": {"maxTokens": 1001, "tokenRatio": 0.1}}"#);
//! assert_eq!(wrong.unwrap_err().problems()[0].field, "retryThrottling.maxTokens");
//! # Ok::<(), mainstay::Invalid>(())
//! ```
//!
//! # Cost
//! One look-up in a hash map for a call of a method that is named, three for one that nothing is said of.
//!
//! # Sources
//! gRPC's `service_config.proto`, gRFCs A2, A6, A17, A24 and A48, and the JSON form of proto3 for what a duration or a number is.

mod balancing;
mod codes;
mod document;
mod method;
mod methods;
mod read;

#[cfg(all(test, not(mainstay_loom)))]
mod tests;

pub use balancing::LoadBalancing;
pub use codes::Codes;
pub use document::{RetryThrottling, ServiceConfig};
pub use method::{Attempts, MethodPolicy};

#[cfg(feature = "tonic")]
pub(crate) use methods::Methods;
