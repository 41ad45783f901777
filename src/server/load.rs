//! What a server says of its load.

use std::{fmt, sync::Arc};

use crate::{
    grpc::{IN_FLIGHT, LoadReport},
    sync::{Mutex, Swap, lock},
};

/// What a [`ServerLayer`](super::ServerLayer) sees of the load by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// Requests that are waiting for a place, in their handlers, or still answering, besides the one that is told of.
    pub in_flight: u64,
    /// Requests per second of the last ten, without those that were refused.
    pub rps: f64,
    /// Of these, how many failed: [`Class::Failure`](crate::outcome::Class::Failure), by the answer or by its end.
    pub eps: f64,
}

/// Says what load this server is under, whenever something is answered: a [`LoadRecorder`], or a function of yours.
///
/// It is asked on the way of every answer, so it should read what is known and measure nothing.
///
/// ```
/// use mainstay::{grpc::LoadReport, server::{Measured, ServerOptions}};
///
/// let options = ServerOptions::default().report_load(|measured: &Measured| {
///     let mut report = LoadReport::default();
///     report.application = measured.in_flight as f64 / 256.0; // of 256 workers
///     report
/// });
/// ```
pub trait LoadReporter: Send + Sync + 'static {
    /// The load. Where it says nothing of requests and errors per second, or of requests in flight (by the named metric
    /// [`IN_FLIGHT`]), those that were measured are told. A number that no reader
    /// would take, such as a negative one, is left out.
    fn report(&self, measured: &Measured) -> LoadReport;
}

impl<F> LoadReporter for F
where
    F: Fn(&Measured) -> LoadReport + Send + Sync + 'static,
{
    fn report(&self, measured: &Measured) -> LoadReport {
        self(measured)
    }
}

/// The last known load of this server, written by whoever measures it and told with every answer.
///
/// A handle is cheap to clone, and all clones are the same. Readers do not wait for writers.
///
/// ```
/// use mainstay::server::{LoadRecorder, ServerOptions};
///
/// let load = LoadRecorder::new();
/// let options = ServerOptions::default().report_load(load.clone());
/// load.update(|report| {
///     report.cpu = 0.35;
///     report.utilization.insert("disk".into(), 0.8);
/// });
/// assert_eq!(load.last().cpu, 0.35);
/// ```
#[derive(Clone, Default)]
pub struct LoadRecorder(Arc<Recorded>);

struct Recorded {
    last: Swap<LoadReport>,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self { last: Swap::new(LoadReport::default()), writing: Mutex::new(()) }
    }
}

impl LoadRecorder {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes what is told from now on.
    pub fn update(&self, change: impl FnOnce(&mut LoadReport)) {
        let _turn = lock(&self.0.writing);
        let mut next = self.last();
        change(&mut next);
        self.0.last.store(next);
    }

    /// What is told.
    pub fn last(&self) -> LoadReport {
        LoadReport::clone(&self.0.last.load())
    }
}

impl LoadReporter for LoadRecorder {
    fn report(&self, _: &Measured) -> LoadReport {
        self.last()
    }
}

impl fmt::Debug for LoadRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoadRecorder").field(&self.last()).finish()
    }
}

/// A [`LoadReporter`] among options. Two are equal if they are the same one.
#[derive(Clone)]
pub struct Reporter(Arc<dyn LoadReporter>);

impl Reporter {
    /// The reporter `reporter`.
    pub fn new(reporter: impl LoadReporter) -> Self {
        Self(Arc::new(reporter))
    }

    /// The whole report on an answer that says `own` of itself.
    pub(super) fn report(&self, measured: &Measured, own: Option<LoadReport>) -> LoadReport {
        let mut report = self.0.report(measured);
        if let Some(own) = own {
            report.override_by(own);
        }
        for (said, measured) in [(&mut report.rps, measured.rps), (&mut report.eps, measured.eps)] {
            if *said == 0.0 {
                *said = measured;
            }
        }
        // ORCA has no field for it; a client of this crate goes by it.
        report.named.entry(IN_FLIGHT.to_owned()).or_insert(measured.in_flight as f64);
        report.leave_out_unsound();
        report
    }
}

impl PartialEq for Reporter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_the_request_says_of_itself_stands_and_what_nobody_says_is_measured() {
        let load = LoadRecorder::new();
        load.update(|report| {
            (report.cpu, report.memory, report.eps) = (0.25, 0.5, 3.0);
            report.utilization = [("disk".to_owned(), 0.5), ("net".to_owned(), 0.125)].into();
        });
        let mut own = LoadReport { cpu: 0.75, ..LoadReport::default() };
        own.request_cost.insert("rows".into(), 70.0);
        own.utilization.insert("disk".into(), 0.75);
        let measured = Measured { in_flight: 3, rps: 12.0, eps: 1.0 };
        let report = Reporter::new(load).report(&measured, Some(own));
        assert_eq!((report.cpu, report.memory, report.rps, report.eps), (0.75, 0.5, 12.0, 3.0));
        assert_eq!((report.utilization["disk"], report.utilization["net"]), (0.75, 0.125));
        assert_eq!(report.request_cost["rows"], 70.0);
    }

    #[test]
    fn numbers_that_no_reader_takes_are_left_out_and_the_rest_is_told() {
        let reporter = Reporter::new(|_: &Measured| {
            let mut report = LoadReport { cpu: -1.0, memory: 1.5, ..LoadReport::default() };
            report.application = 2.0;
            report.named = (0..200).map(|name| (format!("{name:03}"), 1.0)).collect();
            report.utilization = [("disk".to_owned(), f64::NAN), ("net".to_owned(), 1.0)].into();
            report
        });
        let report = reporter.report(&Measured::default(), None);
        assert_eq!((report.cpu, report.memory, report.application), (0.0, 0.0, 2.0));
        assert_eq!(report.utilization.keys().collect::<Vec<_>>(), ["net"]);
        assert_eq!(report.named.len(), 100);
        assert_eq!(LoadReport::parse(report.to_text().to_str().unwrap()), Some(report));
    }
}
