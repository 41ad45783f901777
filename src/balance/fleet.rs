//! What all the endpoints of one balancer share, whatever their service.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    answered::Answered,
    bell::{Bell, Message},
    estimator::{At, Estimator},
    hearsay::SharedHealth,
    heat::Heat,
    member::Member,
    options::{BalanceOptions, BodyOptions, Candidates},
    wake::WakeSet,
};
use crate::{
    budget::Budget,
    context,
    deadline::AttemptFit,
    estimate::{
        Counts, Memo, Recent, Survival, bucket_of,
        slices::{Slices, nanos_since},
    },
    health::{Ledger, Operation, Operations, Transition},
    random::Random,
    sync::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, Padded, stripe, stripes},
    telemetry::{Counter, Event, Observers, Tally},
};

/// The shared part of a balancer that is not generic.
pub(crate) struct Fleet {
    pub(crate) label: Arc<str>,
    pub(crate) epoch: Instant,
    pub(crate) estimator: Estimator,
    pub(crate) options: ArcSwap<BalanceOptions>,
    pub(crate) ledger: Ledger,
    /// Where operations have a health of their own.
    pub(crate) operations: Operations,
    /// Whom it tells of dead endpoints, and is told by.
    pub(crate) shared: Option<SharedHealth>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) bell: Bell,
    /// Requests that wait for an endpoint.
    pub(crate) waiters: WakeSet,
    /// Callers that wait for the balancer to be ready. They take no request's place.
    pub(crate) watchers: WakeSet,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tally: Tally,
    /// Whether latencies are counted.
    pub(crate) statistics: AtomicBool,
    /// Whether a place in flight that is given back may be waited for.
    pub(crate) limited: AtomicBool,
    /// Whether attempt limits go by more than their number.
    pub(crate) fits: AtomicBool,
    /// Whether bodies have limits.
    pub(crate) bodies: AtomicBool,
    /// Whether it is asked what servers say of themselves.
    pub(crate) reports: AtomicBool,
    /// What questions for load are paid out of.
    pub(crate) probe_budget: OnceLock<Budget>,
    /// Whether requests are refused.
    pub(crate) closed: AtomicBool,
    /// Whose turn it is, where requests go in turn: each thread goes round by itself.
    turns: Box<[Padded<AtomicU64>]>,
    /// From how much in flight on endpoints are hot, where that is the rule.
    pub(crate) heat: Heat,
    /// Who has answered of late, where picks draw from those, and whether they do.
    pub(crate) answered: Answered,
    pub(crate) notes_answers: AtomicBool,
    /// The periods of all histograms of recent latencies.
    periods: Slices,
    /// Latencies of attempts to their heads, striped by thread.
    latencies: Box<[Padded<Recent>]>,
    /// How long attempts had lasted that failed, or were cut off.
    cuts: Box<[Padded<Recent>]>,
    /// The 99th percentile of recent latencies, and their median.
    p99: Memo,
    typical: Memo,
    /// What attempt limits go by, in us.
    fitted: Memo,
    /// Which part of the places is taken, in millionths.
    used: Memo,
}

/// A time, and how many nanoseconds after the fleet's epoch it is: taking the difference of two `Instant`s costs more than
/// all that is done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) at: Instant,
    pub(crate) nanos: u64,
}

/// So many attempts must have ended at an endpoint before its latencies are counted apart: 1.7 kB begin to pay then.
const FIRST: u64 = 16;

/// Fewer latencies than this say nothing about a 99th percentile.
const ENOUGH: u64 = 10;

impl Fleet {
    pub(crate) fn new(
        label: Arc<str>,
        options: BalanceOptions,
        observers: Arc<Observers>,
        random: Arc<dyn Random>,
        shared: Option<SharedHealth>,
    ) -> Self {
        let epoch = crate::clock::now();
        let recent = || (0..stripes()).map(|_| Padded(Recent::new(epoch, Recent::PERIOD))).collect();
        let fleet = Self {
            label,
            epoch,
            estimator: Estimator::new(options.load),
            statistics: AtomicBool::default(),
            limited: AtomicBool::default(),
            fits: AtomicBool::default(),
            bodies: AtomicBool::default(),
            reports: AtomicBool::default(),
            probe_budget: OnceLock::new(),
            options: ArcSwap::from_pointee(options),
            ledger: Ledger::default(),
            operations: Operations::new(epoch),
            shared,
            observers,
            bell: Bell::new(),
            waiters: WakeSet::new(),
            watchers: WakeSet::new(),
            random,
            tally: Tally::new(),
            closed: AtomicBool::new(false),
            turns: (0..stripes()).map(|_| Padded(AtomicU64::new(0))).collect(),
            heat: Heat::new(),
            answered: Answered::new(),
            notes_answers: AtomicBool::default(),
            periods: Slices::new(epoch, Recent::PERIOD),
            latencies: recent(),
            cuts: recent(),
            p99: Memo::default(),
            typical: Memo::default(),
            fitted: Memo::default(),
            used: Memo::default(),
        };
        fleet.go_by(&fleet.options.load());
        fleet
    }

