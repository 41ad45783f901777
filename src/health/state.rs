//! The state machine of one endpoint's health.
//!
//! ```text
//!               trip                 time over              taken by a request
//!  Available ----------> Ejected ---------------> Probation -----------------> Probing
//!      ^                    ^                       |   ^                        | | |
//!      |                    |       30 s, nobody    |   |   cancelled, unclear   | | |
//!      +--------------------|-----------------------+   +------------------------+ | |
//!      |                    +------------------------- failed ---------------------+ |
//!      +----------------------------------------------- succeeded -------------------+
//! ```
//!
//! A probe that nobody settles is given up after a time, as one that was cancelled, and at the third the endpoint returns unproven.
//!
//! Beside it, and independent of it, an endpoint may have asked to be left alone until some time, and may be held out by
//! its registry, or drained by hand.

use std::time::{Duration, Instant};

use super::{Accrual, HealthOptions, Ledger, Trip};
use crate::{
    invalid::FOREVER,
    outcome::Class,
    random::Random,
    sync::{AtomicU32, Mutex, MutexGuard, Ordering::Relaxed, Ordering::SeqCst, lock},
};

/// What the state of an endpoint means to whoever picks, in one word: 0 is available.
///
/// Two bits of phase, one of backing off, one of being held out by its registry, one of no connection, one of being
/// drained by hand; above them the generation of the phase, by which stragglers are told from the answers of now.
const PHASE: u32 = 0b11;
const BACKING_OFF: u32 = 0b100;
const HELD: u32 = 0b1000;
const UNCONNECTED: u32 = 0b1_0000;
const DRAINED: u32 = 0b10_0000;
const FLAGS: u32 = 0b11_1111;
const GENERATION: u32 = 16;

/// So many probes that nobody settles in time bring an endpoint back unproven: where all answers go on for longer than a probe
/// is waited for, each takes the place of one that would prove something, and it would be out for as long as there are requests.
const UNSETTLED: u8 = 3;

/// Whether an endpoint may be given requests, and if not, why and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It gets its share.
    Available,
    /// It was found bad and gets nothing.
    Ejected {
        /// When it will be given a chance.
        until: Instant,
        /// The rule that tripped.
        why: Trip,
    },
    /// The next request that may safely be repeated decides.
    Probation {
        /// When it returns without one.
        until: Instant,
    },
    /// A request is deciding right now.
    Probing {
        /// When that request is given up, and another offered.
        until: Instant,
    },
    /// It asked to be left alone.
    BackingOff {
        /// Until when.
        until: Instant,
    },
    /// Its registry keeps it out.
    Held,
    /// Somebody keeps it out by hand.
    Drained,
}

impl State {
    /// When time changes it, if time does.
    pub fn until(&self) -> Option<Instant> {
        match *self {
            Self::Ejected { until, .. }
            | Self::Probation { until }
            | Self::Probing { until }
            | Self::BackingOff { until } => Some(until),
            Self::Available | Self::Held | Self::Drained => None,
        }
    }

    /// What will happen then, or what it takes where time changes nothing.
    pub fn next(&self) -> &'static str {
        match self {
            Self::Available => "goes on until it fails too often",
            Self::Ejected { .. } => "the next request that may be repeated is offered to it",
            Self::Probation { .. } => "returns unproven, unless a request decides before",
            Self::Probing { .. } => "another request is offered to it, unless this one decides before",
            Self::BackingOff { .. } => "is asked again",
            Self::Held => "returns when its registry lets it",
            Self::Drained => "returns when it is restored by hand",
        }
    }
}

/// A change of state that others must learn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transition {
    /// It was ejected.
    Ejected {
        /// The rule that tripped.
        why: Trip,
        /// For how long.
        lasts: Duration,
    },
    /// It waits for a request that decides.
    Probation,
    /// The same, because somebody else finds it dead.
    Suspected,
    /// It is back; `proven` by a request, or because nobody came.
    Restored {
        /// Whether a request has proven it.
        proven: bool,
    },
    /// It asked to be left alone.
    BackingOff {
        /// For how long.
        lasts: Duration,
    },
    /// The time it asked for is over.
    Resumed,
    /// Its registry keeps it out.
    Held,
    /// Its registry lets it in again.
    Released,
    /// Somebody keeps it out.
    Drained,
    /// Somebody put it back, whatever kept it out.
    RestoredByHand,
}

/// What an endpoint is ejected for, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Why.
    pub why: Trip,
    /// For how long; `None` for what [`HealthOptions::ejection`] says.
    pub lasts: Option<Duration>,
}

impl From<Trip> for Sentence {
    fn from(why: Trip) -> Self {
        Self { why, lasts: None }
    }
}

