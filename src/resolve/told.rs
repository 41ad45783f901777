//! How the nodes of a registry are told as a set.

use tokio::task::yield_now;

use super::{Resolution, Teller};
use crate::registry::{Assembly, Node, Skipped};

/// How many nodes are looked at before others on this task have their turn.
pub(super) const STRIDE: usize = 64;

/// Tells what `nodes` say, and then which could not be read. Where nothing could be, nothing is taken away.
pub(super) async fn tell<'a>(
    teller: &Teller,
    registry: String,
    nodes: impl Iterator<Item = (&'a str, &'a Node)> + Clone,
) {
    let mut assembly = Assembly::weighing(nodes.clone().map(|(_, node)| node));
    let mut of = 0;
    for (name, node) in nodes {
        assembly.take(name, node);
        of += 1;
        if of % STRIDE == 0 {
            yield_now().await;
        }
    }
    let skipped = std::mem::take(&mut assembly.skipped);
    let endpoints = assembly.finish();
    if !endpoints.is_empty() || skipped.is_empty() {
        teller.tell(Resolution::Bound(endpoints));
    }
    if !skipped.is_empty() {
        teller.failed(Skipped { registry, of, nodes: skipped });
    }
}
