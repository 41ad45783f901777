//! Names through DNS.

mod answer;
mod ask;
mod options;
mod resolver;

pub use options::{DnsOptions, Families};
pub use resolver::{Dns, dns, srv};