    /// Says in words of their own what is asked on the way of requests.
    pub(super) fn go_by(&self, options: &BalanceOptions) {
        self.statistics.store(options.statistics, Relaxed);
        self.limited.store(options.most() != u32::MAX, Relaxed);
        self.fits.store(options.attempt_fit != AttemptFit::Fixed, Relaxed);
        self.bodies.store(options.body != BodyOptions::default(), Relaxed);
        self.reports.store(options.reads_reports(), Relaxed);
        self.notes_answers.store(options.candidates != Candidates::Any, Relaxed);
    }

    /// Has questions for load paid out of `budget`.
    pub(crate) fn pay_probes(&self, budget: Budget) {
        // It is told once, before there is a question.
        let _ = self.probe_budget.set(budget);
    }

    /// `now` in both the forms that an attempt needs.
    #[inline]
    pub(crate) fn stamp(&self, now: Instant) -> Stamp {
        Stamp { at: now, nanos: nanos_since(self.epoch, now) }
    }

    /// The time of the current poll.
    #[inline]
    pub(crate) fn now(&self) -> Stamp {
        Stamp { at: context::now(), nanos: context::nanos_since(self.epoch) }
    }

    /// `now` as latency estimates count it.
    pub(crate) fn at(&self, now: Instant) -> At {
        self.estimator.at(self.stamp(now).nanos)
    }

    /// The number of the period of recent latencies that lies so many nanoseconds after the epoch.
    #[inline]
    pub(crate) fn period(&self, nanos: u64) -> u64 {
        self.periods.divide(nanos)
    }

    /// The next turn. It begins somewhere, so that clients do not go round in step.
    pub(crate) fn turn(&self) -> u64 {
        let own = &self.turns[stripe() & (self.turns.len() - 1)].0;
        if own.load(Relaxed) == 0 {
            // Of two that begin at once one begins again, which is as good a place.
            own.store(self.random.next() >> 16 | 1, Relaxed);
        }
        own.fetch_add(1, Relaxed)
    }

    /// Notes the latency of a response of `member`, in nanoseconds.
    #[inline]
    pub(crate) fn latency(&self, member: &Member, now: Stamp, latency: u64) {
        let (period, bucket) = (self.periods.divide(now.nanos), bucket_of(latency));
        self.latencies[stripe() & (self.latencies.len() - 1)].0.record_in(period, bucket);
        // One of very many endpoints, which has a request now and then, needs no distribution of its own.
        if member.health.ended() >= FIRST {
            member.recent.record_in(period, bucket);
        }
    }

    /// The recent latencies of the whole client.
    pub(crate) fn latencies(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.latencies {
            counts.add(&stripe.0.counts(now));
        }
        counts
    }

    /// Notes that an attempt had lasted so many nanoseconds when it failed, or was cut off.
    pub(crate) fn cut(&self, now: Stamp, lasted: u64) {
        if self.statistics.load(Relaxed) {
            let stripe = &self.cuts[stripe() & (self.cuts.len() - 1)].0;
            stripe.record_in(self.periods.divide(now.nanos), bucket_of(lasted));
        }
    }

