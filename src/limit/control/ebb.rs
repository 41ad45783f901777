//! A limit that ebbs a little now and then, to see what it loses.

use std::time::Duration;

use super::{Controller, Pace, Round, check_range, whole};
use crate::{
    invalid::{Check, Invalid},
    limit::Algorithm,
};

/// The numbers of [`Ebb`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EbbOptions {
    /// What it begins with \[4\]; it doubles from there until there is a queue.
    pub initial: u32,
    /// The lowest limit \[1\].
    pub least: u32,
    /// The highest limit \[1,000\].
    pub most: u32,
    /// How much longer than without a queue latency may be, as a factor \[1.5, 1.2 to 4\].
    pub tolerance: f64,
    /// Latency beyond this is overload, whoever causes it \[none\]. To be set where many clients share the servers.
    pub longest: Option<Duration>,
}

impl Default for EbbOptions {
    fn default() -> Self {
        Self { initial: 4, least: 1, most: 1_000, tolerance: 1.5, longest: None }
    }
}

impl EbbOptions {
    /// Sets [`initial`](Self::initial), [`least`](Self::least) and [`most`](Self::most).
    pub const fn range(mut self, initial: u32, least: u32, most: u32) -> Self {
        (self.initial, self.least, self.most) = (initial, least, most);
        self
    }

