//! Every order of outcome, cancellation, timer, change of the resolution and manual action, up to a depth, against a second,
//! straight-line writing of the state machine.

use std::collections::HashSet;

use super::*;
use crate::{
    backoff::{Backoff, Jitter},
    health::{State, Trip, trip::Share},
    invalid::Ratio,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Success,
    Failure,
    /// A failure of an attempt that began in the state before.
    Straggler,
    Judge,
    Probe,
    Settle(Class),
    Forgo,
    BackOff,
    /// To the next time that something is due.
    Due,
    Second,
    Leave,
    Join,
    Hold,
    Connect,
    Drain,
    Restore,
    EjectByHand,
    Acquit,
    /// The other endpoint leaves, or comes back.
    Neighbour,
}

const ACTIONS: [Action; 21] = [
    Action::Success,
    Action::Failure,
    Action::Straggler,
    Action::Judge,
    Action::Probe,
    Action::Settle(Class::Success),
    Action::Settle(Class::Failure),
    Action::Settle(Class::Inconclusive),
    Action::Forgo,
    Action::BackOff,
    Action::Due,
    Action::Second,
    Action::Leave,
    Action::Join,
    Action::Hold,
    Action::Connect,
    Action::Drain,
    Action::Restore,
    Action::EjectByHand,
    Action::Acquit,
    Action::Neighbour,
];

fn options() -> HealthOptions {
    HealthOptions {
        consecutive: 2,
        failures: 64,
        of_last: 64,
        success_rate: Ratio::ZERO,
        ejection: Backoff::exponential(Duration::from_secs(5))
            .factor(2.0)
            .cap(Duration::from_secs(300))
            .jitter(Jitter::None),
        ..HealthOptions::default()
    }
}

/// What the judge says.
fn outlier() -> Trip {
    Trip::SuccessRate(Share::new(50, 100, 0.02))
}

/// What must be, in whole seconds from the beginning.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Spec {
    now: u64,
    phase: Phase,
    since: u64,
    /// Counts entered phases.
    generation: u32,
    judged: bool,
    why: Trip,
    ejections: u32,
    lasted: u64,
    streak: u32,
    asked: Option<(u64, u64)>,
    held: Option<u64>,
    drained: Option<u64>,
    connected: bool,
    member: bool,
    neighbour: bool,
    /// The generation of the probe that is under way, or was.
    lease: Option<u32>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Phase {
    In,
    Ejected { until: u64 },
    Probation { until: u64 },
    Probing { given_up: u64, until: u64 },
}

impl Spec {
    fn new() -> Self {
        Self {
            now: 0,
            phase: Phase::In,
            since: 0,
            generation: 0,
            judged: false,
            why: Trip::Consecutive,
            ejections: 0,
            lasted: 0,
            streak: 0,
            asked: None,
            held: None,
            drained: None,
            connected: true,
            member: true,
            neighbour: true,
            lease: None,
        }
    }

    /// The same with times from now on, and without what no longer matters: two that are equal have the same future.
    fn key(&self) -> Self {
        let ago = |at: u64| self.now.saturating_sub(at);
        let ahead = |at: u64| at.saturating_sub(self.now);
        Self {
            now: 0,
            phase: match self.phase {
                Phase::In => Phase::In,
                Phase::Ejected { until } => Phase::Ejected { until: ahead(until) },
                Phase::Probation { until } => Phase::Probation { until: ahead(until) },
                Phase::Probing { given_up, until } => {
                    Phase::Probing { given_up: ahead(given_up), until: ahead(until) }
                }
            },
            since: if self.phase == Phase::In && self.ejections > 0 { ago(self.since) } else { 0 },
            generation: 0,
            why: if self.phase == Phase::In { Trip::Consecutive } else { self.why },
            asked: self.asked.map(|(until, _)| (ahead(until), 0)),
            held: self.held.map(|_| 0),
            drained: self.drained.map(|_| 0),
            streak: self.streak.min(2),
            lease: self.lease.map(|lease| u32::from(lease == self.generation)),
            ..self.clone()
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, self.now);
        self.generation += 1;
    }

    fn eject(&mut self, why: Trip, lasts: Option<u64>) {
        if self.phase == Phase::In && self.lasted > 0 {
            self.ejections = self.ejections.saturating_sub(((self.now - self.since) / self.lasted) as u32);
        }
        self.ejections += 1;
        self.lasted = lasts.unwrap_or_else(|| (5 << (self.ejections - 1).min(10)).min(300));
        self.why = why;
        self.enter(Phase::Ejected { until: self.now + self.lasted });
    }

    fn restore(&mut self) {
        (self.judged, self.streak) = (false, 0);
        self.enter(Phase::In);
    }

