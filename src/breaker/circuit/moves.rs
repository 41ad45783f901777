//! How the state moves: by time, by a rule that is broken, by probes, by hand. All of it under the lock.

use std::time::{Duration, Instant};

use super::{Admission, CircuitBreaker, Detail, GENERATION, TIMED, asked, code};
use crate::{
    Invalid,
    breaker::{BreakerOptions, Change, Lapse, Moved, Opening, State, Trip, period::Rules},
    invalid::FOREVER,
    outcome::{Class, Verdict},
    random::Random,
    sync::{MutexGuard, Ordering::Relaxed, Ordering::SeqCst, lock},
};

impl CircuitBreaker {
    pub(super) fn move_on(&self, detail: &mut MutexGuard<'_, Detail>, now: Instant) -> Option<Change> {
        if detail.until.is_none_or(|until| now < until) {
            return None;
        }
        match detail.state {
            State::Open => {
                self.enter(detail, State::HalfOpen, None, now);
                Some(told(detail, Moved::HalfOpened))
            }
            State::HalfOpen if self.period.load().rules.options.lapse == Lapse::Closes => {
                Some(self.close(detail, now, false))
            }
            // What lapsed says nothing of the time: it is as long as the last.
            State::HalfOpen => Some(self.open(detail, Trip::Lapsed, None, now, None)),
            _ => None,
        }
    }

    #[cold]
    pub(super) fn trip(
        &self,
        generation: u64,
        why: Trip,
        verdict: Verdict,
        now: Instant,
        random: &dyn Random,
    ) -> Option<Change> {
        let mut detail = lock(&self.detail);
        if detail.generation != generation {
            return None;
        }
        match detail.state {
            State::Closed => Some(self.open(&mut detail, why, asked(verdict), now, Some(random))),
            State::MetricsOnly => {
                let rule = match why {
                    Trip::FailureRate { .. } => 1,
                    Trip::SlowRate { .. } => 2,
                    Trip::Consecutive { .. } => 4,
                    _ => 8,
                };
                let news = detail.told & rule == 0;
                detail.told |= rule;
                news.then(|| told(&mut detail, Moved::Exceeded(why)))
            }
            _ => None,
        }
    }

    #[cold]
    pub(super) fn settle(
        &self,
        admission: &Admission,
        verdict: Verdict,
        now: Instant,
        random: &dyn Random,
    ) -> Option<Change> {
        let mut detail = lock(&self.detail);
        // A probe that comes after half-open's time is late, even where it is the first to notice.
        let change = self.move_on(&mut detail, now);
        if detail.generation != admission.generation {
            self.late.fetch_add(1, Relaxed);
            return change;
        }
        let rules = self.period.load().rules.clone();
        let slow = rules.is_slow(|| self.lasted(admission, || now));
        match verdict.class() {
            Class::BackOff if rules.options.open_when_asked && asked(verdict).is_some() => {
                detail.failures += 1;
                let time = asked(verdict).unwrap_or_default();
                return Some(self.open(&mut detail, Trip::Asked { time }, Some(time), now, Some(random)));
            }
            Class::BackOff | Class::Inconclusive => {
                detail.give_back();
                return None;
            }
            Class::Success if !slow => detail.successes += 1,
            Class::Success | Class::Failure => detail.failures += 1,
        }
        self.decide(&mut detail, asked(verdict), now, random)
    }

    /// Leaves half-open if its probes have shown enough.
    fn decide(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        asked: Option<Duration>,
        now: Instant,
        random: &dyn Random,
    ) -> Option<Change> {
        let BreakerOptions { probes, probe_successes, .. } = self.period.load().rules.options;
        if detail.successes >= probe_successes {
            return Some(self.close(detail, now, false));
        }
        // The others that may still come cannot make up for those that failed.
        if detail.failures > probes.saturating_sub(probe_successes) {
            let why = Trip::Probes { failures: detail.failures };
            return Some(self.open(detail, why, asked, now, Some(random)));
        }
        None
    }

