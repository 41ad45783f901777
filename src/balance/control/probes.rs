//! Asking some endpoints for their load, as many as the requests allow.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream as _, stream::FuturesUnordered};

use super::{Control, Slot};
use crate::{
    balance::{groups::LevelState, probes::Due},
    budget::Withdrawal,
    random::below,
    report::Report,
    sync::Ordering::Relaxed,
    telemetry::Counter,
};

/// How often it is looked, at the most, once nothing was answered for that long: a client at rest is hardly woken.
const IDLE: Duration = Duration::from_secs(1);

/// So many are drawn at the most for each question, of whom one can be asked: with half of them set aside, one question in
/// 65,536 is not asked.
const TRIES: usize = 16;

/// What an endpoint has said, over which connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    id: u64,
    incarnation: u32,
    report: Option<Report>,
}

/// The questions of a fleet.
#[derive(Default)]
pub(super) struct Probing {
    due: Due,
    /// Who may be asked, in any order, as it was when the last snapshot was published.
    there: Vec<u64>,
    /// When it is looked next how many are due.
    at: Option<Instant>,
    /// When it was seen last that something had been answered.
    heard: Option<Instant>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Probed> + Send>>>,
}

impl Probing {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Probed> {
        match Pin::new(&mut self.running).poll_next(cx) {
            Poll::Ready(Some(probed)) => Poll::Ready(probed),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// What was asked will not be answered on this runtime.
    pub(super) fn park(&mut self) {
        self.running = FuturesUnordered::new();
    }
}

impl<S: Send + Sync + 'static> Control<S> {
    /// Whether somebody says how to ask, and something goes by what is answered.
    fn wants_probes(&self) -> bool {
        let probes = self.checking.checker.as_ref().is_some_and(|checker| checker.probes());
        probes && self.fleet.reports.load(Relaxed)
    }

    /// When it is looked next how many are to be asked: the timer keeps its phase while nobody wants to know.
    pub(super) fn next_probes(&self) -> Option<Instant> {
        self.probing.at.filter(|_| self.wants_probes())
    }

    /// Options were replaced: it is looked as soon as they say, if that is sooner.
    pub(super) fn hasten_probes(&mut self, now: Instant) {
        let soon = now + self.fleet.options.load().probes.every;
        self.probing.at = self.probing.at.map(|at| at.min(soon));
        self.probing.heard = None;
    }

    /// Asks as many as are due.
    pub(super) fn start_probes(&mut self, now: Instant) {
        if !self.wants_probes() || self.probing.at.is_some_and(|at| at > now) {
            return;
        }
        let options = self.fleet.options.load().probes;
        let answers = self.fleet.tally.sum(Counter::Heard);
        if self.probing.heard.is_none() || self.probing.due.is_more(answers) {
            self.probing.heard = Some(now);
        }
        let rests = self.probing.heard.is_some_and(|heard| now.saturating_duration_since(heard) >= IDLE);
        self.probing.at = Some(now + if rests { options.every.max(IDLE) } else { options.every });
        let room = (options.most as usize).saturating_sub(self.probing.running.len());
        let due = self.probing.due.take(answers, options.share, room);
        if due == 0 {
            return;
        }
        let mut left = due;
        for drawn in 0..self.probing.there.len().min(due * TRIES) {
            if left == 0 {
                return;
            }
            // One of those that were not drawn yet.
            let others = (self.probing.there.len() - drawn) as u32;
            self.probing.there.swap(drawn, drawn + below(self.fleet.random.next() as u32, others) as usize);
            let id = self.probing.there[drawn];
            if !self.slots.get(&id).is_some_and(is_there) {
                continue;
            }
            // Whoever says how to probe says who pays.
            let Some(paid) = self.fleet.probe_budget.get().and_then(|budget| budget.withdraw(now)) else {
                return;
            };
            self.probe(id, paid);
            left -= 1;
        }
    }

    /// Notes who may be asked: all that are connected, but in a priority that no request goes to.
    pub(super) fn list_there(&mut self, levels: &[LevelState]) {
        self.probing.there.clear();
        if self.checking.checker.as_ref().is_some_and(|checker| checker.probes()) {
            let spared =
                |priority| levels.iter().any(|level| level.priority == priority && level.percent == 0);
            let worth_it = |slot: &Slot<S>| {
                slot.gone.is_none() && slot.service.is_some() && !spared(slot.endpoint.priority())
            };
            let ids = self.slots.iter().filter(|(_, slot)| worth_it(slot)).map(|(id, _)| *id);
            self.probing.there.extend(ids);
        }
    }

    fn probe(&mut self, id: u64, paid: Withdrawal) {
        let (Some(slot), Some(checker)) = (self.slots.get(&id), &self.checking.checker) else { return };
        let Some(service) = slot.service.clone() else { return };
        let Some(asking) = checker.probe(service, slot.endpoint.clone()) else { return };
        self.fleet.tally.count(Counter::Probes);
        let (incarnation, timeout) = (slot.incarnation, self.fleet.options.load().probes.timeout);
        let held = paid.spend_or_hold();
        self.probing.running.push(Box::pin(async move {
            let report = tokio::time::timeout(timeout, asking).await.ok().flatten();
            drop(held);
            Probed { id, incarnation, report }
        }));
    }

    /// Notes what an endpoint has said.
    pub(super) fn probed(&mut self, probed: Probed) {
        let Some(slot) = self.slots.get(&probed.id) else { return };
        if let Some(report) = probed.report
            && slot.incarnation == probed.incarnation
        {
            slot.member.hear_beside(report);
        }
    }
}

/// Whether it is worth asking: requests may go there.
fn is_there<S>(slot: &Slot<S>) -> bool {
    slot.gone.is_none() && slot.service.is_some() && slot.member.health.is_available()
}
