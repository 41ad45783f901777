//! Registries that are asked over HTTP: where they are, what is shown to them, and one connection at a time.

mod access;
mod base;
mod error;
#[cfg(feature = "kubernetes")]
mod lines;
mod link;
mod pace;
mod secret;
mod tls;

pub use access::Access;
pub(super) use access::Credential;
pub(super) use base::{Base, escape};
pub(super) use error::{Trouble, WebError};
#[cfg(feature = "kubernetes")]
pub(super) use lines::Lines;
pub(super) use link::Link;
#[cfg(feature = "kubernetes")]
pub(super) use link::Reply;
#[cfg(feature = "consul")]
pub(super) use pace::Pace;
pub(super) use pace::Rest;
pub use secret::{Pem, Secret};