    fn is_available(&self) -> bool {
        self.phase == Phase::In && self.is_free()
    }

    fn is_free(&self) -> bool {
        self.asked.is_none() && self.held.is_none() && self.drained.is_none() && self.connected
    }

    fn next(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::In => None,
            Phase::Ejected { until } | Phase::Probation { until } => Some(until),
            Phase::Probing { given_up, .. } => Some(given_up),
        };
        [phase, self.asked.map(|(until, _)| until)].into_iter().flatten().min()
    }

    fn due(&mut self) {
        if self.asked.is_some_and(|(until, _)| until <= self.now) {
            self.asked = None;
        }
        match self.phase {
            Phase::Ejected { until } if until <= self.now => {
                self.enter(Phase::Probation { until: self.now + 30 });
            }
            Phase::Probation { until } if until <= self.now => self.restore(),
            Phase::Probing { given_up, .. } if given_up <= self.now => {
                self.enter(Phase::Probation { until: self.now + 30 });
            }
            _ => {}
        }
    }

    fn take(&mut self, action: Action) {
        let company = self.member && self.neighbour;
        match action {
            Action::Success => self.streak = 0,
            Action::Failure => {
                self.streak += 1;
                if self.streak >= 2 && self.phase == Phase::In && company {
                    self.eject(Trip::Consecutive, None);
                }
            }
            Action::Straggler => {}
            Action::Judge => {
                // The cap lets one of two go, and the neighbour is there.
                if self.phase == Phase::In && company {
                    self.eject(outlier(), None);
                    self.judged = true;
                }
            }
            Action::Probe => {
                if let Phase::Probation { until } = self.phase
                    && self.is_free()
                {
                    self.enter(Phase::Probing { given_up: self.now + 31, until });
                    self.lease = Some(self.generation);
                }
            }
            Action::Settle(shown) => {
                let Some(lease) = self.lease.take() else { return };
                let Phase::Probing { until, .. } = self.phase else { return };
                if lease != self.generation {
                    return;
                }
                match shown {
                    Class::Success => self.restore(),
                    Class::Failure => self.eject(self.why, None),
                    _ => self.enter(Phase::Probation { until }),
                }
            }
            Action::Forgo => {
                let Some(lease) = self.lease.take() else { return };
                if let Phase::Probing { until, .. } = self.phase
                    && lease == self.generation
                {
                    self.enter(Phase::Probation { until });
                }
            }
            Action::BackOff => {
                let until = self.now + 3;
                self.asked =
                    Some(self.asked.map_or((until, self.now), |(own, since)| (own.max(until), since)));
            }
            Action::Due => {
                self.now = self.next().unwrap_or(self.now).max(self.now);
                self.due();
            }
            Action::Second => {
                self.now += 1;
                self.due();
            }
            Action::Leave => self.member = false,
            Action::Join => self.member = true,
            Action::Hold => self.held = if self.held.is_some() { None } else { Some(self.now) },
            Action::Connect => self.connected = !self.connected,
            Action::Drain => self.drained = self.drained.or(Some(self.now)),
            Action::Restore => {
                let kept = self.phase != Phase::In || self.drained.is_some() || self.asked.is_some();
                (self.drained, self.asked) = (None, None);
                if kept {
                    (self.ejections, self.lasted) = (0, 0);
                    self.restore();
                }
            }
            Action::EjectByHand => {
                self.eject(Trip::ByHand, Some(7));
                self.judged = false;
            }
            Action::Acquit => {
                if self.phase != Phase::In && self.why.is_outlier() {
                    self.restore();
                }
            }
            Action::Neighbour => self.neighbour = !self.neighbour,
        }
    }
}

/// The real thing, driven alike.
struct Real {
    options: HealthOptions,
    ledger: Ledger,
    random: Seeded,
    own: Health,
    neighbour: Health,
    is_there: bool,
    begin: Instant,
    now: Instant,
    lease: Option<Lease>,
}

impl Real {
    fn new() -> Self {
        let (options, ledger, begin) = (options(), Ledger::default(), clock::now());
        let (own, neighbour) = (Health::new(begin, &options), Health::new(begin, &options));
        ledger.join(&own);
        ledger.join(&neighbour);
        let random = Seeded::new(1);
        Self { options, ledger, random, own, neighbour, is_there: true, begin, now: begin, lease: None }
    }

