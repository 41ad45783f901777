//! An entry in ZooKeeper: a node that hangs on a session.

use std::{pin::pin, sync::Arc};

use futures::future::{Either, select};

use super::{
    State,
    state::{Report, Wanted},
};
use crate::registry::{
    self, Acl, Encoding, Ensemble, Instance, Pace, Trouble, read,
    zookeeper::{Code, Connection, EventKind, Flags, Op, Session},
};

/// How often a transaction is tried anew whose nodes have changed meanwhile.
const TRIES: usize = 5;

pub(super) struct Entry {
    parent: String,
    instance: Instance,
    encoding: Encoding,
    acl: Acl,
    session: Session,
    /// What was made last.
    node: Option<String>,
    /// Whether there may be nodes of ours that are not known: those of a process that died, and of an answer that was lost.
    must_search: bool,
    /// Whether it was made as it is now.
    is_fresh: bool,
}

impl Entry {
    pub(super) fn new(
        ensemble: Arc<Ensemble>,
        parent: String,
        instance: Instance,
        encoding: Encoding,
        acl: Acl,
    ) -> Self {
        let session = Session::new(ensemble);
        Self { parent, instance, encoding, acl, session, node: None, must_search: true, is_fresh: false }
    }

    /// From now on it is made as `instance`.
    pub(super) fn renew(&mut self, instance: &Instance) {
        (self.instance, self.is_fresh) = (instance.clone(), false);
    }

    pub(super) fn remains(&self) -> bool {
        self.session.stands()
    }

    pub(super) async fn remove(&mut self, turn: usize) -> Result<(), Trouble> {
        Connection::open(&mut self.session, turn).await?.close().await
    }

    pub(super) async fn hold(
        &mut self,
        turn: usize,
        wanted: &mut Wanted,
        report: &Report,
        pace: &mut Pace,
    ) -> Result<(), Trouble> {
        let Self { parent, instance, encoding, acl, session, node, must_search, is_fresh } = self;
        let mut making = Making { parent, instance, encoding: *encoding, acl: *acl, is_fresh };
        let mut connection = Connection::open(session, turn).await?;
        loop {
            if let Some(renewed) = wanted.renewed() {
                (*making.instance, *making.is_fresh) = (Instance::clone(&renewed), false);
            }
            if !wanted.is() {
                // With the session all of its nodes go, those among them of which we know nothing.
                connection.close().await?;
                *node = None;
                return Ok(());
            }
            let path = making.node(&mut connection, node, must_search).await?;
            pace.stands();
            report.tell(State::Announced(path.as_str().into()));
            // Until the node is touched, or it is to be something else, or to be gone.
            while let Either::Left((event, _)) =
                select(pin!(connection.event()), pin!(wanted.differs(true))).await
            {
                let event = event?;
                if event.kind == EventKind::Deleted || event.path == path {
                    break;
                }
            }
        }
    }
}

/// What nodes are made of.
struct Making<'a> {
    parent: &'a str,
    instance: &'a mut Instance,
    encoding: Encoding,
    acl: Acl,
    is_fresh: &'a mut bool,
}

impl Making<'_> {
    /// The path of our node, which is made if it is not there, in place of all that we left behind. A watch tells when it
    /// goes.
    async fn node(
        &mut self,
        connection: &mut Connection<'_>,
        known: &mut Option<String>,
        must_search: &mut bool,
    ) -> Result<String, Trouble> {
        let mut why = Code::OK;
        for _ in 0..TRIES {
            let own = connection.session().id();
            let mut old = Vec::new();
            if let Some(path) = &*known {
                match connection.owner(path).await? {
                    Some(owner) if owner == own && *self.is_fresh => return Ok(path.clone()),
                    Some(_) => old.push(path.clone()),
                    None => {}
                }
            }
            if *must_search {
                let (ours, theirs) = self.search(connection, own).await?;
                old.extend(theirs);
                if let Some(path) = ours {
                    (*known, *must_search) = (Some(path), false);
                    continue;
                }
            }
            old.sort();
            old.dedup();
            // Until the answer is here nobody knows whether it is.
            *must_search = true;
            match self.make(connection, &old).await? {
                Ok(path) => (*known, *must_search, *self.is_fresh) = (Some(path), false, true),
                Err(Code::NO_NODE) if old.is_empty() => self.make_parents(connection).await?,
                // One of the old has gone by itself.
                Err(Code::NO_NODE) => *known = None,
                Err(code) => why = code,
            }
        }
        Err(connection.trouble("announcing", format!("{}: {why}", self.parent)))
    }

    /// The node of ours that this session has, and those that others of our sessions have.
    async fn search(
        &self,
        connection: &mut Connection<'_>,
        own: i64,
    ) -> Result<(Option<String>, Vec<String>), Trouble> {
        let names = connection.children(self.parent).await?.unwrap_or_default();
        let begins = self.encoding.node(self.instance);
        let may_be_ours = |name: &String| match self.encoding {
            // The name says all, and not the same after an update.
            Encoding::NervePath => self.is_ours(name, &[]),
            _ => name.starts_with(&begins),
        };
        let path = |name: &String| format!("{}/{name}", self.parent);
        let candidates: Vec<String> = names.into_iter().filter(may_be_ours).collect();
        let (mut ours, mut theirs) = (None, Vec::new());
        let take = |index: usize, code, data: Vec<u8>, owner: i64| {
            let name: &String = &candidates[index];
            // What no session has was put there by hand, and is nobody's to remove.
            if code != Code::OK || owner == 0 || !self.is_ours(name, &data) {
                return;
            }
            if owner == own && ours.is_none() {
                ours = Some(path(name));
            } else {
                theirs.push(path(name));
            }
        };
        let paths: Vec<String> = candidates.iter().map(path).collect();
        connection.data(&paths, false, take).await?;
        Ok((ours, theirs))
    }

    /// Whether a node is of this instance: its address and its name.
    fn is_ours(&self, name: &str, data: &[u8]) -> bool {
        let Ok(registry::Entry::Instance(found)) = read(Some(self.encoding), name, data) else {
            return false;
        };
        found.address == self.instance.address && (found.name.is_none() || found.id() == self.instance.id())
    }

    async fn make(
        &self,
        connection: &mut Connection<'_>,
        old: &[String],
    ) -> Result<Result<String, Code>, Trouble> {
        let path = format!("{}/{}", self.parent, self.encoding.node(self.instance));
        let data = self.encoding.write(self.instance);
        let create =
            Op::Create { path: &path, data: &data, acl: self.acl, flags: Flags::EphemeralSequential };
        if old.is_empty() {
            return connection.create(create).await;
        }
        let ops: Vec<Op<'_>> = old.iter().map(|path| Op::Delete { path }).chain([create]).collect();
        connection.multi(&ops).await
    }

    async fn make_parents(&self, connection: &mut Connection<'_>) -> Result<(), Trouble> {
        for (end, _) in self.parent.match_indices('/').skip(1).chain([(self.parent.len(), "")]) {
            let path = &self.parent[..end];
            // Everybody's, whoever comes first.
            let create = Op::Create { path, data: &[], acl: Acl::Open, flags: Flags::Persistent };
            match connection.create(create).await? {
                Ok(_) | Err(Code::NODE_EXISTS) => {}
                Err(code) => return Err(connection.trouble("announcing", format!("{path}: {code}"))),
            }
        }
        Ok(())
    }
}
