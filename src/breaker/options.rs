//! The numbers of a breaker.

use std::time::Duration;

use super::OpenTime;
use crate::{
    Ratio,
    invalid::{Check, FOREVER, Invalid},
};

/// Which calls the rates are rates of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The last so many \[1 to 1,000,000\].
    Calls(u32),
    /// Those of the last so long \[10 ms to 10 years\]. It slides in steps of a tenth: a call counts for at least nine
    /// tenths of it and at most for all of it.
    Time(Duration),
}

/// What half-open becomes when its probes have not decided within its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lapse {
    /// Open again, for as long as the last time.
    #[default]
    Opens,
    /// Closed: what does not answer is no worse than what cannot be asked.
    Closes,
}

/// When a breaker opens, for how long, and what closes it.
///
/// Each rule that is given trips by itself. Rates are compared with `>=` after every call, successes included.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// Which calls the rates are rates of \[the last 100\].
    pub window: Window,
    /// How many calls the window must hold before a rate counts \[20, at least 1 and at most the window\].
    pub min_calls: u32,
    /// The share of failed calls that opens it \[50 %, more than 0\]; `None` for any.
    pub failure_rate: Option<Ratio>,
    /// The share of slow calls that opens it \[none, more than 0\]; a slow call may have failed or not.
    pub slow_rate: Option<Ratio>,
    /// Calls that last longer than this are slow \[1 s\]. It has no effect without [`slow_rate`](Self::slow_rate).
    pub slow_after: Duration,
    /// So many failures in a row open it, however few calls there were \[none, at least 1\].
    pub consecutive: Option<u32>,
    /// Whether one answer that asks to be left alone (`Retry-After`, pushback) opens it, for as long as it asks \[false\].
    /// Without this such answers count neither as good nor as bad.
    pub open_when_asked: bool,
    /// How long nothing is counted after it was made, and nothing opens it by its rules \[0\]: what starts cold fails at
    /// first. Costs a clock read per call where set.
    pub warm_up: Duration,
    /// How long it stays open \[5 s\].
    pub open: OpenTime,
    /// The longest time that an answer may ask for \[300 s\]. The time that the answer asks for which trips the breaker
    /// counts where it is longer than [`open`](Self::open); 0 for not at all.
    pub asked_cap: Duration,
    /// How many calls half-open lets through \[1, 1 to 1,000\].
    pub probes: u32,
    /// How many of them must succeed to close it \[1, at least 1 and at most `probes`\]. It opens again as soon as that
    /// cannot be reached any more. A slow probe has failed where a slow rate is set.
    pub probe_successes: u32,
    /// How long half-open may take from its first probe on \[30 s\]; anew from the next, once one that said nothing has left
    /// none out.
    pub half_open: Duration,
    /// What comes then \[open again\].
    pub lapse: Lapse,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            window: Window::Calls(100),
            min_calls: 20,
            failure_rate: Some(Ratio::percent::<50>()),
            slow_rate: None,
            slow_after: Duration::from_secs(1),
            consecutive: None,
            open_when_asked: false,
            warm_up: Duration::ZERO,
            open: OpenTime::default(),
            asked_cap: Duration::from_secs(300),
            probes: 1,
            probe_successes: 1,
            half_open: Duration::from_secs(30),
            lapse: Lapse::Opens,
        }
    }
}

impl BreakerOptions {
    /// Sets [`window`](Self::window).
    pub const fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets [`min_calls`](Self::min_calls).
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Sets [`failure_rate`](Self::failure_rate).
    pub const fn failure_rate(mut self, rate: Option<Ratio>) -> Self {
        self.failure_rate = rate;
        self
    }

    /// Sets [`slow_rate`](Self::slow_rate) and [`slow_after`](Self::slow_after).
    pub const fn slow(mut self, rate: Ratio, after: Duration) -> Self {
        self.slow_rate = Some(rate);
        self.slow_after = after;
        self
    }

    /// Sets [`consecutive`](Self::consecutive).
    pub const fn consecutive(mut self, failures: u32) -> Self {
        self.consecutive = Some(failures);
        self
    }

    /// Sets [`open_when_asked`](Self::open_when_asked).
    pub const fn open_when_asked(mut self, opens: bool) -> Self {
        self.open_when_asked = opens;
        self
    }

    /// Sets [`warm_up`](Self::warm_up).
    pub const fn warm_up(mut self, time: Duration) -> Self {
        self.warm_up = time;
        self
    }

    /// Sets [`open`](Self::open).
    pub fn open(mut self, time: impl Into<OpenTime>) -> Self {
        self.open = time.into();
        self
    }

    /// Sets [`asked_cap`](Self::asked_cap).
    pub const fn asked_cap(mut self, cap: Duration) -> Self {
        self.asked_cap = cap;
        self
    }

    /// Sets [`probes`](Self::probes) and [`probe_successes`](Self::probe_successes).
    pub const fn probes(mut self, probes: u32, successes: u32) -> Self {
        self.probes = probes;
        self.probe_successes = successes;
        self
    }

    /// Sets [`half_open`](Self::half_open) and [`lapse`](Self::lapse).
    pub const fn half_open(mut self, time: Duration, lapse: Lapse) -> Self {
        self.half_open = time;
        self.lapse = lapse;
        self
    }

    /// Checks every option and the rules between them.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        let most = match self.window {
            Window::Calls(calls) => {
                check.rule((1..=1_000_000).contains(&calls), "window", calls, "1 to 1,000,000 calls");
                calls
            }
            Window::Time(time) => {
                let fits = time >= Duration::from_millis(10) && time <= FOREVER;
                check.rule(fits, "window", time, "at least 10 ms and at most 10 years");
                u32::MAX
            }
        };
        let positive = |rate: Option<Ratio>| rate.is_none_or(|rate| rate > Ratio::ZERO);
        check
            .rule(
                (1..=most).contains(&self.min_calls),
                "min_calls",
                self.min_calls,
                "at least 1 and at most the window",
            )
            .rule(positive(self.failure_rate), "failure_rate", self.failure_rate, "more than 0")
            .rule(positive(self.slow_rate), "slow_rate", self.slow_rate, "more than 0")
            .duration("slow_after", self.slow_after)
            .rule(self.consecutive != Some(0), "consecutive", self.consecutive, "at least 1")
            .rule(self.warm_up <= FOREVER, "warm_up", self.warm_up, "at most 10 years")
            .part("open", |check| self.open.check(check))
            .rule(self.asked_cap <= FOREVER, "asked_cap", self.asked_cap, "at most 10 years")
            .rule((1..=1_000).contains(&self.probes), "probes", self.probes, "1 to 1,000")
            .rule(
                self.probe_successes >= 1 && self.probe_successes <= self.probes,
                "probe_successes",
                self.probe_successes,
                format!("at least 1 and at most probes ({})", self.probes),
            )
            .duration("half_open", self.half_open);
    }
}
