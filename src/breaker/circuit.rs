//! The state machine.
//!
//! ```text
//!              a rule is broken            time over, or the first call after it
//!    Closed ---------------------> Open <----------------------------------------+
//!      ^                            |  ^                                         |
//!      |                            |  |  too many probes failed, or time over   |
//!      |                            v  |                                         |
//!      +------------------------ HalfOpen  (1 to n probes)                       |
//!         enough probes succeeded
//! ```
//!
//! By hand: `ForcedOpen`, `Disabled`, `MetricsOnly`, which only somebody's hand leaves again.

mod moves;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BreakerOptions, BreakerStatus, Change, Refusal, State, Trip,
    period::{Period, Rules},
};
use crate::{
    Invalid,
    estimate::slices::nanos_since,
    outcome::{Again, Class, Verdict},
    random::Random,
    sync::{AtomicU64, Mutex, Ordering::Relaxed, Ordering::SeqCst, Swap, lock},
};

/// From the lowest bit: three bits of state, one that says that calls are timed, 60 of the generation.
const STATE: u64 = 0b111;
const TIMED: u64 = 0b1000;
const GENERATION: u32 = 4;

const fn code(state: State) -> u64 {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
        State::ForcedOpen => 3,
        State::Disabled => 4,
        State::MetricsOnly => 5,
    }
}

/// The right of one call to be made. It must be handed back, with [`CircuitBreaker::finish`] or
/// [`CircuitBreaker::forgo`]; whoever holds it sees to that when dropped, too.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe that is not handed back keeps its place until half-open lapses"]
pub struct Admission {
    generation: u64,
    kind: Kind,
    /// In nanoseconds since the breaker's epoch, where it is asked for; [`UNTIMED`] elsewhere. An admission is handed about
    /// with every call, so it is small.
    began: u64,
    /// How long it took to the head of its response, if it goes on after that; else [`UNTIMED`].
    lasted: u64,
}

const UNTIMED: u64 = u64::MAX;

impl Admission {
    /// Whether this call is one of those that decide whether the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.kind == Kind::Probe
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counted,
    Probe,
    Unseen,
}

#[derive(Debug)]
struct Detail {
    state: State,
    generation: u64,
    since: Instant,
    /// When open is over, or half-open lapses.
    until: Option<Instant>,
    /// Since when calls are refused, over all the changes between open and half-open.
    refusing: Instant,
    why: Trip,
    /// Openings since it was last closed, and how long the last one lasts.
    openings: u32,
    lasts: Duration,
    /// Of half-open: probes let through and not given back, and how those that ended did.
    admitted: u32,
    successes: u32,
    failures: u32,
    changes: u64,
    opened: u64,
    /// Which rules were told to be broken, while it only measures.
    told: u8,
}

impl Detail {
    /// Probes that are out.
    fn probing(&self) -> u32 {
        self.admitted - self.successes - self.failures
    }

    /// A probe said nothing. If none is out then, there is nothing that half-open could wait for too long.
    fn give_back(&mut self) {
        self.admitted -= 1;
        if self.probing() == 0 {
            self.until = None;
        }
    }
}

/// A circuit breaker as a plain type: it asks for the time where it needs it, and does nothing by itself.
///
/// As long as it is closed an admission reads one word. A call that ends reads a pointer and adds to one word, which all
/// calls share; a call that is neither good nor bad writes nothing.
#[derive(Debug)]
pub struct CircuitBreaker {
    word: AtomicU64,
    period: Swap<Period>,
    detail: Mutex<Detail>,
    epoch: Instant,
    refused: AtomicU64,
    late: AtomicU64,
}