    /// Opens for as long as the options say, or the answer asks, whichever is longer; without chance as long as before.
    fn open(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        why: Trip,
        asked: Option<Duration>,
        now: Instant,
        random: Option<&dyn Random>,
    ) -> Change {
        let rules = self.period.load().rules.clone();
        let opening = Opening { attempt: detail.openings, why, previous: detail.lasts };
        let own = random.map_or(detail.lasts, |random| rules.options.open.of(&opening, random));
        let asked = asked.unwrap_or_default().min(rules.options.asked_cap);
        self.open_for(detail, why, own.max(asked), now)
    }

    fn open_for(
        &self,
        detail: &mut MutexGuard<'_, Detail>,
        why: Trip,
        lasts: Duration,
        now: Instant,
    ) -> Change {
        if !matches!(detail.state, State::Open | State::HalfOpen) {
            detail.refusing = now;
        }
        detail.openings = detail.openings.saturating_add(1);
        detail.opened += 1;
        detail.lasts = lasts;
        detail.why = why;
        self.enter(detail, State::Open, Some(now + lasts.min(FOREVER)), now);
        told(detail, Moved::Opened { why, lasts })
    }

    fn close(&self, detail: &mut MutexGuard<'_, Detail>, now: Instant, by_hand: bool) -> Change {
        self.enter(detail, State::Closed, None, now);
        told(detail, Moved::Closed { by_hand })
    }

    /// Begins a new period. Whoever has seen its number finds it, or a later one.
    fn enter(&self, detail: &mut MutexGuard<'_, Detail>, state: State, until: Option<Instant>, now: Instant) {
        detail.generation += 1;
        detail.state = state;
        detail.since = now;
        detail.until = until;
        (detail.admitted, detail.successes, detail.failures) = (0, 0, 0);
        detail.told = 0;
        if matches!(state, State::Closed | State::MetricsOnly | State::Disabled) {
            (detail.openings, detail.lasts) = (0, Duration::ZERO);
        }
        let period = match state {
            State::Closed | State::MetricsOnly => self.period.load().emptied(detail.generation, self.epoch),
            _ => self.period.load().renumbered(detail.generation),
        };
        let timed = if period.rules.is_timed() { TIMED } else { 0 };
        self.period.store(period);
        self.word.store(detail.generation << GENERATION | timed | code(state), SeqCst);
    }

    /// Puts it into `state` by hand: closed means with an empty window, open for as long as the options say.
    pub fn force(&self, state: State, now: Instant, random: &dyn Random) -> Change {
        let mut detail = lock(&self.detail);
        match state {
            State::Closed => self.close(&mut detail, now, true),
            State::Open => self.open(&mut detail, Trip::ByHand, None, now, Some(random)),
            _ => {
                if state == State::ForcedOpen {
                    if !matches!(detail.state, State::Open | State::HalfOpen) {
                        detail.refusing = now;
                    }
                    detail.why = Trip::ByHand;
                }
                self.enter(&mut detail, state, None, now);
                told(&mut detail, Moved::Forced(state))
            }
        }
    }

    /// Opens it by hand for `time`, at most 10 years.
    pub fn force_open_for(&self, time: Duration, now: Instant) -> Change {
        self.open_for(&mut lock(&self.detail), Trip::ByHand, time, now)
    }

    /// Replaces the options. State, what remains of it, and the window stay; a window of another kind or length begins
    /// empty. Half-open ends if what its probes have shown is enough by the new options; what that has changed is returned.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule; nothing is changed then.
    pub fn update(
        &self,
        options: BreakerOptions,
        now: Instant,
        random: &dyn Random,
    ) -> Result<Option<Change>, Invalid> {
        options.validate()?;
        let mut detail = lock(&self.detail);
        let period = self.period.load().ruled(Rules::new(options, self.epoch), self.epoch);
        let timed = if period.rules.is_timed() { TIMED } else { 0 };
        self.period.store(period);
        self.word.store(detail.generation << GENERATION | timed | code(detail.state), SeqCst);
        let half_open = detail.state == State::HalfOpen;
        Ok(if half_open { self.decide(&mut detail, None, now, random) } else { None })
    }
}

fn told(detail: &mut Detail, what: Moved) -> Change {
    let number = detail.changes;
    detail.changes += 1;
    Change { number, what }
}
