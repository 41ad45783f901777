//! What goes wrong with a registry, in words that say where.

use std::{borrow::Cow, error::Error, fmt};

/// What a registry did not do.
#[derive(Debug, thiserror::Error)]
#[error("{registry} at {at}: {doing}: {reason}")]
pub(crate) struct Trouble {
    pub(crate) registry: &'static str,
    /// Which of its servers.
    pub(crate) at: String,
    pub(crate) doing: &'static str,
    pub(crate) reason: String,
}

/// Nodes that could not be read. The others are used.
#[derive(Debug)]
pub(crate) struct Skipped {
    pub(crate) registry: String,
    pub(crate) of: usize,
    pub(crate) nodes: Vec<(String, Cow<'static, str>)>,
}

/// How many of them are told by name.
const TOLD: usize = 5;

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} entries skipped", self.registry, self.nodes.len(), self.of)?;
        for (index, (node, reason)) in self.nodes.iter().take(TOLD).enumerate() {
            let end = node.char_indices().nth(60).map_or(node.len(), |(end, _)| end);
            write!(f, "{}{:?}: {reason}", if index == 0 { ": " } else { "; " }, &node[..end])?;
        }
        if self.nodes.len() > TOLD { f.write_str("; ...") } else { Ok(()) }
    }
}

impl Error for Skipped {}
