//! What a server knows a client by.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Ensemble;

/// What outlasts a connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) ensemble: Arc<Ensemble>,
    pub(super) id: i64,
    pub(super) password: Vec<u8>,
    /// The last change that was heard of: a server that knows less must not be asked.
    pub(super) zxid: i64,
    /// How long it lasts without a word, as granted.
    pub(super) limit: Duration,
    pub(super) heard: Option<Instant>,
}

impl Session {
    pub(crate) fn new(ensemble: Arc<Ensemble>) -> Self {
        let limit = ensemble.session_timeout;
        Self { ensemble, id: 0, password: Vec::new(), zxid: 0, limit, heard: None }
    }

    /// What tells its nodes from those of others; 0 before it was granted.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// Whether nothing is known of its end.
    pub(crate) fn stands(&self) -> bool {
        self.id != 0
    }

    pub(super) fn forget(&mut self) {
        *self = Self::new(self.ensemble.clone());
    }
}
