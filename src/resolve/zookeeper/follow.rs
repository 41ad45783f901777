//! From server to server, from list to event.

use std::{collections::BTreeMap, convert::Infallible};

use tokio::task::yield_now;

use super::resolver::Asked;
use crate::{
    random::below,
    registry::{
        Node, Pace, Trouble, is_self_contained,
        zookeeper::{Code, Connection, Event, EventKind, Session},
    },
    resolve::{
        Resolution, Teller,
        told::{STRIDE, tell},
    },
};

/// How often children that change while they are read are listed anew before what is known of them is told all the same.
const LISTS: usize = 5;

/// Follows the children for ever: from server to server.
pub(super) async fn follow(asked: Asked, teller: Teller) {
    let mut pace = Pace::new(asked.options.backoff, asked.random.clone());
    let mut turn = below(asked.random.next() as u32, asked.ensemble.count()) as usize;
    let mut session = Session::new(asked.ensemble.clone());
    loop {
        let Err(trouble) = follow_server(&asked, &mut session, turn, &teller, &mut pace).await;
        teller.failed(trouble);
        turn = turn.wrapping_add(1);
        pace.rest().await;
    }
}

/// Follows the children as long as one server tells of them.
async fn follow_server(
    asked: &Asked,
    session: &mut Session,
    turn: usize,
    teller: &Teller,
    pace: &mut Pace,
) -> Result<Infallible, Trouble> {
    let mut connection = Connection::open(session, turn).await?;
    let mut known = Known {
        asked,
        path: asked.ensemble.node(&asked.path),
        nodes: BTreeMap::new(),
        listed: false,
        is_there: false,
    };
    loop {
        // A child that went while it was read may have been replaced by one that is not in the list: the word of that is here
        // before the answer that it is gone.
        for _ in 0..LISTS {
            if !known.listed && !known.list(&mut connection).await? {
                break;
            }
            known.fetch(&mut connection).await?;
            known.take_ready(&mut connection).await?;
            if !known.is_stale() {
                break;
            }
        }
        match known.is_there {
            true => known.tell(teller).await,
            false => teller.tell(Resolution::Absent),
        }
        pace.stands();
        // Of what happens in a burst all is taken in before anything is asked.
        while !known.is_stale() {
            known.take(&connection.event().await?);
            known.take_ready(&mut connection).await?;
        }
    }
}

/// What the children say.
struct Known<'a> {
    asked: &'a Asked,
    path: String,
    /// What each child says.
    nodes: BTreeMap<String, Entry>,
    /// Whether these are all.
    listed: bool,
    /// Whether their parent is there.
    is_there: bool,
}

/// What a child said when it was last read.
#[derive(Default)]
struct Entry {
    node: Option<Node>,
    /// Whether it says so still. Until it is read again it counts as it did: one that is written often is there, too.
    is_fresh: bool,
}

impl Entry {
    fn fresh(node: Node) -> Self {
        Self { node: Some(node), is_fresh: true }
    }
}

impl Known<'_> {
    /// Lists the children, and sets a watch on them; or, if the node is not there, on its coming, and returns false.
    async fn list(&mut self, connection: &mut Connection<'_>) -> Result<bool, Trouble> {
        let names = loop {
            if let Some(names) = connection.children(&self.path).await? {
                break names;
            }
            self.nodes.clear();
            if !connection.exists(&self.path).await? {
                // It is as well known as it can be: the next event is what changes it.
                (self.listed, self.is_there) = (true, false);
                return Ok(false);
            }
        };
        (self.listed, self.is_there) = (true, true);
        // What was told before this answer is older than it: a child that went meanwhile and is listed has come back, and must
        // be read, and watched, again.
        while connection.was_told() {
            self.take(&connection.event().await?);
        }
        let mut before = std::mem::take(&mut self.nodes);
        for (index, name) in names.into_iter().enumerate() {
            let known = before.remove(&name).unwrap_or_else(|| {
                let says_all = is_self_contained(&name);
                if says_all { Entry::fresh(self.asked.reading.node(&name, &[])) } else { Entry::default() }
            });
            self.nodes.insert(name, known);
            if index % STRIDE == STRIDE - 1 {
                yield_now().await;
            }
        }
        Ok(true)
    }

    /// Reads what must be read, and sets a watch on each.
    async fn fetch(&mut self, connection: &mut Connection<'_>) -> Result<(), Trouble> {
        let unread: Vec<String> =
            self.nodes.iter().filter(|(_, entry)| !entry.is_fresh).map(|(name, _)| name.clone()).collect();
        let paths: Vec<String> = unread.iter().map(|name| format!("{}/{name}", self.path)).collect();
        let (nodes, asked) = (&mut self.nodes, self.asked);
        let take = |index: usize, code, data: Vec<u8>, _| {
            let name = &unread[index];
            let node = match code {
                Code::OK => asked.reading.node(name, &data),
                // It has gone since the list, whose watch will tell.
                Code::NO_NODE => {
                    nodes.remove(name);
                    return;
                }
                code => Node::unreadable(code.to_string()),
            };
            nodes.insert(name.clone(), Entry::fresh(node));
        };
        connection.data(&paths, true, take).await
    }

    /// Takes in what has been told already.
    async fn take_ready(&mut self, connection: &mut Connection<'_>) -> Result<(), Trouble> {
        let mut taken = 0;
        while connection.has_event() {
            self.take(&connection.event().await?);
            taken += 1;
            if taken % STRIDE == 0 {
                yield_now().await;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event) {
        if event.path == self.path {
            self.listed = false;
        } else if let Some(name) = event.path.strip_prefix(&self.path).and_then(|name| name.strip_prefix('/'))
        {
            match event.kind {
                EventKind::Deleted => _ = self.nodes.remove(name),
                _ => _ = self.nodes.entry(name.to_owned()).and_modify(|entry| entry.is_fresh = false),
            }
        }
    }

    /// Whether something must be asked.
    fn is_stale(&self) -> bool {
        !self.listed || self.nodes.values().any(|entry| !entry.is_fresh)
    }

    async fn tell(&self, teller: &Teller) {
        let nodes = self.nodes.iter().filter_map(|(name, node)| Some((&**name, node.node.as_ref()?)));
        tell(teller, self.asked.shown(), nodes).await;
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::resolve::{Resolve as _, watch, zookeeper};

    #[tokio::test]
    async fn a_child_that_is_written_counts_as_it_did_until_it_is_read_again() {
        let asked = zookeeper("/users").asked();
        let mut told = watch("x", move |tell| {
            let asked = asked.clone();
            async move {
                let path = "/users".to_owned();
                let mut known =
                    Known { asked: &asked, path, nodes: BTreeMap::new(), listed: true, is_there: true };
                for name in ["10.0.0.1:80", "10.0.0.2:80"] {
                    let node = asked.reading.node(name, name.as_bytes());
                    known.nodes.insert(name.to_owned(), Entry::fresh(node));
                }
                known.nodes.insert("new".to_owned(), Entry::default());
                let written = Event { kind: EventKind::DataChanged, path: "/users/10.0.0.1:80".to_owned() };
                known.take(&written);
                assert!(known.is_stale());
                known.tell(&tell).await;
            }
        });
        let Some(Resolution::Bound(set)) = poll_fn(|cx| told.poll_next(cx)).await else {
            panic!("nothing was told")
        };
        assert_eq!(set.len(), 2);
    }
}