    /// Sets [`tolerance`](Self::tolerance).
    pub const fn tolerance(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Sets [`longest`](Self::longest).
    pub const fn longest(mut self, latency: Duration) -> Self {
        self.longest = Some(latency);
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check_range(check, self.initial, self.least, self.most);
        if let Some(longest) = self.longest {
            check.duration("longest", longest);
        }
        check.rule((1.2..=4.0).contains(&self.tolerance), "tolerance", self.tolerance, "1.2 to 4");
    }
}

/// The limit of this crate.
///
/// It compares latency with the *base*, the latency without a queue, and holds the limit where latency is `tolerance` times
/// that: a short queue that keeps every worker busy. What makes it hold for long is that it does not trust the base. When
/// latency is beyond the tolerance, and every few seconds anyhow, the limit ebbs by a quarter and looks at what that does:
///
/// - latency falls in proportion: the requests it lets in no more had only been waiting. It stays there, and looks again.
/// - latency stays: there was no queue of ours. Whatever latency is now, it is the base, as far as it is to be believed; the
///   limit comes back. A base that is far from the last one must show twice.
///
/// So a base that was learnt in an overload is unlearnt in a few steps, a network that has become slower is told from a
/// queue, and nothing is ever measured by letting only a few in. It grows only in rounds in which it was used, and what an
/// ebb shows counts only if it was used through that.
///
/// **A crowd.** Where many clients share the same servers, each sees the queue of all, and can do little about it by itself: to one
/// of them that queue looks as a slower network does, and the limits of all would creep up. Two things bound that. A network
/// makes the quickest answer later by as much as all others; a queue before many servers is short somewhere, now and then. So the
/// base rises above 1.9 times the lowest of late only as far as the quickest answers do, or, where those have not, by as much
/// again in two minutes: nothing that is true is disbelieved for long. And it begins low, with what latency
/// is before its own requests queue. Before a *single* server the queue is the same for all who come, and the crowd does creep
/// up; there, and where a certain latency is owed, [`longest`](EbbOptions::longest) says how long it may be: all that find
/// latency beyond it give way, in proportion. So do answers that ask to be left alone, and attempts that their limit cuts off.
/// The sum of the limits is right then; who has how much of it is not evened out.
#[derive(Clone, Debug)]
pub struct Ebb {
    options: EbbOptions,
    limit: f64,
    /// Latency without a queue, in seconds; 0 before the first round.
    base: f64,
    /// The lowest base of late, and the quickest answer of that round.
    lowest: f64,
    quickest: f64,
    /// An average of latency over the last few rounds.
    usual: f64,
    phase: Phase,
    /// After how long in use it ebbs in any case.
    every: f64,
    /// For how long the limit was in use since the last ebb, and what it was then.
    used: f64,
    looked: f64,
    /// The samples of its beginning.
    first: f64,
    /// Whether the last ebb showed a base that was hard to believe.
    doubts: bool,
    /// Whether it must not grow before the next ebb.
    waits: bool,
    /// Whether the last ebb found no queue of ours, and latency beyond what is believed: another so soon would find no more.
    helpless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing is known yet: the limit doubles until there is a queue, or nobody uses it.
    Start,
    Flow,
    /// Latency was too long, and what is in flight goes down.
    Draining,
    /// The limit stands still, until what was asked for under an earlier one is answered.
    Holding,
    /// What latency is under this limit.
    Before,
    /// The limit has ebbed; what is in flight goes down to it.
    Settling {
        before: f64,
        latency: f64,
    },
    /// What latency is now.
    Looking {
        before: f64,
        latency: f64,
    },
}

/// How far it ebbs: latency falls by as much if there is a queue, and stays if there is none, and a hundred samples tell one
/// from the other.
const EBB: f64 = 0.75;
/// How fast it grows while there is no queue.
const GROWTH: f64 = 1.2;
/// What has passed of that when an ebb has found a queue.
const AGAIN: f64 = 0.9;
/// Latency this much, as a share, on either side of what is wanted is as wanted.
const SLACK: f64 = 0.1;
/// After so long in use it ebbs in any case, in seconds; and not before so many times what a look takes.
const EVERY: f64 = 4.0;
const SELDOM: f64 = 10.0;
/// A base is at most so many times the lowest of late, unless the quickest answers have become later too;
const REACH: f64 = 1.9;
/// which is twice itself after so long, in seconds, if no lower one is seen.
const FORGETS: f64 = 120.0;
/// A base so many times the last one is not believed at once.
const FAR: f64 = 1.25;
const SAMPLES: u64 = 100;
/// So many do where it begins.
const FIRST: u64 = 32;

impl Ebb {
    /// With its initial limit.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn new(options: EbbOptions) -> Result<Self, Invalid> {
        Check::of(|check| options.check(check))?;
        let limit = f64::from(options.initial);
        Ok(Self {
            limit,
            options,
            base: 0.0,
            lowest: 0.0,
            quickest: 0.0,
            usual: 0.0,
            phase: Phase::Start,
            every: EVERY,
            used: 0.0,
            looked: limit,
            first: 0.0,
            doubts: false,
            waits: false,
            helpless: false,
        })
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.options.least), f64::from(self.options.most));
    }

    fn ebb(&mut self, latency: f64) {
        self.phase = Phase::Settling { before: self.limit, latency };
        // In whole numbers, as it is applied.
        self.set((self.limit * EBB).floor().min(self.limit - 1.0));
    }

    /// Latency without a queue is this.
    fn rebase(&mut self, latency: f64, round: &Round) {
        (self.base, self.lowest, self.quickest) = (latency, latency, round.least.as_secs_f64());
    }

    /// The same, if it is lower than what is known.
    fn lower(&mut self, latency: f64, round: &Round) {
        self.base = self.base.min(latency);
        if latency < self.lowest {
            (self.lowest, self.quickest) = (latency, round.least.as_secs_f64());
        }
    }

    /// What the base may be at most.
    fn believed(&self, round: &Round) -> f64 {
        let later = (round.least.as_secs_f64() - self.quickest).max(0.0);
        self.lowest * REACH + later
    }

    fn is_used(&self, round: &Round) -> bool {
        // Of the whole number that is applied.
        round.in_flight >= self.limit.floor() * 0.7 && f64::from(round.most) >= self.limit.floor()
    }

    fn start(&mut self, round: &Round, latency: f64) {
        if latency > self.base * self.options.tolerance {
            self.phase = Phase::Flow;
            (self.usual, self.looked) = (latency, self.limit);
            return;
        }
        self.first += round.samples as f64;
        let base = self.base + (latency - self.base) * round.samples as f64 / self.first;
        self.rebase(base, round);
        if self.is_used(round) {
            self.set(self.limit * 2.0);
        }
    }

    fn flow(&mut self, round: &Round, latency: f64) {
        self.usual = if self.usual == 0.0 { latency } else { (self.usual + latency) / 2.0 };
        // There is no latency without a queue above the one there is.
        self.lower(self.usual, round);
        if !self.is_used(round) {
            // So few wait for each other that this is latency without a queue, whatever it was before.
            if round.in_flight < self.limit * 0.3 {
                self.rebase(self.usual, round);
            }
            return;
        }
        self.used += round.lasted.as_secs_f64();
        let can_ebb = self.limit > f64::from(self.options.least);
        if !can_ebb {
            // There is nothing to wait for, and nobody to ask: shorter than this the queue does not get.
            self.base = self.usual.min(self.believed(round));
            self.waits = false;
        }
        let stretch = self.usual / (self.base * self.options.tolerance);
        let queued = stretch > 1.0 + SLACK && !self.helpless;
        if can_ebb && (queued || self.used > self.every || self.limit > self.looked * 2.0) {
            self.phase = Phase::Holding;
        } else if stretch < 1.0 - SLACK && !self.waits {
            self.helpless = false;
            self.set((self.limit * (1.0 / stretch).min(GROWTH)).max(self.limit + 1.0));
        }
    }

    fn look(&mut self, before: f64, latency_before: f64, latency: f64, round: &Round) {
        self.every = EVERY.max(round.lasted.as_secs_f64() * SELDOM);
        let fell = (latency_before / latency).ln() / (before / self.limit).ln();
        if fell >= 0.5 {
            // There may be more of the queue: it does not grow before that is known, and that soon.
            self.lower(latency, round);
            self.used = self.every * AGAIN;
            (self.doubts, self.waits, self.helpless) = (false, true, false);
        } else {
            // A base that is far from the last one is believed when it is seen twice.
            let far = latency > self.base * FAR;
            self.doubts = far && !self.doubts;
            self.waits = self.doubts;
            self.used = if self.doubts { self.every } else { 0.0 };
            if !self.doubts {
                self.base = latency.min(self.believed(round));
                self.helpless = latency > self.base;
            }
            self.set(before);
        }
        self.looked = self.limit;
        self.usual = latency;
        self.phase = Phase::Flow;
    }
}

