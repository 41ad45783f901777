//! What clients have seen.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tower::BoxError;

use super::{Fault, FaultKind, Request, Response, World};

/// One request, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The request's [`id`](super::Request::id).
    pub id: u64,
    /// When it was due, from the beginning of the world.
    pub due: Duration,
    /// How long after that there was a result, good or bad: a client that falls behind cannot hide it.
    pub took: Duration,
    /// The server that answered it well, if one did.
    pub server: Option<usize>,
    /// What a server or the network said, if that is what the caller was told; nothing for a timeout or a refusal.
    pub fault: Option<FaultKind>,
    /// The request's [`operation`](Request::operation).
    pub operation: &'static str,
}

impl Record {
    /// Whether it was answered well.
    pub fn is_success(&self) -> bool {
        self.server.is_some()
    }
}

/// Where clients write down what they see. A clone is a handle to the same records.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    open: usize,
}

impl Recorder {
    /// Without records.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record a request that was due at `due`. For loads of your own; [`OpenLoop`](super::OpenLoop) and
    /// [`ClosedLoop`](super::ClosedLoop) do it by themselves.
    pub fn begin(&self, world: &World, request: &Request, due: Duration) -> Open {
        self.lock().open += 1;
        let (id, operation) = (request.id, request.operation);
        let record = Record { id, due, took: Duration::ZERO, server: None, fault: None, operation };
        Open { recorder: self.clone(), world: world.clone(), record }
    }

    /// Waits until every request that was begun has ended.
    pub async fn idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.lock().open == 0 {
                return;
            }
            ended.await;
        }
    }

    /// The records so far, in the order in which the requests ended.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// What was due from `from` up to before `to`, summed up.
    pub fn summary(&self, from: Duration, to: Duration) -> Summary {
        Summary::of(self.lock().records.iter().filter(|record| (from..to).contains(&record.due)))
    }
}

/// A request that has no result yet. Dropped, it is recorded as failed.
#[derive(Debug)]
#[must_use = "a request that is dropped has failed"]
pub struct Open {
    recorder: Recorder,
    world: World,
    record: Record,
}

impl Open {
    /// Records the result, now.
    pub fn end<E: Into<BoxError>>(mut self, result: Result<Response, E>) {
        match result {
            Ok(response) => self.record.server = Some(response.server),
            Err(error) => {
                let error: BoxError = error.into();
                self.record.fault = error.downcast_ref::<Fault>().map(|fault| fault.kind);
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.record.took = self.world.passed().saturating_sub(self.record.due);
        let mut state = self.recorder.lock();
        state.records.push(self.record);
        state.open -= 1;
        if state.open == 0 {
            self.recorder.0.ended.notify_waiters();
        }
    }
}

/// Many records in a few numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    successes: usize,
    /// In order.
    took: Vec<Duration>,
}

impl Summary {
    /// Of these records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut summary = Self::default();
        for record in records {
            summary.successes += usize::from(record.is_success());
            summary.took.push(record.took);
        }
        summary.took.sort_unstable();
        summary
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.took.len()
    }

    /// How many were answered well.
    pub fn successes(&self) -> usize {
        self.successes
    }

    /// The share that was answered well, from 0 to 1; 1 without requests.
    pub fn success(&self) -> f64 {
        if self.took.is_empty() { 1.0 } else { self.successes as f64 / self.took.len() as f64 }
    }

    /// The time within which a share of `quantile` (0 to 1) had their result, good or bad, by the nearest rank.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile.clamp(0.0, 1.0) * self.took.len() as f64).ceil() as usize;
        self.took.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The mean time to a result.
    pub fn mean(&self) -> Duration {
        let total: Duration = self.took.iter().sum();
        total.checked_div(self.took.len() as u32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(due: u64, took: u64, server: Option<usize>) -> Record {
        let (due, took) = (Duration::from_millis(due), Duration::from_millis(took));
        Record { id: 0, due, took, server, fault: None, operation: "" }
    }

    #[test]
    fn a_summary_counts_failures_with_their_time() {
        let records =
            [record(0, 10, Some(1)), record(1, 1_000, None), record(2, 20, Some(0)), record(3, 30, Some(0))];
        let summary = Summary::of(&records);
        assert_eq!((summary.requests(), summary.successes(), summary.success()), (4, 3, 0.75));
        assert_eq!(summary.quantile(0.5), Duration::from_millis(20));
        assert_eq!(summary.quantile(0.99), Duration::from_millis(1_000));
        assert_eq!(summary.mean(), Duration::from_millis(265));
    }

    #[test]
    fn nothing_has_not_failed() {
        let summary = Summary::default();
        assert_eq!(
            (summary.success(), summary.quantile(0.99), summary.mean()),
            (1.0, Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn a_stretch_of_time_takes_what_was_due_in_it() {
        crate::testing::simulate(1, async |world| {
            let recorder = Recorder::new();
            for due in [5, 10, 15] {
                let open = recorder.begin(&world, &Request::new(due), Duration::from_millis(due));
                world.until(Duration::from_millis(due + 1)).await;
                drop(open);
            }
            let summary = recorder.summary(Duration::from_millis(5), Duration::from_millis(15));
            assert_eq!((summary.requests(), summary.successes()), (2, 0));
            assert_eq!(summary.quantile(1.0), Duration::from_millis(1));
        });
    }

    #[test]
    fn nobody_waits_for_a_request_whose_task_has_panicked() {
        crate::testing::simulate(1, async |world| {
            let recorder = Recorder::new();
            let open = recorder.begin(&world, &Request::new(1), Duration::ZERO);
            let task = tokio::spawn(async move {
                let _open = open;
                panic!("as it should not be");
            });
            recorder.idle().await;
            assert!(task.await.is_err() && recorder.records().len() == 1);
        });
    }
}
