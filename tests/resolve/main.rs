//! What is owed by every registry, shown by one suite that is run over all of them.

#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "dns")]
mod dns_answers;
#[cfg(feature = "file")]
mod file;
mod ledger;
#[cfg(feature = "dns")]
mod process;
mod servers;
mod suite;