impl Controller for Ebb {
    fn limit(&self) -> u32 {
        whole(self.limit)
    }

    fn round(&mut self, round: &Round) -> u32 {
        // Where many are given up, latency is their callers' patience, and shows no queue any more.
        let given_up = if round.given_up.saturating_mul(4) >= round.samples { round.given_up } else { 0 };
        let lost = round.dropped.saturating_add(given_up);
        if lost > 0 {
            let share = (lost as f64 / round.dropped.saturating_add(round.samples) as f64).min(1.0);
            self.phase = Phase::Flow;
            self.set(self.limit * (1.0 - share).clamp(EBB, 0.95));
            return self.limit();
        }
        let latency = round.mean.as_secs_f64();
        if round.samples == 0 || latency == 0.0 {
            return self.limit();
        }
        if self.base == 0.0 {
            self.rebase(latency, round);
        }
        let forgets = (round.lasted.as_secs_f64() / FORGETS).exp2();
        self.lowest = (self.lowest * forgets).min(self.base);
        if let Some(longest) = self.options.longest.map(|longest| longest.as_secs_f64())
            && latency > longest
        {
            // As far as latency would follow, if all gave way alike; what is in flight has to go down to it first.
            let share = (longest / latency).clamp(EBB, 0.95);
            self.phase = Phase::Draining;
            (self.usual, self.used) = (latency, 0.0);
            self.set(self.limit * share);
            return self.limit();
        }
        match self.phase {
            Phase::Start => self.start(round, latency),
            Phase::Flow => self.flow(round, latency),
            Phase::Draining => self.phase = Phase::Flow,
            Phase::Holding => self.phase = Phase::Before,
            Phase::Before => self.ebb(latency),
            // Latency may be another because less was asked for.
            Phase::Settling { before, .. } | Phase::Looking { before, .. } if !self.is_used(round) => {
                self.set(before);
                self.phase = Phase::Flow;
            }
            Phase::Settling { before, latency } => self.phase = Phase::Looking { before, latency },
            Phase::Looking { before, latency: earlier } => self.look(before, earlier, latency, round),
        }
        self.limit()
    }

    fn retune(&mut self, algorithm: &Algorithm) -> bool {
        let Algorithm::Ebb(options) = algorithm else { return false };
        self.options = *options;
        self.set(self.limit);
        true
    }

    fn pace(&self) -> Pace {
        let ms = Duration::from_millis;
        match self.phase {
            // As long as an answer takes that was asked for before.
            Phase::Draining | Phase::Holding | Phase::Settling { .. } => {
                let latency = Duration::try_from_secs_f64(self.usual * 1.25).unwrap_or(ms(100));
                Pace::new(latency, 1, latency.max(ms(10)))
            }
            Phase::Before | Phase::Looking { .. } => Pace::new(ms(100), SAMPLES, ms(1_000)),
            Phase::Start => Pace::new(ms(10), FIRST.max(4 * u64::from(self.limit())), ms(1_000)),
            Phase::Flow => Pace::new(ms(100), SAMPLES / 2, ms(1_000)),
        }
    }
}