/// The right to be the request that decides over an endpoint's return.
///
/// It must be handed back with [`Health::settle`]; whoever holds it hands it back when dropped, too.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not settled blocks the endpoint"]
pub struct Lease(u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    #[default]
    In = 0,
    Ejected = 1,
    Probation = 2,
    Probing = 3,
}

#[derive(Debug)]
pub(super) struct Detail {
    pub(super) phase: Phase,
    pub(super) generation: u32,
    pub(super) since: Instant,
    pub(super) until: Option<Instant>,
    pub(super) why: Trip,
    pub(super) judged: bool,
    /// Whether a ledger counts it, and whether it counts it as available.
    pub(super) member: bool,
    pub(super) counted: bool,
    /// When a probe that nobody has settled is given up, and how many were since the endpoint is out.
    pub(super) probe_until: Option<Instant>,
    unsettled: u8,
    /// Ejections that are not forgiven yet, and how long the last one lasted.
    pub(super) ejections: u32,
    pub(super) lasted: Duration,
    /// What keeps it out beside its phase, if anything does.
    aside: Option<Box<Aside>>,
    pub(super) connected: bool,
}

/// What may keep an endpoint out whatever its phase is. Of many endpoints few have any of it at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Aside {
    /// Until when it is to be left alone, and since when.
    pub(super) backing_off: Option<(Instant, Instant)>,
    /// Since when its registry, or somebody by hand, keeps it out.
    pub(super) held: Option<Instant>,
    pub(super) drained: Option<Instant>,
}

impl Detail {
    pub(super) fn aside(&self) -> Aside {
        self.aside.as_deref().copied().unwrap_or_default()
    }

    pub(super) fn change_aside(&mut self, change: impl FnOnce(&mut Aside)) {
        let mut aside = self.aside();
        change(&mut aside);
        self.aside = (aside != Aside::default()).then(|| Box::new(aside));
    }

    /// When time moves the phase on.
    fn next(&self) -> Option<Instant> {
        if self.phase == Phase::Probing { self.probe_until } else { self.until }
    }
}

/// The health of one endpoint. The word that picks look at comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Health {
    word: AtomicU32,
    accrual: Accrual,
    pub(super) detail: Mutex<Detail>,
}

impl Health {
    /// A new endpoint: available, without a past.
    pub fn new(now: Instant, options: &HealthOptions) -> Self {
        Self::starting(now, now, options)
    }

    /// The same, counting time from `epoch`.
    pub(crate) fn starting(epoch: Instant, now: Instant, options: &HealthOptions) -> Self {
        Self {
            word: AtomicU32::new(0),
            accrual: Accrual::new(epoch, options.window),
            detail: Mutex::new(Detail {
                phase: Phase::In,
                generation: 0,
                since: now,
                until: None,
                why: Trip::Consecutive,
                judged: false,
                member: false,
                counted: false,
                probe_until: None,
                unsettled: 0,
                ejections: 0,
                lasted: Duration::ZERO,
                aside: None,
                connected: true,
            }),
        }
    }

    /// Whether it may be given requests.
    #[inline]
    pub fn is_available(&self) -> bool {
        self.word.load(Relaxed) & FLAGS == 0
    }

    /// Whether it may be given requests where ejections are set aside: it neither asked to be left alone nor is held.
    #[inline]
    pub fn is_usable_in_panic(&self) -> bool {
        self.word.load(Relaxed) & (BACKING_OFF | HELD | DRAINED) == 0
    }

    /// Whether it waits for a request that decides, and nothing else keeps it out.
    #[inline]
    pub(super) fn wants_probe(&self) -> bool {
        self.word.load(Relaxed) & FLAGS == Phase::Probation as u32
    }

