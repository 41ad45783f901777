//! The numbers behind the balancer.

use std::time::Duration;

use super::{
    answered::ticks,
    distribution::{Distribution, Sticky},
    localities::Localities,
    probes::ProbeOptions,
    subset::Subset,
};
use crate::{
    backoff::{Backoff, Jitter},
    deadline::AttemptFit,
    health::HealthOptions,
    invalid::{Check, FOREVER, Invalid, Ratio},
    limit::Algorithm,
};

/// More are not drawn: a look costs a cache line.
pub(super) const MOST_CHOICES: u32 = 8;

/// What makes an endpoint look loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Load {
    /// The requests that this client has in flight there.
    InFlight,
    /// The requests in flight there times the mean latency there: the default, with 10 s.
    ///
    /// A mean that stands on few samples, or old ones, is held for as much nearer to that of the other endpoints that were
    /// drawn. Failures count as time spent for nothing, and what was cut off as at least that slow. An endpoint that was not
    /// asked for half of the half-life is tried now and then, to see whether it is still as slow. See
    /// [`FadingMean`](crate::estimate::FadingMean).
    Latency {
        /// In which time what is known loses half of its weight.
        half_life: Duration,
    },
    /// The requests in flight there times a latency estimate that jumps up and glides down with this time constant: what
    /// Finagle, Linkerd and tower do, with 10 s. Failures count as slow, and what was cut off as at least that slow. See
    /// [`PeakEwma`](crate::estimate::PeakEwma).
    PeakEwma {
        /// How fast the past is forgotten.
        decay: Duration,
    },
    /// The requests in flight there times a quantile of the latencies there, which is found as the default's mean is: for
    /// services whose slow answers matter more than their usual ones. It knows a change for the worse after some thirty
    /// answers, and one for the better the later the higher the quantile is. See
    /// [`FadingQuantile`](crate::estimate::FadingQuantile).
    Quantile {
        /// Which: 0.5 is the median; more than 0, and less than 1.
        share: Ratio,
        /// In which time what is known loses half of its weight.
        half_life: Duration,
    },
    /// Prequal's rule: an endpoint is hot where more is in flight than at most others; the fastest cold one is taken, by the
    /// default's mean, or where all are hot the one with the least in flight. With
    /// [`reports`](BalanceOptions::reports) what others have in flight counts whole.
    ///
    /// It is for one client of many, with 8 choices, before servers that differ a lot: in the lab's `noisy_fleet` its 99th percentile is
    /// 0.62 to 0.65 of tower's PeakEWMA's, where the default has 0.64 to 0.73. **Not for a client that fills its servers by itself**:
    /// what is cold is relative, so that all grow hot together, and in `halves` with one client at 0.9 of the capacity it is twice
    /// PeakEWMA's. With reports it does worse than the default with them.
    HotCold {
        /// Which share of the endpoints is cold \[Prequal: 0.84\]; more than 0, and less than 1.
        cold: Ratio,
        /// In which time what is known of latencies loses half of its weight.
        half_life: Duration,
    },
}

/// Which endpoints are drawn for a request, of which the least loaded gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Candidates {
    /// Any, each as likely as another: the default.
    #[default]
    Any,
    /// Those that have answered last, and were given nothing since: a pool of up to 16 for each thread, kept by the responses, as Prequal
    /// keeps one by its probes. Where it holds too few the rest are drawn from all, and for one request in sixteen all are.
    ///
    /// Who has just answered is not stuck, and who answers fast stands there more often. So requests concentrate on as many endpoints as are
    /// needed, the fast ones first: in the lab's `noisy_fleet` the 99th percentile is 0.55 to 0.60 of tower's PeakEWMA's, where the default
    /// has 0.64 to 0.73. **It is less even by that**: a client keeps for a while to the endpoints that it has, equal ones too, and of
    /// hundreds before a client with few requests at a time most see next to none of them. So it is for fleets of tens of servers, or a
    /// subset of as many, that differ or change. Where weights differ, as they do where a
    /// [deterministic](Subset::Deterministic) subset ends within an endpoint, or endpoints work up to their share, any is drawn.
    Answered {
        /// How long ago they answered at the most \[Prequal: 1 s\].
        within: Duration,
    },
}

