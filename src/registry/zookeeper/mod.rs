//! ZooKeeper's protocol, as much of it as is needed. It is driven by whoever holds a [`Connection`]: no task, no channel.

mod connection;
mod ensemble;
mod jute;
mod protocol;
mod session;

pub(crate) use connection::Connection;
pub(crate) use ensemble::is_path;
pub use ensemble::{Acl, Ensemble};
#[cfg(fuzzing)]
pub(crate) use protocol::fuzz;
pub(crate) use protocol::{Code, Event, EventKind, Flags, Op, Request};
pub(crate) use session::Session;