    /// The generation of its state: what an attempt that starts now is an attempt of.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.word.load(Relaxed) >> GENERATION
    }

    /// Counts a success of an attempt that is not a probe.
    #[inline]
    pub fn success(&self, now: Instant) {
        self.accrual.success(now);
    }

    /// The same, of a time in nanoseconds since the epoch.
    #[inline]
    pub(crate) fn success_at(&self, nanos: u64) {
        self.accrual.success_at(nanos);
    }

    /// How many attempts have ended, more or less.
    #[inline]
    pub(crate) fn ended(&self) -> u64 {
        self.accrual.ended()
    }

    /// How many successes and failures say something about it: what came too late does not.
    pub(crate) fn counted(&self) -> (u64, u64) {
        self.accrual.counted()
    }

    /// How many successes and failures there were.
    pub fn totals(&self) -> (u64, u64) {
        self.accrual.totals()
    }

    /// Counts a failure of an attempt of `generation` that is not a probe.
    ///
    /// An attempt that began before the endpoint was last set aside or let back says nothing about it now.
    pub fn failure(
        &self,
        now: Instant,
        generation: u32,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        self.failure_of(0, now, generation, options, ledger, random)
    }

    /// The same of an attempt for an operation, by its number.
    pub(crate) fn failure_of(
        &self,
        operation: u16,
        now: Instant,
        generation: u32,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        if self.generation() != generation {
            self.accrual.late_failure();
            return None;
        }
        let why = self.accrual.failure_of(operation, now, options)?;
        let mut detail = lock(&self.detail);
        if !options.enabled || detail.phase != Phase::In || detail.generation & 0xFFFF != generation {
            return None;
        }
        self.eject(&mut detail, now, why.into(), options, ledger, random)
    }

    /// Counts a failure that is not held against the endpoint, in the total alone.
    pub(crate) fn failed_otherwise(&self) {
        self.accrual.late_failure();
    }

    /// Whether a request has succeeded within the last tenth of the window, or the one before.
    pub(super) fn has_just_succeeded(&self, now: Instant) -> bool {
        self.accrual.has_just_succeeded(now)
    }

    /// Counts a failure, and says which rule it trips. Nothing comes of it here.
    pub(super) fn tripped(&self, now: Instant, options: &HealthOptions) -> Option<Trip> {
        self.accrual.failure(now, options)
    }

    /// Forgets what was counted.
    pub(super) fn forget(&self) {
        self.accrual.reset();
    }

    /// Takes back what failures of an operation, by its number, count for: it is set aside alone.
    pub(crate) fn forgive(&self, operation: u16) {
        self.accrual.forgive(operation);
    }

    /// Ejects the endpoint by a judgement that was made of its attempts in `generation`, if it is still in that.
    pub fn judge(
        &self,
        sentence: Sentence,
        generation: u32,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if !options.enabled || detail.phase != Phase::In || detail.generation & 0xFFFF != generation {
            return None;
        }
        self.eject(&mut detail, now, sentence, options, ledger, random)
    }

    /// Lets the endpoint back if it is out by comparison with others, which is not done any more.
    pub fn acquit(&self, now: Instant, ledger: &Ledger) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if detail.phase == Phase::In || !detail.why.is_outlier() {
            return None;
        }
        Some(self.restore(&mut detail, now, false, ledger))
    }

    /// Lets the endpoint back if it is out by any rule, because there are none any more; what was done by hand stands.
    pub(crate) fn pardon(&self, now: Instant, ledger: &Ledger) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if detail.phase == Phase::In || detail.why == Trip::ByHand {
            return None;
        }
        Some(self.restore(&mut detail, now, false, ledger))
    }

    pub(super) fn eject(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        now: Instant,
        sentence: Sentence,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        let why = sentence.why;
        if detail.phase == Phase::In {
            let judged = ledger.judges(why);
            if why != Trip::ByHand && !ledger.permit(detail, judged, options.max_ejected.get()) {
                return None;
            }
            detail.judged = judged;
            detail.ejections = self.remembered(detail, now);
        }
        detail.ejections = detail.ejections.saturating_add(1);
        let lasts = sentence
            .lasts
            .unwrap_or_else(|| options.ejection.delay(detail.ejections, detail.lasted, random))
            .min(FOREVER);
        detail.lasted = lasts;
        detail.why = why;
        detail.until = Some(now + lasts);
        (detail.probe_until, detail.unsettled) = (None, 0);
        self.enter(detail, Phase::Ejected, now, ledger);
        Some(Transition::Ejected { why, lasts })
    }

    /// The ejections that still count after having been available since the last.
    pub(super) fn remembered(&self, detail: &Detail, now: Instant) -> u32 {
        if detail.lasted.is_zero() {
            return 0;
        }
        let healthy = now.saturating_duration_since(detail.since);
        let forgiven = (healthy.as_secs_f64() / detail.lasted.as_secs_f64()) as u32;
        detail.ejections.saturating_sub(forgiven)
    }

    /// Whether nothing of its past counts any more: it is well, its ejections are forgiven, and so are its failures.
    pub(super) fn is_spent(&self, now: Instant, options: &HealthOptions) -> bool {
        let detail = lock(&self.detail);
        self.is_available() && self.remembered(&detail, now) == 0 && self.accrual.is_spent(now, options)
    }

    /// Takes the right to probe, if the endpoint waits for that.
    pub fn lease(&self, now: Instant, options: &HealthOptions, ledger: &Ledger) -> Option<Lease> {
        if !self.wants_probe() {
            return None;
        }
        let mut detail = lock(&self.detail);
        if !self.wants_probe() {
            return None;
        }
        // The lease hands itself back; the time is a second line, for a holder that is never polled again.
        detail.probe_until = Some(now + options.probe_limit + options.probe_wait);
        self.enter(&mut detail, Phase::Probing, now, ledger);
        Some(Lease(detail.generation))
    }

    /// Hands a lease back with what the request has shown. A lease that time has overtaken changes nothing.
    pub fn settle(
        &self,
        lease: Lease,
        shown: Class,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
        random: &dyn Random,
    ) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if detail.phase != Phase::Probing || detail.generation != lease.0 {
            return None;
        }
        match shown {
            Class::Success | Class::BackOff => Some(self.restore(&mut detail, now, true, ledger)),
            // Nothing is ejected for what it shows.
            Class::Failure if !options.enabled => Some(self.restore(&mut detail, now, false, ledger)),
            Class::Failure => {
                let why = detail.why;
                self.eject(&mut detail, now, why.into(), options, ledger, random)
            }
            Class::Inconclusive => {
                self.wait_on(&mut detail, now, ledger);
                Some(Transition::Probation)
            }
        }
    }

    /// Hands a lease back that no request was sent with. Says whether the time to wait for another is over: somebody
    /// must call [`due`](Self::due) then.
    ///
    /// Nobody is told otherwise, or whoever waits for an endpoint that is not ready would wake itself for ever.
    pub fn forgo(&self, lease: Lease, now: Instant, ledger: &Ledger) -> bool {
        let mut detail = lock(&self.detail);
        if detail.phase != Phase::Probing || detail.generation != lease.0 {
            return false;
        }
        self.wait_on(&mut detail, now, ledger);
        detail.until.is_some_and(|until| until <= now)
    }

    /// Waits for another probe. The time to wait goes on from where it was: probes that prove nothing do not keep an
    /// endpoint out.
    fn wait_on(&self, detail: &mut MutexGuard<'_, Detail>, now: Instant, ledger: &Ledger) {
        detail.probe_until = None;
        self.enter(detail, Phase::Probation, now, ledger);
    }

    pub(super) fn restore(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        now: Instant,
        proven: bool,
        ledger: &Ledger,
    ) -> Transition {
        self.accrual.reset();
        if std::mem::take(&mut detail.judged) {
            ledger.unjudge(detail);
        }
        detail.until = None;
        (detail.probe_until, detail.unsettled) = (None, 0);
        self.enter(detail, Phase::In, now, ledger);
        Transition::Restored { proven }
    }

    /// Leaves the endpoint alone, as it asked.
    pub fn back_off(
        &self,
        asked: Option<Duration>,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
    ) -> Option<Transition> {
        let lasts = asked.unwrap_or(options.back_off).min(options.back_off_cap);
        if lasts.is_zero() {
            return None;
        }
        self.leave_alone(&mut lock(&self.detail), lasts, now, ledger)
    }

    pub(super) fn leave_alone(
        &self,
        detail: &mut Detail,
        lasts: Duration,
        now: Instant,
        ledger: &Ledger,
    ) -> Option<Transition> {
        let until = now + lasts;
        let before = detail.aside().backing_off;
        let news = before.is_none();
        let asked = before.map_or((until, now), |(own, since)| (own.max(until), since));
        detail.change_aside(|aside| aside.backing_off = Some(asked));
        self.publish(detail, ledger);
        news.then_some(Transition::BackingOff { lasts })
    }

    /// Keeps the endpoint out, or lets it in again, by its registry's word.
    pub fn hold(&self, held: bool, now: Instant, ledger: &Ledger) -> Option<Transition> {
        let mut detail = lock(&self.detail);
        if detail.aside().held.is_some() == held {
            return None;
        }
        detail.change_aside(|aside| aside.held = held.then_some(now));
        self.publish(&mut detail, ledger);
        Some(if held { Transition::Held } else { Transition::Released })
    }

    /// Keeps the endpoint out while no connection stands to it.
    pub fn connect(&self, connected: bool, ledger: &Ledger) {
        let mut detail = lock(&self.detail);
        detail.connected = connected;
        self.publish(&mut detail, ledger);
    }

    /// Does what time has brought, and says when it will bring something next.
    pub fn due(
        &self,
        now: Instant,
        options: &HealthOptions,
        ledger: &Ledger,
    ) -> ([Option<Transition>; 2], Option<Instant>) {
        let mut detail = lock(&self.detail);
        let mut resumed = None;
        if detail.aside().backing_off.is_some_and(|(until, _)| until <= now) {
            detail.change_aside(|aside| aside.backing_off = None);
            self.publish(&mut detail, ledger);
            resumed = Some(Transition::Resumed);
        }
        let mut moved = None;
        if detail.next().is_some_and(|until| until <= now) {
            match detail.phase {
                Phase::Ejected => {
                    detail.until = Some(now + options.probe_wait);
                    self.enter(&mut detail, Phase::Probation, now, ledger);
                    moved = Some(Transition::Probation);
                }
                Phase::Probation => moved = Some(self.restore(&mut detail, now, false, ledger)),
                Phase::Probing if detail.unsettled + 1 >= UNSETTLED => {
                    moved = Some(self.restore(&mut detail, now, false, ledger));
                }
                Phase::Probing => {
                    detail.unsettled += 1;
                    detail.until = Some(now + options.probe_wait);
                    self.wait_on(&mut detail, now, ledger);
                    moved = Some(Transition::Probation);
                }
                Phase::In => detail.until = None,
            }
        }
        let backing_off = detail.aside().backing_off.map(|(until, _)| until);
        let next = [detail.next(), backing_off].into_iter().flatten().min();
        ([resumed, moved], next)
    }

    /// The state, and since when.
    pub fn state(&self) -> (State, Instant) {
        let detail = lock(&self.detail);
        let until = detail.next().unwrap_or(detail.since);
        if let Some(since) = detail.aside().drained {
            return (State::Drained, since);
        }
        if let Some(since) = detail.aside().held {
            return (State::Held, since);
        }
        let state = match detail.phase {
            Phase::Ejected => State::Ejected { until, why: detail.why },
            Phase::Probation => State::Probation { until },
            Phase::Probing => State::Probing { until },
            Phase::In => match detail.aside().backing_off {
                Some((until, since)) => return (State::BackingOff { until }, since),
                None => State::Available,
            },
        };
        (state, detail.since)
    }

    /// Whether a ledger counts it.
    pub(crate) fn is_member(&self) -> bool {
        lock(&self.detail).member
    }

    /// Whether it was set aside and is not back, whatever else keeps it out.
    pub(crate) fn is_ejected(&self) -> bool {
        self.word.load(Relaxed) & PHASE != Phase::In as u32
    }

    /// The phase alone, whatever else keeps the endpoint out.
    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn phase_name(&self) -> &'static str {
        match lock(&self.detail).phase {
            Phase::In => "in",
            Phase::Ejected => "ejected",
            Phase::Probation => "probation",
            Phase::Probing => "probing",
        }
    }

    /// When time changes something, whatever else keeps the endpoint out.
    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn next_time(&self) -> Option<Instant> {
        let detail = lock(&self.detail);
        let backing_off = detail.aside().backing_off.map(|(until, _)| until);
        [detail.next(), backing_off].into_iter().flatten().min()
    }

    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn is_held(&self) -> bool {
        lock(&self.detail).aside().held.is_some()
    }

    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn is_drained(&self) -> bool {
        lock(&self.detail).aside().drained.is_some()
    }

    #[cfg(all(test, not(mainstay_loom)))]
    pub(super) fn is_connected(&self) -> bool {
        lock(&self.detail).connected
    }

    /// Until when the endpoint asked to be left alone.
    pub fn backing_off(&self) -> Option<Instant> {
        if self.word.load(Relaxed) & BACKING_OFF == 0 {
            return None;
        }
        lock(&self.detail).aside().backing_off.map(|(until, _)| until)
    }

    pub(super) fn enter(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        phase: Phase,
        now: Instant,
        ledger: &Ledger,
    ) {
        detail.phase = phase;
        detail.since = now;
        detail.generation = detail.generation.wrapping_add(1);
        self.publish(detail, ledger);
    }

    pub(super) fn publish(&self, detail: &mut Detail, ledger: &Ledger) {
        let mut word = (detail.generation << GENERATION) | (detail.phase as u32 & PHASE);
        let aside = detail.aside();
        if aside.backing_off.is_some() {
            word |= BACKING_OFF;
        }
        if aside.held.is_some() {
            word |= HELD;
        }
        if aside.drained.is_some() {
            word |= DRAINED;
        }
        if !detail.connected {
            word |= UNCONNECTED;
        }
        let wanted = self.wants_probe();
        self.word.store(word, SeqCst);
        match (wanted, self.wants_probe()) {
            (false, true) if detail.member => _ = ledger.waiting.fetch_add(1, SeqCst),
            (true, false) if detail.member => _ = ledger.waiting.fetch_sub(1, SeqCst),
            _ => {}
        }
        ledger.count(detail, word & FLAGS == 0);
    }
}
