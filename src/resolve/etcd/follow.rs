//! From member to member, from list to watch.

use std::collections::BTreeMap;

use tokio::task::yield_now;

use super::resolver::Asked;
use crate::{
    random::below,
    registry::{
        Node, Pace, Trouble,
        etcd::{Change, Connection, Watch},
    },
    resolve::{
        Teller,
        told::{STRIDE, tell},
    },
};

/// Follows the keys for ever: from member to member.
pub(super) async fn follow(asked: Asked, teller: Teller) {
    let mut pace = Pace::new(asked.options.backoff, asked.random.clone());
    let mut turn = below(asked.random.next() as u32, asked.cluster.count()) as usize;
    loop {
        let Err(trouble) = follow_member(&asked, turn, &teller, &mut pace).await;
        teller.failed(trouble);
        turn = turn.wrapping_add(1);
        pace.rest().await;
    }
}

/// Follows the keys as long as one member tells of them.
async fn follow_member(
    asked: &Asked,
    turn: usize,
    teller: &Teller,
    pace: &mut Pace,
) -> Result<std::convert::Infallible, Trouble> {
    let prefix = format!("{}/", asked.prefix.trim_end_matches('/'));
    let mut connection = Connection::open(asked.cluster.clone(), turn).await?;
    loop {
        let listing = connection.list(&prefix).await?;
        let mut known = Known { asked, prefix: &prefix, nodes: BTreeMap::new() };
        for (index, key) in listing.keys.into_iter().enumerate() {
            known.change(Change::Put(key));
            if index % STRIDE == STRIDE - 1 {
                yield_now().await;
            }
        }
        known.tell(teller).await;
        let mut watch = connection.watch(&prefix, listing.revision + 1).await?;
        pace.stands();
        known.follow(&mut watch, teller).await?;
    }
}

/// What the keys say.
struct Known<'a> {
    asked: &'a Asked,
    prefix: &'a str,
    nodes: BTreeMap<String, Node>,
}

impl Known<'_> {
    /// Follows `watch` until what it would tell has been compacted.
    async fn follow(&mut self, watch: &mut Watch, teller: &Teller) -> Result<(), Trouble> {
        while let Some(changes) = watch.next().await? {
            let mut changed = self.take(changes);
            // What comes in a burst is told once.
            while let Some(more) = watch.ready() {
                let Some(changes) = more? else { return Ok(()) };
                changed |= self.take(changes);
            }
            if changed {
                self.tell(teller).await;
            }
        }
        Ok(())
    }

    fn take(&mut self, changes: Vec<Change>) -> bool {
        let changed = !changes.is_empty();
        changes.into_iter().for_each(|change| self.change(change));
        changed
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Put(kv) => {
                let name = self.name(&kv.key);
                let node = self.asked.reading.node(last(&name), &kv.value);
                self.nodes.insert(name, node);
            }
            Change::Deleted(key) => _ = self.nodes.remove(&self.name(&key)),
        }
    }

    /// What of a key tells it from the others.
    fn name(&self, key: &[u8]) -> String {
        let key = String::from_utf8_lossy(key);
        key.strip_prefix(self.prefix).unwrap_or(&key).to_owned()
    }

    async fn tell(&self, teller: &Teller) {
        let nodes = self.nodes.iter().map(|(name, node)| (last(name), node));
        tell(teller, self.asked.shown(), nodes).await;
    }
}

/// What an instance is called by the end of its key.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}
