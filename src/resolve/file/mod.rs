//! Endpoints from a file that people or programs write.

mod document;
mod saved;
mod watch;

pub use document::{DocumentError, Format};
pub use saved::{Saved, SavedOptions};
pub use watch::{File, FileOptions, file};
