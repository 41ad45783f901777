//! Our own rules: median and chance.

use std::time::Duration;

use super::sweep::{Sample, Verdict};
use crate::{
    health::{
        Trip,
        trip::{Share, Slowness},
    },
    invalid::{Check, FOREVER, Ratio},
};

/// The deviation of a normal distribution, by its median absolute deviation (Hampel 1974).
const DEVIATIONS: f64 = 1.4826;
/// So many deviations from the median are still usual.
const USUAL: f64 = 3.0;

/// Outliers by median and chance.
///
/// **Success rate.** Of the endpoints with enough [`requests`](Self::requests), `m` is the median failure rate and `d` the
/// median of the distances from it. What the others do then explains a failure rate up to
/// `limit = m + max(3 x 1.4826 d, margin)`. An endpoint with `f` failures in `n` requests is an outlier if `f / n` is more
/// than that, and not by chance: `n KL(f/n || limit) > ln(endpoints / false_alarms)`, with
/// `KL(a || p) = a ln(a/p) + (1-a) ln((1-a)/(1-p))`. By the Chernoff bound that happens to a fleet whose endpoints fail no
/// more than the limit in at most `false_alarms` of the intervals, however many endpoints it has. If everything fails,
/// nobody is an outlier.
///
/// Chosen by experiment (the table is printed by an ignored test beside this file): intervals of 10 s, with 100 to 1,000 requests of each of 10,
/// 100 and 1,000 endpoints that fail 1 % each, or 0.5 to 2 %, or 0.25 to 4 %, for 100, 20 and 2 hours.
///
/// | margin, alarms | false ejections an hour: alike; 0.5 to 2 %; 0.25 to 4 % | intervals until 30 of 100 that fail 20 % of 100, 10 % of 300, 5 % of 1,000 are all seen |
/// |---|---|---|
/// | 1 %, 0.1 % | 0, 0, 0; 0, 0, 0; 1.3, 0, 0 | 5, 4, 6 |
/// | **2 %, 1 %** | 0, 0, 0; 0, 0, 0; 0.1, 0.05, 0 | 4, 4, 18 |
/// | 2 %, 10 % | 0, 0, 0; 0, 0, 0; 1.1, 0.15, 0 | 3, 3, 10 |
/// | 5 %, 100 % | 0, 0, 0; 0, 0, 0; 0, 0, 0 | 3, 8, never |
/// | mean less 1.9 deviations, as in Envoy | 151, 1,480, 14,000; 194, 1,730, 17,000; 313, 2,100, 21,000 | never |
///
/// **Failure share.** More than [`failure_share`](Self::failure_share) of
/// [`failure_requests`](Self::failure_requests) or more is too much whatever the others do.
///
/// **Latency**, if asked for: see [`LatencyRule`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Robust {
    /// How often endpoints are compared, where enough is known \[10 s\].
    pub interval: Duration,
    /// An interval goes on until so many endpoints have enough requests \[5, at least 3\]: with fewer there is no telling who is
    /// the exception.
    pub endpoints: u32,
    /// Enough requests of one endpoint \[100\].
    pub requests: u32,
    /// The longest interval \[5 min\]; then counting begins anew, and whoever could not be compared was not.
    pub longest: Duration,
    /// By how much an endpoint may fail more than the median one, even if the others are all alike \[2 %\].
    pub margin: Ratio,
    /// The share of intervals in which a fleet whose endpoints all fail as much as is just explained may lose one of them by
    /// chance \[1 %; more than 0\]. A fleet that is healthy lies well below that, and loses none in a hundred hours.
    pub false_alarms: Ratio,
    /// The share of failures that is too much whatever the others do \[85 %\]; `None` for any.
    pub failure_share: Option<Ratio>,
    /// Enough requests for that \[50\].
    pub failure_requests: u32,
    /// Whether latencies are compared \[no: a slow endpoint gets less by its load, and need not lose everything\].
    pub latency: Option<LatencyRule>,
}

/// When an endpoint is too slow.
///
/// Its median latency is compared with the median of those of the others and their spread: more than `factor` times
/// that median, and more than three deviations (1.4826 median absolute deviations) from it. Only latencies since the endpoint
/// was last let back count: one that came back is looked at after a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LatencyRule {
    /// How many times the median of the others is just allowed \[3, more than 1\].
    pub factor: f64,
    /// Nothing faster than this is too slow \[10 ms\].
    pub least: Duration,
    /// Latencies of the last half minute to minute that a median must be of \[30, at least 1\]. Whoever is slow gets little, and is judged
    /// by little: where latencies are exponential the median of 30 is three times that of the others by chance once in 1.7
    /// million intervals; of 20 once in 19,000.
    pub samples: u32,
}

impl Default for LatencyRule {
    fn default() -> Self {
        Self { factor: 3.0, least: Duration::from_millis(10), samples: 30 }
    }
}

impl Default for Robust {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            endpoints: 5,
            requests: 100,
            longest: Duration::from_secs(300),
            margin: Ratio::percent::<2>(),
            false_alarms: Ratio::percent::<1>(),
            failure_share: Some(Ratio::percent::<85>()),
            failure_requests: 50,
            latency: None,
        }
    }
}

