//! From records and tallies to metrics.

use std::time::Duration;

use mainstay::testing::{Fleet, Record, Recorder, Summary, Timeline};

use crate::scenario::{Metrics, Moment, Outcome};

/// A run that is over, and the stretch of it that is measured.
///
/// Times count from when a request was due. One that failed counts as at least the attempt limit: who fails fast is not
/// fast.
pub struct Measured<'a> {
    pub fleet: &'a Fleet,
    pub from: Duration,
    pub to: Duration,
    /// The requests that were due from `from` up to before `to`, with their times as they count.
    pub records: Vec<Record>,
}

/// What a detection is: a second in which the server gets under half of its fair share.
const DETECTED: Duration = Duration::from_secs(1);
/// What a recovery is: so long with 95 % of the usual goodput.
const RECOVERED: Duration = Duration::from_secs(5);
const SHARE_OF_USUAL: f64 = 0.95;

impl<'a> Measured<'a> {
    /// What was due from `from` up to before `to`.
    pub fn new(
        recorder: &'a Recorder,
        fleet: &'a Fleet,
        from: Duration,
        to: Duration,
        failed_as: Duration,
    ) -> Self {
        let mut records = recorder.records();
        records.retain(|record| (from..to).contains(&record.due));
        for record in records.iter_mut().filter(|record| !record.is_success()) {
            record.took = record.took.max(failed_as);
        }
        Self { fleet, from, to, records }
    }

    /// What was measured, summed up.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.records)
    }

    /// The metrics that every scenario has, and the timeline.
    pub fn outcome(&self) -> Outcome {
        let summary = self.summary();
        let received: Vec<u64> =
            self.received().iter().map(|server| server.between(self.from, self.to)).collect();
        let (total, most) = (received.iter().sum::<u64>(), received.iter().max().copied().unwrap_or(0));
        let lasts = (self.to - self.from).as_secs_f64();
        let metrics = Metrics::from([
            ("success", summary.success()),
            ("goodput", summary.successes() as f64 / lasts),
            ("p50_ms", ms(summary.quantile(0.5))),
            ("p90_ms", ms(summary.quantile(0.9))),
            ("p99_ms", ms(summary.quantile(0.99))),
            ("p999_ms", ms(summary.quantile(0.999))),
            ("amplification", total as f64 / summary.requests().max(1) as f64),
            ("load_imbalance", most as f64 * received.len() as f64 / total.max(1) as f64),
        ]);
        Outcome { metrics, timeline: self.timeline() }
    }

    fn received(&self) -> Vec<Timeline> {
        (0..self.fleet.len()).map(|server| self.fleet.server(server).received()).collect()
    }

    /// A moment a second, by when requests were due.
    fn timeline(&self) -> Vec<Moment> {
        let second = Duration::from_secs(1);
        let seconds = (self.to - self.from).as_secs() as usize;
        let mut took = vec![(0_usize, Vec::new()); seconds];
        for record in &self.records {
            if let Some((successes, took)) = took.get_mut((record.due - self.from).as_secs() as usize) {
                *successes += usize::from(record.is_success());
                took.push(record.took);
            }
        }
        let received = self.received();
        let moment = |(index, (successes, mut took)): (usize, (usize, Vec<Duration>))| {
            took.sort_unstable();
            let quantile = |of: f64| {
                let rank = (of * took.len() as f64).ceil() as usize;
                took.get(rank.saturating_sub(1)).map_or(f64::NAN, |took| ms(*took))
            };
            let from = self.from + second * index as u32;
            Moment {
                at: index as f64,
                requests: took.len() as u64,
                success: successes as f64 / took.len() as f64,
                p50_ms: quantile(0.5),
                p99_ms: quantile(0.99),
                attempts: received.iter().map(|server| server.between(from, from + second)).sum::<u64>()
                    as f64,
            }
        };
        took.into_iter().enumerate().map(moment).collect()
    }

    /// How long after `fault` a server's share stays under half of a fair one for a second, in seconds; infinite if it
    /// never does before the end of the measurement.
    pub fn detected(&self, server: usize, fault: Duration) -> f64 {
        let received = self.received();
        let fair = 1.0 / received.len() as f64;
        let mut from = fault;
        while from + DETECTED <= self.to {
            let all: u64 = received.iter().map(|one| one.between(from, from + DETECTED)).sum();
            let own = received[server].between(from, from + DETECTED);
            if (own as f64) < all as f64 * fair / 2.0 {
                return (from - fault).as_secs_f64();
            }
            from += Timeline::STEP;
        }
        f64::INFINITY
    }

    /// How long after `end` of a fault goodput is back: over five seconds as many requests are answered well as become due,
    /// but for 5 % and for what was usual before `fault`. In seconds, infinite if it never is.
    ///
    /// By what becomes due, and not by the rate before, since few requests a second scatter by more than 5 %.
    pub fn recovered(&self, fault: Duration, end: Duration) -> f64 {
        let goodput = |from: Duration, to: Duration| {
            let due = within(&self.records, from, to).count();
            let answered = self.records.iter().filter(|record| record.is_success());
            let done = answered.filter(|record| (from..to).contains(&(record.due + record.took))).count();
            done as f64 / due.max(1) as f64
        };
        let usual = goodput(self.from, fault).min(1.0);
        let mut from = end;
        while from + RECOVERED <= self.to {
            if goodput(from, from + RECOVERED) >= usual * SHARE_OF_USUAL {
                return (from - end).as_secs_f64();
            }
            from += Timeline::STEP;
        }
        f64::INFINITY
    }
}

/// The records that were due from `from` up to before `to`.
pub fn within(records: &[Record], from: Duration, to: Duration) -> impl Iterator<Item = &Record> {
    records.iter().filter(move |record| (from..to).contains(&record.due))
}

/// In milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
