//! What a balancer tells about itself, as plain data.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    groups::{LevelState, ZoneState},
    member::Member,
    options::{BalanceOptions, Panic},
    roster::Roster,
    snapshot::{Resolved, Snapshot},
};
use crate::{
    Endpoint, clock, endpoint::Locality, health::State, sync::Ordering::Relaxed, telemetry::Counter,
    track::Ends,
};

/// What a balancer knows, does and has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BalanceStatus {
    /// The label in errors, events and metrics.
    pub label: Arc<str>,
    /// What is being resolved.
    pub resolver: String,
    /// Whether there was a resolution.
    pub resolved: bool,
    /// How many endpoints the name stands for; a subset uses fewer.
    pub known: usize,
    /// Why the last look-up failed, if it did.
    pub resolution_failure: Option<String>,
    /// Whether ejections are set aside because too few endpoints are available, at some priority.
    pub panic: bool,
    /// The priorities, the first of which is used first.
    pub priorities: Vec<PriorityStatus>,
    /// The operations that have a health of their own, if any may have one.
    pub operations: Option<OperationsStatus>,
    /// How often endpoints were asked for their load.
    pub probes: u64,
    /// Requests that wait for an endpoint.
    pub waiting: usize,
    /// Whether new requests are refused.
    pub closed: bool,
    /// The endpoints, in the order of their names.
    pub endpoints: Vec<EndpointStatus>,
}

/// How many operations have a health of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationsStatus {
    /// How many have one.
    pub known: usize,
    /// How many may.
    pub most: u32,
    /// Whether there were more: those share the health of the endpoints.
    pub overflowed: bool,
}

/// An operation that is set aside at an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OperationStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its health there.
    pub state: State,
    /// Since when.
    pub since: Instant,
}

impl OperationStatus {
    /// All of it for people: the state, for how long, why, and what happens next and when.
    pub fn explain(&self, now: Instant) -> String {
        let lasted = now.saturating_duration_since(self.since);
        let mut told = format!("{} {} for {lasted:?}", self.name, word_for(&self.state));
        if let State::Ejected { why, .. } = &self.state {
            told += &format!(": {why}");
        }
        told + &what_next(&self.state, now)
    }
}

/// What happens next in a state, and when.
fn what_next(state: &State, now: Instant) -> String {
    match state.until() {
        Some(at) => format!("; in {:?}: {}", at.saturating_duration_since(now), state.next()),
        None => format!(": {}", state.next()),
    }
}

fn word_for(state: &State) -> &'static str {
    match state {
        State::Available => "available",
        State::Ejected { .. } => "ejected",
        State::Probation { .. } => "probation",
        State::Probing { .. } => "probing",
        State::BackingOff { .. } => "backing off",
        State::Held => "held",
        State::Drained => "drained",
    }
}

/// One endpoint of a balancer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// What the resolution says of it.
    pub endpoint: Arc<Endpoint>,
    /// Its name in errors, events and metrics.
    pub name: Arc<str>,
    /// Whether it is connected; always true for services that dial by themselves.
    pub connected: bool,
    /// Why it is not connected.
    pub cause: Option<String>,
    /// When the next connection is tried, at the earliest: redials of a client take turns. `None` while it is being tried, or
    /// waits for its turn.
    pub redial: Option<Instant>,
    /// Its health.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// The operations that it is without, while it stays for the others.
    pub operations: Vec<OperationStatus>,
    /// The share of its weight that it is given while it works up to all of it \[1.0\].
    pub ramp: f64,
    /// Requests in flight there, from this client.
    pub in_flight: u32,
    /// Requests of others in flight there, by the server's own word, where it is asked.
    pub others_in_flight: Option<u32>,
    /// The weight that its reports give it, where requests go by that and it has reported for long enough.
    pub reported_weight: Option<f64>,
    /// How many there may be, where that is found out.
    pub limit: Option<u32>,
    /// Attempts that succeeded.
    pub successes: u64,
    /// Attempts that failed, with those that were cut off after far longer than an answer takes.
    pub failures: u64,
    /// Attempts that were cut off before there was an answer, sooner than that.
    pub cancelled: u64,
    /// The latency estimate that balancing goes by.
    pub estimate: Option<Duration>,
    /// The median of recent latencies to the head of a good response; they are counted from the 17th attempt on.
    pub p50: Option<Duration>,
    /// Their 99th percentile.
    pub p99: Option<Duration>,
}

impl EndpointStatus {
    /// Whether it is given requests.
    pub fn is_available(&self) -> bool {
        self.connected && self.state == State::Available
    }

    /// All of it for people: the state, for how long, why, and what happens next and when.
    pub fn explain(&self, now: Instant) -> String {
        let passed = |since: Instant| now.saturating_duration_since(since);
        let mut told = if self.connected {
            format!("{} for {:?}", self.word(), passed(self.since))
        } else {
            self.word().to_owned()
        };
        match (&self.cause, &self.state) {
            (Some(cause), _) => told += &format!(": {cause}"),
            (None, State::Ejected { why, .. }) => told += &format!(": {why}"),
            _ => {}
        }
        if !self.connected {
            return match self.redial {
                Some(at) => told + &format!("; in {:?}: dialled again", at.saturating_duration_since(now)),
                None => told + "; is being dialled, or waits for its turn",
            };
        }
        told += &what_next(&self.state, now);
        for operation in &self.operations {
            told += &format!("; {}", operation.explain(now));
        }
        told
    }

