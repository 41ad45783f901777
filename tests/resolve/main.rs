//! What is owed by every registry, shown by one suite that is run over all of them.

#[cfg(feature = "file")]
mod file;
mod ledger;
mod servers;
mod suite;
