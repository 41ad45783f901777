//! What goes to a fleet and comes back.

use std::time::Duration;

use tower::BoxError;

use crate::{
    describe::{Criticality, Describe, Sending},
    error,
    outcome::{Classify, Sent, Verdict},
    report::Report,
};

/// A request to a [`Fleet`](super::Fleet).
///
/// How much work it is, and which trouble it meets, follows from the seed of the world, its `id` and its `attempt`: the same
/// for every client that is tried in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// No other request of the world has it.
    pub id: u64,
    /// 1 for the first attempt \[1\].
    pub attempt: u32,
    /// Whether it may be processed twice \[true\].
    pub idempotent: bool,
    /// What it asks for \[""\].
    pub operation: &'static str,
    /// How much it matters \[critical\].
    pub criticality: Criticality,
}

impl Request {
    /// A first attempt of a request that may be processed twice.
    pub const fn new(id: u64) -> Self {
        Self { id, attempt: 1, idempotent: true, operation: "", criticality: Criticality::Critical }
    }

    /// The next attempt of it, for layers that know nothing of [`Description`].
    #[must_use]
    pub const fn again(mut self) -> Self {
        self.attempt += 1;
        self
    }

    /// The same request for an operation.
    #[must_use]
    pub const fn operation(mut self, operation: &'static str) -> Self {
        self.operation = operation;
        self
    }

    /// The same request, which must not be processed twice.
    #[must_use]
    pub const fn not_idempotent(mut self) -> Self {
        self.idempotent = false;
        self
    }

    /// The same request, that matters so much.
    #[must_use]
    pub const fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }
}

/// An answer of a server, and what it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// Which server.
    pub server: usize,
    /// Requests that were there when this one was done, without it.
    pub in_flight: u32,
    /// How long this one waited for a slot.
    pub waited: Duration,
    /// How long it was in it.
    pub worked: Duration,
    /// The life of the server that gave it.
    pub(super) life: u32,
}

/// Why a server did not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server {server}: {kind}")]
#[non_exhaustive]
pub struct Fault {
    /// Which server.
    pub server: usize,
    /// What happened.
    pub kind: FaultKind,
}

/// What kind of fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// It answered with an error.
    #[error("failed")]
    Failed,
    /// It asked to be left alone.
    #[error("asks to be left alone")]
    BackOff(Option<Duration>),
    /// It did not process the request, and says so.
    #[error("rejected unprocessed")]
    Rejected,
    /// It broke off.
    #[error("connection reset")]
    Reset,
    /// There is nobody to talk to: nothing was sent.
    #[error("connection refused")]
    Refused,
    /// The connection was gone before anything was sent.
    #[error("connection closed")]
    Closed,
}

impl FaultKind {
    /// The verdict on it.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Failed | Self::Reset => Verdict::failure(),
            Self::BackOff(after) => Verdict::back_off(after),
            Self::Rejected => Verdict::failure().sent(Sent::Refused),
            Self::Refused | Self::Closed => Verdict::failure().sent(Sent::No),
        }
    }
}

/// Tells mainstay's layers what a [`Request`] is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Description;

impl Describe<Request> for Description {
    fn copy(&self, request: &mut Request) -> Option<Request> {
        Some(*request)
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        request.idempotent
    }

    fn operation<'a>(&self, request: &'a Request) -> Option<&'a str> {
        Some(request.operation)
    }

    fn hash_key(&self, request: &Request) -> Option<u64> {
        Some(request.id)
    }

    fn criticality(&self, request: &Request) -> Option<Criticality> {
        Some(request.criticality)
    }

    fn stamp(&self, request: &mut Request, sending: &Sending) {
        request.attempt = sending.attempt;
    }
}

/// Tells mainstay's layers what a [`Fault`] is; of other errors it knows what [`Error`](crate::Error) says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classifier;

/// A [`Classifier`] of servers that say on each answer how much they have in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reporting;

impl Classify<Response> for Reporting {
    fn classify(&self, result: Result<&Response, &BoxError>) -> Verdict {
        Classifier.classify(result)
    }

    fn report(&self, response: &Response) -> Option<Report> {
        Some(Report::default().in_flight(response.in_flight))
    }
}

impl<Res> Classify<Res> for Classifier {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::success(),
            Err(error) => match error.downcast_ref::<Fault>() {
                Some(fault) => fault.kind.verdict(),
                None => error::of_error(error),
            },
        }
    }
}
