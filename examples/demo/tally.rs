//! Counts and latencies: of the healthy start, of the trouble after it, and of the last seconds.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mainstay::clock;

use crate::script;

/// What a sample of requests says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
}

impl Figures {
    pub(crate) fn success_rate(&self) -> f64 {
        1.0 - self.failures as f64 / self.requests as f64
    }
}

/// Requests with their latencies. A failed request has a latency too: its caller has waited that long.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    microseconds: Histogram<u32>,
    failures: u64,
}

impl Sample {
    fn new() -> Self {
        let microseconds = Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid");
        Self { microseconds, failures: 0 }
    }

    fn record(&mut self, latency: Duration, succeeded: bool) {
        self.microseconds.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.failures += u64::from(!succeeded);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.microseconds.add(&other.microseconds).expect("all samples have the same bounds");
        self.failures += other.failures;
    }

    /// `None` for an empty sample: it has no percentiles.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let at = |quantile| Duration::from_micros(self.microseconds.value_at_quantile(quantile));
        (!self.microseconds.is_empty()).then(|| Figures {
            requests: self.microseconds.len(),
            failures: self.failures,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        })
    }
}

/// The requests that ended within the last [`Recent::SPAN`].
#[derive(Debug)]
pub(crate) struct Recent {
    start: Instant,
    slices: VecDeque<(u128, Sample)>,
}

impl Recent {
    pub(crate) const SPAN: Duration = Duration::from_secs(3);
    const SLICE: Duration = Duration::from_millis(500);

    pub(crate) fn new(start: Instant) -> Self {
        Self { start, slices: VecDeque::new() }
    }

    pub(crate) fn record(&mut self, now: Instant, latency: Duration, succeeded: bool) {
        let index = self.forget(now);
        if self.slices.back().is_none_or(|(last, _)| *last != index) {
            self.slices.push_back((index, Sample::new()));
        }
        if let Some((_, sample)) = self.slices.back_mut() {
            sample.record(latency, succeeded);
        }
    }

    pub(crate) fn read(&mut self, now: Instant) -> Option<Figures> {
        self.forget(now);
        let mut all = Sample::new();
        self.slices.iter().for_each(|(_, sample)| all.add(sample));
        all.figures()
    }

    fn forget(&mut self, now: Instant) -> u128 {
        let index = now.saturating_duration_since(self.start).as_millis() / Self::SLICE.as_millis();
        let oldest = index.saturating_sub(Self::SPAN.as_millis() / Self::SLICE.as_millis() - 1);
        while self.slices.front().is_some_and(|(first, _)| *first < oldest) {
            self.slices.pop_front();
        }
        index
    }
}

/// All requests of one client.
#[derive(Debug)]
pub(crate) struct Tally {
    start: Instant,
    samples: Mutex<Samples>,
}

#[derive(Debug)]
struct Samples {
    healthy: Sample,
    trouble: Sample,
    recent: Recent,
}

impl Tally {
    pub(crate) fn new(start: Instant) -> Self {
        let samples = Samples { healthy: Sample::new(), trouble: Sample::new(), recent: Recent::new(start) };
        Self { start, samples: Mutex::new(samples) }
    }

    /// Counts a request that ends now. It belongs to the time for which it was planned.
    pub(crate) fn record(&self, planned: Instant, succeeded: bool) {
        let now = clock::now();
        let latency = now.saturating_duration_since(planned);
        let mut samples = self.samples();
        samples.recent.record(now, latency, succeeded);
        let planned = planned.saturating_duration_since(self.start);
        if planned >= script::TROUBLE {
            samples.trouble.record(latency, succeeded);
        } else if planned >= script::WARM {
            samples.healthy.record(latency, succeeded);
        }
    }

    /// The requests before the first fault, without the very first, which had to wait for connections.
    pub(crate) fn healthy(&self) -> Sample {
        self.samples().healthy.clone()
    }

    /// The requests from the first fault on.
    pub(crate) fn trouble(&self) -> Sample {
        self.samples().trouble.clone()
    }

    pub(crate) fn recent(&self, now: Instant) -> Option<Figures> {
        self.samples().recent.read(now)
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
