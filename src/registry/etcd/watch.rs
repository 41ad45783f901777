//! Changes, as one member tells them.

use std::collections::VecDeque;

use ::tonic::Streaming;
use futures::FutureExt as _;

use super::{
    connection::told,
    messages::{KeyValue, WatchResponse},
};
use crate::registry::Trouble;

/// Changes under a prefix, as they come.
pub(crate) struct Watch {
    at: String,
    answers: Streaming<WatchResponse>,
    /// Changes that came and belong to one whose rest has not.
    ahead: VecDeque<Change>,
}

/// What happened to a key.
#[derive(Debug)]
pub(crate) enum Change {
    Put(KeyValue),
    Deleted(Vec<u8>),
}

impl Watch {
    pub(super) fn new(at: String, answers: Streaming<WatchResponse>) -> Self {
        Self { at, answers, ahead: VecDeque::new() }
    }

    /// The next changes, in their order. `None`: what was to be watched has been compacted, and must be listed anew.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Change>>, Trouble> {
        loop {
            let answer = self.answers.message().await;
            let trouble =
                |reason| Trouble { registry: "etcd", at: self.at.clone(), doing: "watching", reason };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(trouble("it broke off".to_owned())),
                Err(status) => return Err(trouble(told(&status))),
            };
            if answer.compact_revision > 0 {
                return Ok(None);
            }
            if answer.canceled {
                return Err(trouble(format!("ended: {}", answer.cancel_reason)));
            }
            let changes = answer.events.into_iter().filter_map(|event| {
                let kv = event.kv?;
                Some(if event.kind == 1 { Change::Deleted(kv.key) } else { Change::Put(kv) })
            });
            self.ahead.extend(changes);
            if !answer.fragment && (answer.created || !self.ahead.is_empty()) {
                return Ok(Some(self.ahead.drain(..).collect()));
            }
        }
    }

    /// The changes that have come already; as [`next`](Self::next), and nothing if there are none.
    pub(crate) fn ready(&mut self) -> Option<Result<Option<Vec<Change>>, Trouble>> {
        // What `next` has read is in `ahead`, so giving up in the middle loses nothing.
        self.next().now_or_never()
    }
}