    fn take(&mut self, action: Action) {
        let Self { options, ledger, random, own, now, .. } = self;
        let generation = own.generation();
        match action {
            Action::Success => own.success(*now),
            Action::Failure => {
                own.failure(*now, generation, options, ledger, random);
            }
            Action::Straggler => {
                let before = generation.wrapping_sub(1) & 0xFFFF;
                assert_eq!(own.failure(*now, before, options, ledger, random), None);
            }
            Action::Judge => {
                own.judge(outlier().into(), generation, *now, options, ledger, random);
            }
            Action::Probe => {
                if let Some(lease) = own.lease(*now, options, ledger) {
                    self.lease = Some(lease);
                }
            }
            Action::Settle(shown) => {
                if let Some(lease) = self.lease.take() {
                    own.settle(lease, shown, *now, options, ledger, random);
                }
            }
            Action::Forgo => {
                if let Some(lease) = self.lease.take() {
                    own.forgo(lease, *now, ledger);
                }
            }
            Action::BackOff => {
                own.back_off(Some(Duration::from_secs(3)), *now, options, ledger);
            }
            Action::Due => {
                *now = own.next_time().unwrap_or(*now).max(*now);
                own.due(*now, options, ledger);
            }
            Action::Second => {
                *now += Duration::from_secs(1);
                own.due(*now, options, ledger);
            }
            Action::Leave => ledger.leave(own),
            Action::Join => ledger.join(own),
            Action::Hold => {
                let held = own.is_held();
                own.hold(!held, *now, ledger);
            }
            Action::Connect => {
                let connected = own.is_connected();
                own.connect(!connected, ledger);
            }
            Action::Drain => {
                own.drain(*now, ledger);
            }
            Action::Restore => {
                own.restore_by_hand(*now, ledger);
            }
            Action::EjectByHand => {
                own.eject_by_hand(Some(Duration::from_secs(7)), *now, options, ledger, random);
            }
            Action::Acquit => {
                own.acquit(*now, ledger);
            }
            Action::Neighbour => {
                if self.is_there {
                    ledger.leave(&self.neighbour);
                } else {
                    ledger.join(&self.neighbour);
                }
                self.is_there = !self.is_there;
            }
        }
    }

    fn check(&self, spec: &Spec, path: &[Action]) {
        let at = |seconds: u64| self.begin + Duration::from_secs(seconds);
        let (state, since) = match (&spec.phase, spec.drained, spec.held) {
            (_, Some(since), _) => (State::Drained, since),
            (_, None, Some(since)) => (State::Held, since),
            (Phase::Ejected { until }, ..) => {
                (State::Ejected { until: at(*until), why: spec.why }, spec.since)
            }
            (Phase::Probation { until }, ..) => (State::Probation { until: at(*until) }, spec.since),
            (Phase::Probing { given_up, .. }, ..) => (State::Probing { until: at(*given_up) }, spec.since),
            (Phase::In, ..) => match spec.asked {
                Some((until, since)) => (State::BackingOff { until: at(until) }, since),
                None => (State::Available, spec.since),
            },
        };
        assert_eq!(self.own.state(), (state, at(since)), "{path:?}");
        assert_eq!(self.own.is_available(), spec.is_available(), "{path:?}");
        let members = usize::from(spec.member) + usize::from(spec.neighbour);
        let available = usize::from(spec.member && spec.is_available()) + usize::from(spec.neighbour);
        assert_eq!(self.ledger.available(), (members, available), "{path:?}");
        let waits = spec.member && spec.is_free() && matches!(spec.phase, Phase::Probation { .. });
        assert_eq!(self.ledger.wants_probes(), waits, "{path:?}");
        // No state but the healthy one, and those that somebody else ends, waits without a time.
        assert_eq!(self.own.next_time(), spec.next().map(at), "{path:?}");
        let judged = usize::from(spec.member && spec.judged);
        assert_eq!(self.ledger.judged(), judged, "{path:?}");
    }
}

#[test]
fn every_order_of_everything_that_can_happen_is_as_the_straight_line_writing_says() {
    const DEPTH: usize = 7;
    let (mut seen, mut steps) = (HashSet::from([Spec::new().key()]), 0_u64);
    let mut frontier: Vec<Vec<Action>> = vec![Vec::new()];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for path in frontier {
            for action in ACTIONS {
                let (mut real, mut spec) = (Real::new(), Spec::new());
                for before in &path {
                    real.take(*before);
                    spec.take(*before);
                }
                real.take(action);
                spec.take(action);
                steps += 1;
                let path: Vec<_> = path.iter().copied().chain([action]).collect();
                real.check(&spec, &path);
                // One whose future is the same as another's is gone on with once.
                if seen.insert(spec.key()) {
                    next.push(path);
                }
            }
        }
        frontier = next;
    }
    println!("{} states, {steps} steps", seen.len());
    assert!(seen.len() > 1_000);
}
