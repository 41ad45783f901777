//! Everything there is to watch: the servers, the two clients' figures, what mainstay thinks.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    client::{Client as _, Who},
    plain::Plain,
    resilient::Resilient,
    script,
    server::Server,
    tally::{Recent, Tally},
};

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) start: Instant,
    pub(crate) servers: Arc<[Arc<Server>]>,
    pub(crate) plain: Arc<Plain>,
    pub(crate) mainstay: Arc<Resilient>,
    tallies: [Arc<Tally>; 2],
}

impl Stage {
    /// The clients know the first [`script::AT_FIRST`] servers.
    pub(crate) fn new(start: Instant, servers: Arc<[Arc<Server>]>) -> Result<Self, mainstay::Invalid> {
        let known: Vec<_> = servers[..script::AT_FIRST].iter().map(|server| server.address()).collect();
        Ok(Self {
            start,
            servers,
            plain: Arc::new(Plain::new(&known)),
            mainstay: Arc::new(Resilient::new(&known)?),
            tallies: Who::BOTH.map(|_| Arc::new(Tally::new(start))),
        })
    }

    pub(crate) fn tally(&self, who: Who) -> &Arc<Tally> {
        &self.tallies[who as usize]
    }

    /// Attempts so far: those the servers saw, and those that reached none.
    pub(crate) fn attempts(&self, who: Who) -> u64 {
        let in_vain = match who {
            Who::Plain => self.plain.attempts_in_vain(),
            Who::Mainstay => self.mainstay.attempts_in_vain(),
        };
        self.servers.iter().map(|server| server.seen(who)).sum::<u64>() + in_vain
    }
}

/// Which part of a client's requests each server has seen lately.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    counts: VecDeque<(Duration, Vec<[u64; 2]>)>,
}

impl Shares {
    /// Takes the servers' counts at this time.
    pub(crate) fn sample(&mut self, at: Duration, servers: &[Arc<Server>]) {
        let counts = servers.iter().map(|server| Who::BOTH.map(|who| server.seen(who))).collect();
        self.counts.push_back((at, counts));
        // One older than the span stays: it is what the newest is compared with.
        while self.counts.get(1).is_some_and(|(next, _)| *next + Recent::SPAN <= at) {
            self.counts.pop_front();
        }
    }

    /// The share of one server in what all have seen of this client, from 0 to 1.
    pub(crate) fn of(&self, server: usize, who: Who) -> Option<f64> {
        let ((_, before), (_, after)) = (self.counts.front()?, self.counts.back()?);
        let grown = |index: usize| after[index][who as usize] - before[index][who as usize];
        let all: u64 = (0..after.len()).map(grown).sum();
        (all > 0).then(|| grown(server) as f64 / all as f64)
    }
}
