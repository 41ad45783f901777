//! How instances are written into registries: plain functions from bytes to [`Instance`] and back.

mod assemble;
mod base64;
mod grpc;
mod instance;
mod nerve;
mod read;
mod serverset;

pub(crate) use assemble::{Assembly, Node};
pub use instance::{Instance, Status};
pub use read::Encoding;
#[cfg(fuzzing)]
pub(crate) use read::fuzz;
#[cfg(any(feature = "zookeeper", test))]
pub(crate) use read::is_self_contained;
pub(crate) use read::{Entry, Unreadable, read};

#[cfg(all(test, not(mainstay_loom)))]
mod tests;
