//! What is owed by every registry, shown by one suite that is run over all of them.

mod ledger;
mod servers;
mod suite;