impl Default for Load {
    fn default() -> Self {
        Self::Latency { half_life: Duration::from_secs(10) }
    }
}

fn is_between(share: Ratio) -> bool {
    share.get() > 0.0 && share.get() < 1.0
}

/// What happens when too few endpoints are available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Panic {
    /// Ejections are set aside: some of the endpoints may have been judged wrongly, and a slow answer beats none.
    #[default]
    FailOpen,
    /// Only available endpoints are used, and with none of them requests are refused.
    FailClosed,
}

/// How an endpoint that is new, or comes back, gets up to its share.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlowStart {
    /// How long it takes \[10 s\]; zero switches slow start off.
    pub lasts: Duration,
    /// The share of its weight that it starts with \[10 %\].
    pub from: Ratio,
}

impl SlowStart {
    /// From `from` of the weight to all of it, in `lasts`.
    pub fn new(lasts: Duration, from: Ratio) -> Self {
        Self { lasts, from }
    }
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { lasts: Duration::from_secs(10), from: Ratio::percent::<10>() }
    }
}

/// Everything that can be set on a balancer. All of it may be replaced while it runs, but for
/// [`health.window`](HealthOptions::window), which the endpoints' histories are made of, and [`limit`](Self::limit), which
/// would forget what it has learnt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BalanceOptions {
    /// Which of the endpoints behind the name are used at all \[all\].
    pub subset: Subset,
    /// By which rule requests are spread over endpoints \[to the least loaded of a few\].
    pub distribution: Distribution,
    /// Whether a request may name the endpoint that it wants, as [`Describe::endpoint`](crate::Describe::endpoint) tells
    /// \[off\].
    pub sticky: Sticky,
    /// What makes an endpoint look loaded \[in flight times mean latency, with a half-life of 10 s\]. Estimates of another
    /// kind begin anew when it is chosen, or stand where they stood when it was last in use.
    pub load: Load,
    /// Whether that goes by what servers say they have in flight, where they do \[no\]: see
    /// [`Classify::report`](crate::Classify::report). It is far better than what one client among many can see by itself: what
    /// others have in flight makes a request take a fifth longer each, or counts whole where `load` is in flight alone. A
    /// server that says nothing is taken for one like the others that were drawn. What a server has said holds for 16 answers that
    /// say nothing, or where it was [asked](Self::probes) for it, for as many as 16 questions are asked about; one that it keeps
    /// requests away from is asked anew now and then.
    pub reports: bool,
    /// How many endpoints are asked for their load beside the requests, where somebody says how \[one for ten requests\].
    pub probes: ProbeOptions,
    /// Which endpoints are drawn for a request \[any\].
    pub candidates: Candidates,
    /// How many endpoints are drawn for a request, of which it goes to the least loaded \[4, 1 to 8\]. Two are the classical
    /// choice and cost least. The more are drawn, the shorter the tail where endpoints differ; but many clients that know
    /// the same run to the same endpoint.
    pub choices: u32,
    /// When endpoints are set aside, and how they come back.
    pub health: HealthOptions,
    /// What happens when too few endpoints are available \[fail open\].
    pub panic: Panic,
    /// Under which share of available endpoints that is \[50 %\]. It is decided for each priority by itself, and for none of
    /// several while they are healthy together.
    pub panic_below: Ratio,
    /// How much more than its share of the traffic an endpoint is good for, in percent \[140\]: a priority keeps all of its
    /// traffic while its available share times this covers it, and then what it covers; the rest goes to the next one.
    pub overprovisioning: u32,
    /// How far endpoints near the client are preferred \[they are not\].
    pub localities: Localities,
    /// How endpoints get up to their share \[10 s from 10 %\].
    pub slow_start: SlowStart,
    /// Whether latencies are counted, per endpoint and for the whole client \[true\]. Without them nobody knows what is
    /// overlong: an endpoint that hangs can hide behind callers who give up before the attempt limit, and a retry is made
    /// however little time is left for it.
    pub statistics: bool,
    /// How long one attempt may take \[3 s\]; `None` for as long as the deadline allows.
    pub attempt_limit: Option<Duration>,
    /// What else the limit goes by, within that \[nothing\].
    pub attempt_fit: AttemptFit,
    /// How long the body of a response may take, where bodies are tracked.
    pub body: BodyOptions,
    /// Requests in flight at one endpoint \[off\]. A request that finds all endpoints full waits; a place is free again when
    /// the response, or its body where that is tracked, is done.
    pub max_in_flight: Option<u32>,
    /// What finds out how many requests may be in flight at each endpoint, up to
    /// [`max_in_flight`](Self::max_in_flight) \[nothing\]. One that is full is given nothing, as if it were not there.
    pub limit: Option<Algorithm>,
    /// Requests that may wait for an endpoint at the same time \[1,024\].
    pub max_waiting: u32,
    /// How long a request waits for the first resolution \[5 s\].
    pub first_resolution: Duration,
    /// How long a name that seems to have lost all its endpoints keeps them \[30 s\].
    pub grace: Duration,
    /// How long the state of a removed endpoint is kept, in case it comes back \[60 s\].
    pub keep_removed: Duration,
    /// How long connecting may take, for connectors that connect ahead of requests \[1 s\].
    pub connect_timeout: Duration,
    /// The waits between tries to connect \[100 ms, doubling to 30 s, full jitter\].
    pub redial: Backoff,
    /// Over how long a client of more than four endpoints redials all of them, where many have lost their connection and nobody
    /// answers \[30 s, and no longer than 3 s for each\]: the first few at once, the others in turn. As soon as one is accepted
    /// the others follow as fast as that was. Zero leaves each to its own backoff.
    pub redial_spread: Duration,
    /// How many connections are being made at the same time \[64\].
    pub dials: u32,
}