    /// One word for people: `available`, `ejected`, `probation`, `probing`, `backing off`, `held`, `drained`, `not
    /// connected`.
    pub fn word(&self) -> &'static str {
        if self.connected { word_for(&self.state) } else { "not connected" }
    }
}

/// What endpoints of one priority get.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PriorityStatus {
    /// Which.
    pub priority: u32,
    /// How many endpoints have it.
    pub endpoints: usize,
    /// How many of them are available.
    pub available: usize,
    /// Their share of all traffic, in percent.
    pub percent: u32,
    /// Whether ejections are set aside there.
    pub panic: bool,
    /// Its zones, the nearest first, where they are told apart.
    pub zones: Vec<ZoneStatus>,
}

/// What endpoints of one zone get.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ZoneStatus {
    /// Which, without sub-zone.
    pub locality: Locality,
    /// How many endpoints of the priority are there.
    pub endpoints: usize,
    /// How many of them are available.
    pub available: usize,
    /// Their share of the priority's traffic.
    pub share: f64,
}

impl PriorityStatus {
    fn of(level: &LevelState, options: &BalanceOptions) -> Self {
        let zone = |zone: &ZoneState| ZoneStatus {
            locality: zone.locality.clone(),
            endpoints: zone.endpoints,
            available: zone.available,
            share: zone.share,
        };
        Self {
            priority: level.priority,
            endpoints: level.endpoints,
            available: level.available,
            percent: level.percent,
            panic: level.too_few && options.panic == Panic::FailOpen,
            zones: level.zones.iter().map(zone).collect(),
        }
    }
}

impl BalanceStatus {
    pub(super) fn of<S>(roster: &Roster<S>) -> Self {
        let (fleet, now) = (&roster.fleet, clock::now());
        let snapshot = roster.snapshot.load_full();
        let mut endpoints: Vec<_> = snapshot
            .entries
            .iter()
            .map(|entry| describe(&entry.member, &snapshot, now))
            .chain(snapshot.unconnected.iter().map(|unconnected| EndpointStatus {
                connected: false,
                cause: unconnected.cause.as_ref().map(ToString::to_string),
                redial: unconnected.redial,
                ..describe(&unconnected.member, &snapshot, now)
            }))
            .collect();
        endpoints.sort_by(|a, b| a.endpoint.identity().cmp(b.endpoint.identity()));
        Self {
            label: fleet.label.clone(),
            resolver: roster.resolver.clone(),
            resolved: snapshot.resolved != Resolved::Pending,
            known: match snapshot.resolved {
                Resolved::To(count) => count,
                Resolved::Pending | Resolved::Absent => 0,
            },
            resolution_failure: snapshot.failure.as_ref().map(ToString::to_string),
            panic: snapshot.panics(),
            priorities: snapshot
                .levels
                .iter()
                .map(|level| PriorityStatus::of(level, &snapshot.options))
                .collect(),
            operations: snapshot.options.health.per_operation.map(|options| OperationsStatus {
                known: fleet.operations.len().min(options.most as usize),
                most: options.most,
                overflowed: fleet.operations.has_overflowed(),
            }),
            probes: fleet.tally.sum(Counter::Probes),
            waiting: fleet.waiters.waiting(),
            closed: fleet.is_closed(),
            endpoints,
        }
    }
}

fn describe<S>(member: &Member, snapshot: &Snapshot<S>, now: Instant) -> EndpointStatus {
    let (state, since) = member.health.state();
    let recent = member.recent.counts(now);
    let (successes, failures) = member.health.totals();
    let operations = member.fleet.operations.all().into_iter().filter_map(|operation| {
        let (state, since) = operation.state(member.id).filter(|(state, _)| *state != State::Available)?;
        Some(OperationStatus { name: operation.name().clone(), state, since })
    });
    EndpointStatus {
        endpoint: member.endpoint(),
        name: member.name.clone(),
        connected: true,
        cause: None,
        redial: None,
        state,
        since,
        operations: operations.collect(),
        ramp: member.ramp(now, &snapshot.options.slow_start).map_or(1.0, |(share, _)| share),
        in_flight: member.in_flight.load(Relaxed),
        limit: member.width.as_ref().map(|width| width.most()),
        successes,
        failures,
        cancelled: member.cancelled.load(Relaxed),
        others_in_flight: member.told.others().filter(|_| Ends::wants_report(member)),
        reported_weight: snapshot.options.distribution.by_reports().and_then(|by| member.weight(now, by)),
        estimate: member.expected(member.fleet.at(now)).map(|known| Duration::from_nanos(known.mean as u64)),
        p50: recent.quantile(0.5),
        p99: recent.quantile(0.99),
    }
}