    /// How long attempts had lasted that failed, or were cut off.
    pub(crate) fn cuts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.cuts {
            counts.add(&stripe.0.counts(now));
        }
        counts
    }

    /// The 99th percentile of recent latencies; `None` while there are too few.
    pub(crate) fn p99(&self, now: Instant) -> Option<Duration> {
        self.p99.time(self.epoch, now, || {
            let counts = self.latencies(now);
            if counts.total() < ENOUGH { None } else { counts.quantile(0.99) }
        })
    }

    /// What an attempt usually takes.
    pub(crate) fn typical(&self, now: Instant) -> Option<Duration> {
        self.typical.time(self.epoch, now, || self.latencies(now).quantile(0.5))
    }

    /// The share of attempts that are shorter, as attempt limits go by it.
    pub(crate) fn fitted(&self, now: Instant, share: f64) -> Option<Duration> {
        let micros = self.fitted.get(self.epoch, now, || {
            let (ended, cut) = (self.latencies(now), self.cuts(now));
            AttemptFit::latency_of(Survival::new(&ended, &cut), share)
        });
        micros.map(Duration::from_micros)
    }

    /// Which part of the places is taken, where there is a limit; `count` gives those that are, and all.
    pub(crate) fn utilisation(&self, now: Instant, count: impl FnOnce() -> (u64, u64)) -> Option<f64> {
        if !self.limited.load(Relaxed) {
            return None;
        }
        let millionths = self.used.get(self.epoch, now, || {
            let (taken, places) = count();
            Some((taken as f64 / places.max(1) as f64 * 1e6) as u64)
        });
        millionths.map(|used| used as f64 / 1e6)
    }

    /// Makes a transition of `member` known to observers, to the background task, and to those who wait.
    pub(crate) fn changed(&self, member: &Arc<Member>, transition: Transition) {
        // The ramp first: the snapshot that is published because of the message must know of it.
        self.begin_ramp(member, transition);
        self.bell.ring(Message::Changed(member.clone()));
        self.wake();
        self.announce(member, transition);
    }

    /// The same of a transition that requests have brought about, which others may learn of.
    pub(crate) fn changed_by_requests(&self, member: &Arc<Member>, transition: Transition) {
        self.changed(member, transition);
        if let Some(shared) = &self.shared {
            shared.tell(member, transition);
        }
    }

    /// An endpoint that comes back works up to its share.
    pub(crate) fn begin_ramp(&self, member: &Member, transition: Transition) {
        if matches!(transition, Transition::Restored { .. } | Transition::RestoredByHand) {
            member.start_ramp(crate::context::now(), self);
        }
    }

    /// Has everybody who waits look again.
    pub(crate) fn wake(&self) {
        self.waiters.wake_all();
        self.watchers.wake_all();
    }

    /// Makes a transition of `member` known to observers.
    pub(crate) fn announce(&self, member: &Member, transition: Transition) {
        let endpoint = member.name.clone();
        self.tell(&match transition {
            Transition::Ejected { why, lasts } => Event::Ejected { endpoint, why, lasts },
            Transition::Probation => Event::Probation { endpoint },
            Transition::Suspected => Event::Suspected { endpoint },
            Transition::Restored { proven } => Event::Restored { endpoint, proven },
            Transition::BackingOff { lasts } => Event::BackingOff { endpoint, lasts },
            Transition::Resumed => Event::Resumed { endpoint },
            Transition::Held => Event::Held { endpoint },
            Transition::Released => Event::Released { endpoint },
            Transition::Drained => Event::Drained { endpoint },
            Transition::RestoredByHand => Event::RestoredByHand { endpoint },
        });
    }

    /// Makes a transition of an operation at `member` known to observers, to the background task, and to those who wait.
    pub(crate) fn operation_changed(
        &self,
        member: &Arc<Member>,
        operation: &Operation,
        transition: Transition,
    ) {
        self.bell.ring(Message::Changed(member.clone()));
        self.wake();
        self.announce_operation(member, operation, transition);
    }

    /// Makes a transition of an operation at `member` known to observers.
    pub(crate) fn announce_operation(&self, member: &Member, operation: &Operation, transition: Transition) {
        let (endpoint, operation) = (member.name.clone(), operation.name().clone());
        match transition {
            Transition::Ejected { why, lasts } => {
                self.tell(&Event::OperationEjected { endpoint, operation, why, lasts });
            }
            Transition::Probation => self.tell(&Event::OperationProbation { endpoint, operation }),
            Transition::Restored { proven } => {
                self.tell(&Event::OperationRestored { endpoint, operation, proven });
            }
            // Nobody holds an operation, drains it, or is asked to leave it alone.
            _ => {}
        }
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.observers.tell(&self.label, event);
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.tally.count(counter);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("label", &self.label).finish_non_exhaustive()
    }
}