/// How long the body of a response may take. What is cut off ends with an error of its own in the body:
/// [`Reason::Stalled`](crate::Reason::Stalled), which counts as a failure of the endpoint, or
/// [`Reason::Deadline`](crate::Reason::Deadline), which does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyOptions {
    /// How long its reader may wait for more of it at a time \[for ever\]. The time that a reader takes between two reads
    /// does not count.
    pub idle: Option<Duration>,
    /// Whether the deadline of the request covers the body, too \[no: it ends with the head\].
    pub within_deadline: bool,
}

impl BodyOptions {
    /// Sets [`idle`](Self::idle).
    #[must_use]
    pub fn idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// Sets [`within_deadline`](Self::within_deadline).
    #[must_use]
    pub fn within_deadline(mut self, within: bool) -> Self {
        self.within_deadline = within;
        self
    }
}

impl Default for BalanceOptions {
    fn default() -> Self {
        Self {
            subset: Subset::default(),
            distribution: Distribution::default(),
            sticky: Sticky::default(),
            load: Load::default(),
            reports: false,
            probes: ProbeOptions::default(),
            candidates: Candidates::default(),
            choices: 4,
            health: HealthOptions::default(),
            panic: Panic::default(),
            panic_below: Ratio::percent::<50>(),
            overprovisioning: 140,
            localities: Localities::default(),
            slow_start: SlowStart::default(),
            statistics: true,
            attempt_limit: Some(Duration::from_secs(3)),
            attempt_fit: AttemptFit::default(),
            body: BodyOptions::default(),
            max_in_flight: None,
            limit: None,
            max_waiting: 1024,
            first_resolution: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            keep_removed: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(1),
            redial: Backoff::exponential(Duration::from_millis(100))
                .factor(2.0)
                .cap(Duration::from_secs(30))
                .jitter(Jitter::Full),
            redial_spread: Duration::from_secs(30),
            dials: 64,
        }
    }
}

