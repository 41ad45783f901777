//! What is read, what is refused, and what is told.

use std::time::Duration;

use ::http::{
    HeaderName,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::load::{LoadReporter, Reporter};
use crate::{
    grpc::{LOAD_METRICS, LOAD_METRICS_BIN, PUSHBACK, STATUS},
    http::{FRAMING, UNPROCESSED},
    invalid::{Check, Invalid},
    limit::ConcurrencyLimitOptions,
};

/// What a [`ServerLayer`](super::ServerLayer) reads from requests, what it refuses, and what it tells.
///
/// gRPC's own headers, `grpc-timeout` and `grpc-previous-rpc-attempts`, are read of every gRPC request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The header with the time that is left, in milliseconds \[`x-envoy-expected-rq-timeout-ms`, which Envoy writes\];
    /// `None` to read it from gRPC alone.
    pub deadline_header: Option<HeaderName>,
    /// The header with the number of the attempt, 1 for the first \[`x-attempt-count`\].
    pub attempt_header: Option<HeaderName>,
    /// The header with how much the request matters, by [`Criticality::name`](crate::describe::Criticality::name)
    /// \[`x-criticality`\]; `None` to believe nobody.
    pub criticality_header: Option<HeaderName>,
    /// How many requests are in the handlers at a time \[any number\]. Of those that wait, who matters more goes first.
    pub limit: Option<ConcurrencyLimitOptions>,
    /// After which time to come back, where the limit refuses \[1 s\]. HTTP is told whole seconds.
    pub retry_after: Duration,
    /// Who says what load this server is under \[nobody\]: told with every answer, see [the module](super).
    pub reporter: Option<Reporter>,
    /// The header of answers with how many other requests are in flight \[none\].
    pub in_flight_header: Option<HeaderName>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            deadline_header: Some(HeaderName::from_static("x-envoy-expected-rq-timeout-ms")),
            attempt_header: Some(HeaderName::from_static("x-attempt-count")),
            criticality_header: Some(HeaderName::from_static("x-criticality")),
            limit: None,
            retry_after: Duration::from_secs(1),
            reporter: None,
            in_flight_header: None,
        }
    }
}

impl ServerOptions {
    /// Reads the time that is left from `header`, in milliseconds.
    #[must_use]
    pub fn deadline_header(mut self, header: impl Into<Option<HeaderName>>) -> Self {
        self.deadline_header = header.into();
        self
    }

    /// Reads the number of the attempt from `header`.
    #[must_use]
    pub fn attempt_header(mut self, header: impl Into<Option<HeaderName>>) -> Self {
        self.attempt_header = header.into();
        self
    }

    /// Reads how much a request matters from `header`.
    #[must_use]
    pub fn criticality_header(mut self, header: impl Into<Option<HeaderName>>) -> Self {
        self.criticality_header = header.into();
        self
    }

    /// How many requests are in the handlers at a time.
    #[must_use]
    pub fn limit(mut self, limit: impl Into<Option<ConcurrencyLimitOptions>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// After which time to come back, where the limit refuses.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = after;
        self
    }

    /// Tells with every answer what load this server is under, as `reporter` says.
    #[must_use]
    pub fn report_load(mut self, reporter: impl LoadReporter) -> Self {
        self.reporter = Some(Reporter::new(reporter));
        self
    }

    /// Writes into `header` of answers how many other requests are in flight.
    #[must_use]
    pub fn in_flight_header(mut self, header: impl Into<Option<HeaderName>>) -> Self {
        self.in_flight_header = header.into();
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Invalid`] with every option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.duration("retry_after", self.retry_after);
        if let Some(header) = &self.in_flight_header {
            let taken =
                [CONTENT_TYPE, RETRY_AFTER, LOAD_METRICS, LOAD_METRICS_BIN, PUSHBACK, STATUS, UNPROCESSED];
            let free = !FRAMING.contains(header) && !taken.contains(header);
            check.rule(free, "in_flight_header", header, "a header that means nothing else");
        }
        if let Some(limit) = &self.limit {
            check.part("limit", |check| limit.check(check));
        }
        check.finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together_and_every_mistake_is_told() {
        assert_eq!(ServerOptions::default().validate(), Ok(()));
        let options = ServerOptions::default()
            .retry_after(Duration::ZERO)
            .in_flight_header(STATUS)
            .limit(ConcurrencyLimitOptions::default().max_wait(Duration::MAX));
        let invalid = options.validate().unwrap_err();
        let fields: Vec<_> = invalid.problems().iter().map(|problem| &*problem.field).collect();
        assert_eq!(fields, ["retry_after", "in_flight_header", "limit.max_wait"]);
    }
}
