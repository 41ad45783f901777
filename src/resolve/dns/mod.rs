//! Names through DNS.

mod answer;
mod ask;
#[cfg(feature = "tonic")]
mod config;
mod options;
mod resolver;

#[cfg(feature = "tonic")]
pub use config::ServiceConfigs;
pub use options::{DnsOptions, Families};
pub use resolver::{Dns, dns, srv};
