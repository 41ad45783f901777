//! The options of a concurrency limit.

use std::time::Duration;

use super::{
    control::{
        Aimd, AimdOptions, Controller, Ebb, EbbOptions, Gradient2, Gradient2Options, Vegas, VegasOptions,
    },
    gate::MAX_LIMIT,
};
use crate::invalid::{Check, FOREVER, Invalid};

/// What decides how many requests run at a time.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Always [`limit`](ConcurrencyLimitOptions::limit).
    #[default]
    Fixed,
    /// Latency and what a slightly lower limit does to it: what to take where no number is known.
    Ebb(EbbOptions),
    /// One more a second, a tenth less on overload: where latency says nothing of load.
    Aimd(AimdOptions),
    /// Netflix's Vegas.
    Vegas(VegasOptions),
    /// Netflix's Gradient2.
    Gradient2(Gradient2Options),
}

impl Algorithm {
    /// [`Ebb`] with its defaults. It begins with a few requests at a time and doubles from there: a burst of thousands at its
    /// first moment waits, and beyond [`max_waiting`](ConcurrencyLimitOptions::max_waiting) is refused.
    pub fn adaptive() -> Self {
        Self::Ebb(EbbOptions::default())
    }

    /// What decides by these options, which were checked.
    pub(crate) fn controller(&self) -> Option<Box<dyn Controller>> {
        match self {
            Self::Fixed => None,
            Self::Ebb(options) => boxed(Ebb::new(*options)),
            Self::Aimd(options) => boxed(Aimd::new(*options)),
            Self::Vegas(options) => boxed(Vegas::new(*options)),
            Self::Gradient2(options) => boxed(Gradient2::new(*options)),
        }
    }

    pub(crate) fn check(&self, check: &mut Check) {
        match self {
            Self::Fixed => {}
            Self::Ebb(options) => options.check(check),
            Self::Aimd(options) => options.check(check),
            Self::Vegas(options) => options.check(check),
            Self::Gradient2(options) => options.check(check),
        }
    }
}

fn boxed(made: Result<impl Controller + 'static, Invalid>) -> Option<Box<dyn Controller>> {
    Some(Box::new(made.expect("the options were checked")))
}

/// Who is next, and how long one may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queue {
    /// First come, first served.
    #[default]
    Fifo,
    /// First come, first served; once the line has not been empty for [`interval`](ConcurrencyLimitOptions::interval), last
    /// come, first served. Under pressure the newest are those whose callers still wait.
    Lifo,
    /// First come, first served; once the line has not been empty for [`interval`](ConcurrencyLimitOptions::interval), who
    /// comes waits for [`target`](ConcurrencyLimitOptions::target) at most, before that for an interval at most.
    CoDel,
}

/// How many requests run at a time, how many wait, in which order, and how long.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConcurrencyLimitOptions {
    /// How many requests run at a time \[100, 1 to 2^31 - 1\], where that is fixed.
    pub limit: u32,
    /// What decides how many requests run at a time \[the number above\].
    pub algorithm: Algorithm,
    /// How many more may wait for their turn \[1,024\]; 0 refuses at once.
    pub max_waiting: u32,
    /// How long one may wait \[1 s\]. A request whose deadline comes earlier leaves then, or at once if those before it
    /// would take longer.
    pub max_wait: Duration,
    /// Who is next \[first come, first served\].
    pub queue: Queue,
    /// How long one may wait under pressure with [`Queue::CoDel`] \[5 ms\].
    pub target: Duration,
    /// How long the line must not have been empty for that to be pressure \[100 ms\].
    pub interval: Duration,
}

impl ConcurrencyLimitOptions {
    /// Sets [`limit`](Self::limit).
    pub const fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Sets [`algorithm`](Self::algorithm).
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    pub const fn max_waiting(mut self, max_waiting: u32) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// Sets [`max_wait`](Self::max_wait).
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Sets [`queue`](Self::queue).
    pub const fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`target`](Self::target) and [`interval`](Self::interval).
    pub const fn pressure(mut self, target: Duration, interval: Duration) -> Self {
        (self.target, self.interval) = (target, interval);
        self
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check
            .rule((1..=MAX_LIMIT).contains(&self.limit), "limit", self.limit, "1 to 2^31 - 1")
            .part("algorithm", |check| self.algorithm.check(check))
            .duration("max_wait", self.max_wait)
            .duration("target", self.target)
            .rule(
                self.interval >= self.target && self.interval <= FOREVER,
                "interval",
                self.interval,
                format!("at least target ({:?}) and at most 10 years", self.target),
            );
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }
}

impl Default for ConcurrencyLimitOptions {
    fn default() -> Self {
        Self {
            limit: 100,
            algorithm: Algorithm::Fixed,
            max_waiting: 1_024,
            max_wait: Duration::from_secs(1),
            queue: Queue::Fifo,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}