impl CircuitBreaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: BreakerOptions, now: Instant) -> Result<Self, Invalid> {
        options.validate()?;
        let rules = Rules::new(options, now);
        let timed = if rules.is_timed() { TIMED } else { 0 };
        let period = Period {
            generation: 0,
            counted: rules.window(now),
            rules: Arc::new(rules),
            in_a_row: Arc::default(),
        };
        let detail = Detail {
            state: State::Closed,
            generation: 0,
            since: now,
            until: None,
            refusing: now,
            why: Trip::ByHand,
            openings: 0,
            lasts: Duration::ZERO,
            admitted: 0,
            successes: 0,
            failures: 0,
            changes: 0,
            opened: 0,
            told: 0,
        };
        Ok(Self {
            word: AtomicU64::new(timed | code(State::Closed)),
            period: Swap::new(period),
            detail: Mutex::new(detail),
            epoch: now,
            refused: AtomicU64::new(0),
            late: AtomicU64::new(0),
        })
    }

    /// The head of a call's response is there: whether it is slow is decided by now, how it ends is not.
    pub fn head(&self, admission: &mut Admission, now: Instant) {
        if admission.began != UNTIMED {
            admission.lasted = nanos_since(self.epoch, now).saturating_sub(admission.began);
        }
    }

    /// How long a call has taken, to its head if that is known.
    fn lasted(&self, admission: &Admission, now: impl FnOnce() -> Instant) -> Option<Duration> {
        if admission.lasted != UNTIMED {
            return Some(Duration::from_nanos(admission.lasted));
        }
        let began = Some(admission.began).filter(|began| *began != UNTIMED)?;
        Some(Duration::from_nanos(nanos_since(self.epoch, now()).saturating_sub(began)))
    }

    /// Whether a call may be made now, and what that has changed.
    pub fn admit(&self, now: Instant) -> (Result<Admission, Refusal>, Option<Change>) {
        match self.pass(|| now) {
            Some(admission) => (Ok(admission), None),
            None => self.admit_slowly(now),
        }
    }

    /// The same while every call passes. The time is asked for only if calls are timed.
    #[inline]
    pub(super) fn pass(&self, now: impl FnOnce() -> Instant) -> Option<Admission> {
        let word = self.word.load(SeqCst);
        let kind = match word & STATE {
            0 | 5 => Kind::Counted,
            4 => Kind::Unseen,
            _ => return None,
        };
        let began = if word & TIMED != 0 { nanos_since(self.epoch, now()) } else { UNTIMED };
        Some(Admission { generation: word >> GENERATION, kind, began, lasted: UNTIMED })
    }

    #[cold]
    pub(super) fn admit_slowly(&self, now: Instant) -> (Result<Admission, Refusal>, Option<Change>) {
        let mut detail = lock(&self.detail);
        let change = self.move_on(&mut detail, now);
        let (generation, began) = (detail.generation, nanos_since(self.epoch, now));
        let admission = match detail.state {
            State::Closed | State::MetricsOnly | State::Disabled => {
                let kind = if detail.state == State::Disabled { Kind::Unseen } else { Kind::Counted };
                Admission { generation, kind, began, lasted: UNTIMED }
            }
            State::HalfOpen => {
                let options = &self.period.load().rules.options;
                if detail.admitted >= options.probes {
                    return (Err(self.refusal(&detail, now)), change);
                }
                detail.admitted += 1;
                detail.until.get_or_insert(now + options.half_open);
                Admission { generation, kind: Kind::Probe, began, lasted: UNTIMED }
            }
            State::Open | State::ForcedOpen => return (Err(self.refusal(&detail, now)), change),
        };
        (Ok(admission), change)
    }

    fn refusal(&self, detail: &Detail, now: Instant) -> Refusal {
        self.refused.fetch_add(1, Relaxed);
        Refusal {
            state: detail.state,
            remaining: remaining(detail, now),
            lasted: now.saturating_duration_since(detail.refusing),
            why: detail.why,
        }
    }

    /// A call has ended with `verdict`; what that has changed. One that began in a state that is over changes nothing.
    pub fn finish(
        &self,
        admission: Admission,
        verdict: Verdict,
        now: Instant,
        random: &dyn Random,
    ) -> Option<Change> {
        self.end(admission, verdict, || now, random)
    }

    /// The same. The time is asked for only where it is needed.
    #[inline]
    pub(super) fn end(
        &self,
        admission: Admission,
        verdict: Verdict,
        now: impl Fn() -> Instant,
        random: &dyn Random,
    ) -> Option<Change> {
        match admission.kind {
            Kind::Unseen => return None,
            Kind::Probe => return self.settle(&admission, verdict, now(), random),
            Kind::Counted => {}
        }
        let period = self.period.load();
        if period.generation != admission.generation {
            self.late.fetch_add(1, Relaxed);
            return None;
        }
        let trip = match verdict.class() {
            Class::Success | Class::Failure => {
                let slow = period.rules.is_slow(|| self.lasted(&admission, &now));
                period.add(!verdict.is_success(), slow, &now)
            }
            Class::BackOff if period.rules.options.open_when_asked => {
                asked(verdict).map(|time| Trip::Asked { time })
            }
            Class::BackOff | Class::Inconclusive => None,
        };
        match trip {
            None => None,
            Some(why) => self.trip(admission.generation, why, verdict, now(), random),
        }
    }

    /// A call was not made, or says nothing: a probe's place is free again.
    pub fn forgo(&self, admission: Admission) {
        if admission.kind == Kind::Probe {
            let mut detail = lock(&self.detail);
            if detail.generation == admission.generation {
                detail.give_back();
            }
        }
    }

    /// Moves the state on that time has moved on, and says when to look again. Calls do this too; who wants changes told
    /// without calls has a timer.
    pub fn due(&self, now: Instant) -> (Option<Change>, Option<Instant>) {
        let mut detail = lock(&self.detail);
        let change = self.move_on(&mut detail, now);
        (change, detail.until)
    }

    /// The options in force.
    pub fn options(&self) -> BreakerOptions {
        self.period.load().rules.options.clone()
    }

    /// What it does with calls. Looking changes nothing: it is open until somebody, or [`due`](Self::due), comes after its
    /// time.
    pub fn state(&self) -> State {
        match self.word.load(SeqCst) & STATE {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            4 => State::Disabled,
            _ => State::MetricsOnly,
        }
    }

    /// Whether nobody would miss it at `now`: it is closed and no call in its window has failed or was slow, or nobody has
    /// used it for long and no hand holds it in its state.
    pub(super) fn may_go(&self, idle: bool, now: Instant) -> bool {
        match self.state() {
            State::ForcedOpen | State::Disabled | State::MetricsOnly => false,
            _ if idle => true,
            State::Closed => {
                let held = self.period.load().counted.held(now);
                held.failures == 0 && held.slow == 0
            }
            State::Open | State::HalfOpen => false,
        }
    }

    /// Everything it knows. Looking changes nothing.
    pub fn status(&self, now: Instant) -> BreakerStatus {
        let detail = lock(&self.detail);
        let period = self.period.load();
        let held = period.counted.held(now);
        let rate = |count: u64| {
            (period.rules.is_enough(held) && held.calls > 0).then(|| count as f64 / held.calls as f64)
        };
        let refuses = matches!(detail.state, State::Open | State::HalfOpen | State::ForcedOpen);
        BreakerStatus {
            state: detail.state,
            lasted: now.saturating_duration_since(detail.since),
            remaining: remaining(&detail, now),
            why: refuses.then_some(detail.why),
            calls: held.calls,
            failures: held.failures,
            slow: held.slow,
            failure_rate: rate(held.failures),
            slow_rate: period.rules.is_timed().then(|| rate(held.slow)).flatten(),
            consecutive: period.in_a_row.load(Relaxed),
            probing: detail.probing(),
            refused: self.refused.load(Relaxed),
            opened: detail.opened,
            late: self.late.load(Relaxed),
        }
    }
}

fn remaining(detail: &Detail, now: Instant) -> Option<Duration> {
    let until = detail.until.filter(|_| detail.state == State::Open)?;
    Some(until.saturating_duration_since(now))
}

/// The time that an answer asks for.
fn asked(verdict: Verdict) -> Option<Duration> {
    match verdict.may_repeat() {
        Again::After(time) => Some(time),
        _ => None,
    }
}