impl BalanceOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(crate) fn check(&self, check: &mut Check) {
        check.part("subset", |check| self.subset.check(check));
        check.part("distribution", |check| self.distribution.check(check));
        match self.load {
            Load::Latency { half_life } => {
                check.duration("load.half_life", half_life);
            }
            Load::Quantile { share, half_life } => {
                check.duration("load.half_life", half_life).rule(
                    is_between(share),
                    "load.share",
                    share,
                    "more than 0, less than 1",
                );
            }
            Load::HotCold { cold, half_life } => {
                check.duration("load.half_life", half_life).rule(
                    is_between(cold),
                    "load.cold",
                    cold,
                    "more than 0, less than 1",
                );
            }
            Load::PeakEwma { decay } => {
                check.duration("load.decay", decay);
            }
            Load::InFlight => {}
        }
        if let Candidates::Answered { within } = self.candidates {
            check.duration("candidates.within", within);
        }
        check.rule((1..=MOST_CHOICES).contains(&self.choices), "choices", self.choices, "1 to 8");
        check.part("probes", |check| self.probes.check(check));
        if let Some(limit) = self.attempt_limit {
            check.duration("attempt_limit", limit);
        }
        check.part("attempt_fit", |check| self.attempt_fit.check(self.attempt_limit, check));
        if let Some(idle) = self.body.idle {
            check.duration("body.idle", idle);
        }
        check
            .part("health", |check| self.health.check(check))
            .rule(
                (100..=100_000).contains(&self.overprovisioning),
                "overprovisioning",
                self.overprovisioning,
                "100 to 100,000",
            )
            .part("localities", |check| self.localities.check(check))
            .rule(
                self.slow_start.lasts <= FOREVER,
                "slow_start.lasts",
                self.slow_start.lasts,
                "at most 10 years",
            )
            .duration("first_resolution", self.first_resolution)
            .rule(self.grace <= FOREVER, "grace", self.grace, "at most 10 years")
            .rule(self.keep_removed <= FOREVER, "keep_removed", self.keep_removed, "at most 10 years")
            .duration("connect_timeout", self.connect_timeout)
            .part("redial", |check| {
                self.redial.check(check);
                check.rule(!self.redial.longest().is_zero(), "cap", self.redial.longest(), "more than 0");
            })
            .rule(self.redial_spread <= FOREVER, "redial_spread", self.redial_spread, "at most 10 years")
            .rule(
                self.max_in_flight.is_none_or(|most| (1..=i32::MAX as u32).contains(&most)),
                "max_in_flight",
                self.max_in_flight,
                "1 to 2^31 - 1",
            )
            .part("limit", |check| {
                if let Some(algorithm) = &self.limit {
                    algorithm.check(check);
                }
            })
            .rule(self.dials >= 1, "dials", self.dials, "at least 1")
            .rule(
                self.slow_start.lasts.is_zero() || self.slow_start.from.get() > 0.0,
                "slow_start.from",
                self.slow_start.from,
                "more than 0",
            );
    }

    /// Checks that `next` may replace these options while the balancer runs.
    pub(crate) fn check_update(&self, next: &Self, check: &mut Check) {
        next.check(check);
        check.rule(
            next.health.window == self.health.window,
            "health.window",
            next.health.window,
            format!("cannot change while the balancer runs ({:?})", self.health.window),
        );
        check.rule(
            next.limit == self.limit,
            "limit",
            &next.limit,
            format!("cannot change while the balancer runs ({:?})", self.limit),
        );
    }

    /// The most requests in flight at one endpoint that any may have; one less than what stands for any number where each
    /// endpoint has a limit of its own.
    pub(crate) fn most(&self) -> u32 {
        let unlimited = if self.limit.is_some() { u32::MAX - 1 } else { u32::MAX };
        self.max_in_flight.unwrap_or(unlimited)
    }

    /// Whether anything goes by what servers say of themselves.
    pub(crate) fn reads_reports(&self) -> bool {
        self.reports || self.distribution.by_reports().is_some()
    }

    /// Whether a pick looks at more than is usual.
    pub(crate) fn looks_closer(&self) -> bool {
        self.reports || self.candidates != Candidates::Any || matches!(self.load, Load::HotCold { .. })
    }

    /// How many ticks old an answer is at most for its endpoint to be drawn; 0 where any is drawn.
    pub(crate) fn fresh(&self) -> u32 {
        match self.candidates {
            Candidates::Any => 0,
            Candidates::Answered { within } => ticks(within),
        }
    }

    /// Whether anything needs to know how long attempts take.
    pub(crate) fn goes_by_time(&self) -> bool {
        self.statistics
            || self.limit.is_some()
            || self.health.enabled
            || self.attempt_limit.is_some()
            || self.attempt_fit != AttemptFit::Fixed
            || self.load != Load::InFlight
            || self.candidates != Candidates::Any
            || self.localities.own.is_some()
    }
}