impl Robust {
    pub(super) fn check(&self, check: &mut Check) {
        check
            .duration("interval", self.interval)
            .rule(self.endpoints >= 3, "endpoints", self.endpoints, "at least 3")
            .rule(self.requests >= 1, "requests", self.requests, "at least 1")
            .rule(
                self.longest >= self.interval && self.longest <= FOREVER,
                "longest",
                self.longest,
                format!("at least interval ({:?}) and at most 10 years", self.interval),
            )
            .rule(self.margin.get() > 0.0, "margin", self.margin, "more than 0")
            .rule(self.false_alarms.get() > 0.0, "false_alarms", self.false_alarms, "more than 0")
            .rule(self.failure_requests >= 1, "failure_requests", self.failure_requests, "at least 1");
        if let Some(rule) = &self.latency {
            check.rule(
                rule.factor.is_finite() && rule.factor > 1.0,
                "latency.factor",
                rule.factor,
                "more than 1",
            );
            check.rule(rule.samples >= 1, "latency.samples", rule.samples, "at least 1");
        }
    }

    /// Whether enough is known for a comparison.
    pub(crate) fn is_enough(&self, samples: &[Sample]) -> bool {
        let enough = samples.iter().filter(|sample| self.counts(sample));
        enough.take(self.endpoints as usize).count() == self.endpoints as usize
    }

    fn counts(&self, sample: &Sample) -> bool {
        !sample.out && sample.requests() >= u64::from(self.requests)
    }

    pub(super) fn sweep(&self, samples: &[Sample], eject: &mut dyn FnMut(Verdict) -> bool) {
        let mut found = self.by_rate(samples);
        self.by_share(samples, &mut found);
        self.by_latency(samples, &mut found);
        // The worst first: there may not be room for all.
        found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (_, verdict) in found {
            eject(verdict);
        }
    }

    fn by_rate(&self, samples: &[Sample]) -> Vec<(f64, Verdict)> {
        let compared: Vec<_> = samples.iter().filter(|sample| self.counts(sample)).collect();
        let Some(limit) = self.limit(compared.iter().map(|sample| sample.failure_rate()).collect()) else {
            return Vec::new();
        };
        let surprise = (compared.len() as f64 / self.false_alarms.get()).ln();
        let found = compared.into_iter().filter_map(|sample| {
            let (rate, requests) = (sample.failure_rate(), sample.requests());
            if rate <= limit || requests as f64 * divergence(rate, limit) <= surprise {
                return None;
            }
            let why = Trip::SuccessRate(Share::new(sample.failures, requests, limit));
            Some((rate, Verdict { id: sample.id, why, lasts: None }))
        });
        found.collect()
    }

    /// The highest failure rate that what all do explains.
    fn limit(&self, rates: Vec<f64>) -> Option<f64> {
        if rates.len() < self.endpoints as usize {
            return None;
        }
        let (median, deviation) = median_and_deviation(rates);
        Some(median + (USUAL * deviation).max(self.margin.get()))
    }

    fn by_share(&self, samples: &[Sample], found: &mut Vec<(f64, Verdict)>) {
        let Some(limit) = self.failure_share else { return };
        for sample in samples.iter().filter(|sample| !sample.out) {
            let known = found.iter().any(|(_, verdict)| verdict.id == sample.id);
            if !known
                && sample.requests() >= u64::from(self.failure_requests)
                && sample.failure_rate() > limit.get()
            {
                let why = Trip::FailureShare(Share::new(sample.failures, sample.requests(), limit.get()));
                found.push((sample.failure_rate(), Verdict { id: sample.id, why, lasts: None }));
            }
        }
    }

    fn by_latency(&self, samples: &[Sample], found: &mut Vec<(f64, Verdict)>) {
        let Some(rule) = self.latency else { return };
        let known = || {
            let counted =
                samples.iter().filter(|sample| !sample.out && sample.latencies >= u64::from(rule.samples));
            counted.filter_map(|sample| sample.latency.map(|latency| (sample.id, latency)))
        };
        let medians: Vec<f64> = known().map(|(_, latency)| latency.as_secs_f64()).collect();
        if medians.len() < self.endpoints as usize {
            return;
        }
        let (median, deviation) = median_and_deviation(medians);
        let limit = (rule.factor * median).max(median + USUAL * deviation).max(rule.least.as_secs_f64());
        for (id, latency) in known() {
            if latency.as_secs_f64() > limit && !found.iter().any(|(_, verdict)| verdict.id == id) {
                let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
                let why = Trip::Latency(Slowness::new(latency, limit));
                // After those that fail: it is right, at least.
                found.push((-1.0 / latency.as_secs_f64(), Verdict { id, why, lasts: None }));
            }
        }
    }
}

/// The median, and the deviation that the median distance from it stands for.
fn median_and_deviation(mut values: Vec<f64>) -> (f64, f64) {
    let middle = median(&mut values);
    for value in &mut values {
        *value = (*value - middle).abs();
    }
    (middle, DEVIATIONS * median(&mut values))
}

/// The median of at least one value; of an even number the upper one, which favours nobody to be ejected.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// How surprising a share of `seen` is where `expected` is usual, for each request: the Kullback-Leibler divergence of the two coins.
fn divergence(seen: f64, expected: f64) -> f64 {
    let part = |seen: f64, expected: f64| {
        if seen == 0.0 {
            0.0
        } else if expected <= 0.0 {
            f64::INFINITY
        } else {
            seen * (seen / expected).ln()
        }
    };
    part(seen, expected) + part(1.0 - seen, 1.0 - expected)
}
