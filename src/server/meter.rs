//! What the layer counts of requests, and writes onto answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderMap, HeaderValue, Response};

use super::{
    body::Reported,
    incoming::Protocol,
    layer::Shared,
    load::{Measured, Reporter},
    options::ServerOptions,
};
use crate::{
    clock,
    estimate::SuccessRate,
    grpc::{LOAD_METRICS, LOAD_METRICS_BIN, LoadReport, STATUS, judge},
    outcome::{Class, Outcome, Verdict},
    sync::{AtomicU64, Ordering::Relaxed},
};

/// What requests and errors per second are counted over, and the step it moves in.
const WINDOW: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(1);

/// Requests of all services of a layer.
#[derive(Debug)]
pub(super) struct Meter {
    in_flight: AtomicU64,
    ends: SuccessRate,
    since: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { in_flight: AtomicU64::new(0), ends: SuccessRate::over(WINDOW, now), since: now }
    }

    /// What is seen besides the request that is told of.
    fn measured(&self, now: Instant) -> Measured {
        let (successes, failures) = self.ends.counts(now);
        let age = now.saturating_duration_since(self.since);
        // The step that has begun, and all whole ones before it.
        let counted = (WINDOW - STEP) + Duration::from_nanos(u64::from(age.subsec_nanos()));
        let seconds = age.min(counted).max(STEP).as_secs_f64();
        Measured {
            in_flight: self.in_flight.load(Relaxed).saturating_sub(1),
            rps: (successes + failures) as f64 / seconds,
            eps: failures as f64 / seconds,
        }
    }
}

/// One request that is in flight, until it is dropped.
pub(super) struct Counted {
    shared: Arc<Shared>,
    /// How it has ended so far, once its handler was called.
    outcome: Option<Outcome>,
}

impl Counted {
    /// Counts a request if `options` want anything told.
    pub(super) fn of(shared: &Arc<Shared>, options: &ServerOptions) -> Option<Self> {
        (options.reporter.is_some() || options.in_flight_header.is_some()).then(|| {
            shared.meter.in_flight.fetch_add(1, Relaxed);
            Self { shared: Arc::clone(shared), outcome: None }
        })
    }

    /// It has been given to its handler.
    pub(super) fn begins(&mut self) {
        self.outcome = Some(Outcome::Success);
    }

    /// What has become of it.
    pub(super) fn ends(&mut self, verdict: Verdict) {
        self.outcome = self.outcome.map(|_| match verdict.class() {
            Class::Failure => Outcome::Failure,
            _ => Outcome::Success,
        });
    }

    /// Writes onto the head what is told there, and leaves the rest to the end of the body.
    pub(super) fn answer<B>(self, mut response: Response<B>, protocol: Protocol) -> Response<Reported<B>> {
        let options = self.shared.options.load();
        let own = response.extensions_mut().remove::<LoadReport>();
        let measured = self.shared.meter.measured(clock::now());
        let headers = response.headers_mut();
        if let Some(name) = &options.in_flight_header {
            headers.insert(name.clone(), measured.in_flight.into());
        }
        let is_over = protocol == Protocol::Http || headers.contains_key(STATUS);
        let mut at_end = None;
        if let Some(reporter) = &options.reporter {
            if is_over {
                write(headers, protocol, || reporter.report(&measured, own));
            } else {
                at_end = Some((reporter.clone(), own));
            }
        }
        drop(options);
        let held = Held { counted: self, is_over, at_end };
        response.map(|body| Reported::holding(body, held))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.meter.in_flight.fetch_sub(1, Relaxed);
        if let Some(outcome) = self.outcome {
            self.shared.meter.ends.record(clock::now(), outcome);
        }
    }
}

/// What a body holds until it ends.
pub(super) struct Held {
    counted: Counted,
    /// Whether the head has said how it ended.
    is_over: bool,
    /// Who is to be asked when the trailers come, and what the request says of itself.
    at_end: Option<(Reporter, Option<LoadReport>)>,
}

impl Held {
    /// The body has ended with these trailers, if any.
    pub(super) fn end(mut self, trailers: Option<&mut HeaderMap>) {
        if !self.is_over {
            self.counted.ends(trailers.as_deref().and_then(judge).unwrap_or(Verdict::failure()));
        }
        if let (Some(trailers), Some((reporter, own))) = (trailers, self.at_end.take()) {
            let measured = self.counted.shared.meter.measured(clock::now());
            write(trailers, Protocol::Grpc, || reporter.report(&measured, own));
        }
    }

    /// The body has broken off.
    pub(super) fn breaks(mut self) {
        self.counted.ends(Verdict::failure());
    }
}

/// Writes a report, unless the handler has written one by itself.
fn write(headers: &mut HeaderMap, protocol: Protocol, report: impl FnOnce() -> LoadReport) {
    if headers.contains_key(LOAD_METRICS) || headers.contains_key(LOAD_METRICS_BIN) {
        return;
    }
    let (name, value): (_, HeaderValue) = match protocol {
        Protocol::Http => (LOAD_METRICS, report().to_text()),
        Protocol::Grpc => (LOAD_METRICS_BIN, report().to_binary()),
    };
    // Nobody reads longer ones.
    if value.len() <= LoadReport::LONGEST {
        headers.insert(name, value);
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_told_from_the_second_second_on() {
        let start = clock::now();
        let meter = Meter::new(start);
        for request in 0..2_000_u32 {
            let now = start + Duration::from_millis(10) * request;
            let outcome = if request % 4 == 0 { Outcome::Failure } else { Outcome::Success };
            meter.ends.record(now, outcome);
            let Measured { rps, eps, .. } = meter.measured(now);
            if request >= 100 {
                assert!((99.0..=101.0).contains(&rps), "{request}: {rps}");
                assert!((24.0..=26.0).contains(&eps), "{request}: {eps}");
            } else {
                assert!(rps <= 100.0, "{request}: {rps}");
            }
        }
        let later = meter.measured(start + Duration::from_secs(60));
        assert_eq!((later.rps, later.eps), (0.0, 0.0));
    }
}
