//! The one error type for what this crate decides.
//!
//! Errors of the transport pass through untouched. What mainstay itself refuses or cuts off is an [`Error`] that says
//! why, at which client and endpoint, since when, when to come back, and whether anything was sent. Layers speak
//! [`BoxError`]; [`Error::find`] finds ours anywhere in a chain.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use tower::BoxError;

use crate::outcome::{Again, Classify, Sent, Verdict};

/// Why a request was refused or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The name has not been resolved yet, and the wait for it is over.
    Unresolved,
    /// The name does not exist, or stands for no endpoint.
    Absent,
    /// There are endpoints, and none of them is available.
    NoEndpoint,
    /// Every endpoint has asked to be left alone.
    BackingOff,
    /// Too many requests wait already.
    QueueFull,
    /// A concurrency limit is reached.
    Limit,
    /// A circuit breaker is open; the cause is the [`Trip`](crate::breaker::Trip) that opened it.
    Breaker,
    /// More was asked than a rate allows.
    RateLimit,
    /// The servers turn so much away that this request was not sent to them at all.
    Throttled,
    /// The service below is not ready, and nobody waits for it.
    NotReady,
    /// The total deadline has passed.
    Deadline,
    /// One attempt took longer than it may.
    AttemptTimeout,
    /// Nothing more of a response's body came for too long.
    Stalled,
    /// The client was closed.
    Closed,
    /// A connection could not be made.
    Connect,
    /// There is no tokio runtime to run the client's background task on.
    NoRuntime,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Unresolved => "the name is not resolved yet",
            Self::Absent => "the name stands for no endpoint",
            Self::NoEndpoint => "no endpoint is available",
            Self::BackingOff => "every endpoint has asked to be left alone",
            Self::QueueFull => "too many requests are waiting",
            Self::Limit => "the concurrency limit is reached",
            Self::Breaker => "the circuit breaker refuses",
            Self::RateLimit => "the rate limit is reached",
            Self::Throttled => "the servers turn too much away",
            Self::NotReady => "the service is not ready",
            Self::Deadline => "the deadline has passed",
            Self::AttemptTimeout => "the attempt took too long",
            Self::Stalled => "the response body stalled",
            Self::Closed => "the client is closed",
            Self::Connect => "the connection could not be made",
            Self::NoRuntime => "no tokio runtime is running",
        }
    }

    /// Whether the refusal is one by a whole client, which another attempt would only meet again.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Connect | Self::AttemptTimeout | Self::Stalled)
    }

    /// A word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Absent => "absent",
            Self::NoEndpoint => "no_endpoint",
            Self::BackingOff => "backing_off",
            Self::QueueFull => "queue_full",
            Self::Limit => "limit",
            Self::Breaker => "breaker",
            Self::RateLimit => "rate_limit",
            Self::Throttled => "throttled",
            Self::NotReady => "not_ready",
            Self::Deadline => "deadline",
            Self::AttemptTimeout => "attempt_timeout",
            Self::Stalled => "stalled",
            Self::Closed => "closed",
            Self::Connect => "connect",
            Self::NoRuntime => "no_runtime",
        }
    }
}

/// A cause that can be told to many callers.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// A refusal or a cut-off by this crate, with everything that is known about it.
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone)]
struct Parts {
    reason: Reason,
    sent: Sent,
    client: Option<Arc<str>>,
    key: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    lasted: Option<Duration>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Error {
    /// An error for `reason`, of a request of which nothing was sent.
    pub fn new(reason: Reason) -> Self {
        Self(Box::new(Parts {
            reason,
            sent: Sent::No,
            client: None,
            key: None,
            endpoint: None,
            lasted: None,
            retry_after: None,
            cause: None,
        }))
    }

    /// The same error of a request that was, or was not, sent.
    #[must_use]
    pub fn with_sent(mut self, sent: Sent) -> Self {
        self.0.sent = sent;
        self
    }

    /// The same error, told by the client of this label.
    #[must_use]
    pub fn with_client(mut self, client: Arc<str>) -> Self {
        self.0.client = Some(client);
        self
    }

    /// The same error by one of several that the client has: the breaker of this method, or of this key.
    #[must_use]
    pub fn with_key(mut self, key: Arc<str>) -> Self {
        self.0.key = Some(key);
        self
    }

    /// The same error about this endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Arc<str>) -> Self {
        self.0.endpoint = Some(endpoint);
        self
    }

    /// The same error after, or because of, a state that has lasted this long.
    #[must_use]
    pub fn with_lasted(mut self, lasted: Duration) -> Self {
        self.0.lasted = Some(lasted);
        self
    }

    /// The same error with the time after which another try makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The same error with what led to it.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// Finds the first error of this crate in the chain of `error`.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(ours) = error.downcast_ref::<Self>() {
                return Some(ours);
            }
            link = error.source();
        }
        None
    }

    /// Why the request was refused or cut off.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Whether an endpoint may have seen the request.
    pub fn sent(&self) -> Sent {
        self.0.sent
    }

    /// The label of the client.
    pub fn client(&self) -> Option<&str> {
        self.0.client.as_deref()
    }

    /// The method or key whose breaker it was, where the client has several.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The endpoint, where one is to blame.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// How long the state that led to this has lasted: the time an attempt took, the time since the name was lost.
    pub fn lasted(&self) -> Option<Duration> {
        self.0.lasted
    }

    /// After which time another try makes sense, where it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What this error says about the endpoint, when it comes out of the service of an endpoint.
    pub(crate) fn verdict(&self) -> Verdict {
        let verdict = match self.0.reason {
            Reason::Connect | Reason::AttemptTimeout | Reason::Stalled => Verdict::failure(),
            Reason::BackingOff => Verdict::back_off(self.0.retry_after),
            // The caller's own deadline, and refusals of a client below this one, do not blame this endpoint.
            _ => Verdict::inconclusive(),
        };
        let again = match (self.0.reason, self.0.retry_after) {
            (Reason::Deadline | Reason::Closed | Reason::NoRuntime, _) => Again::Never,
            (_, Some(after)) => Again::After(after),
            (_, None) => verdict.may_repeat(),
        };
        verdict.sent(self.0.sent).again(again)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        match (&parts.client, &parts.key) {
            (Some(client), Some(key)) => write!(f, "{client}, {key}: ")?,
            (Some(name), None) | (None, Some(name)) => write!(f, "{name}: ")?,
            (None, None) => {}
        }
        f.write_str(parts.reason.text())?;
        if let Some(endpoint) = &parts.endpoint {
            write!(f, " (endpoint {endpoint})")?;
        }
        if let Some(lasted) = parts.lasted {
            write!(f, " after {:?}", readable(lasted))?;
        }
        if let Some(after) = parts.retry_after {
            write!(f, ", try again in {:?}", readable(after))?;
        }
        Ok(())
    }
}

/// To the millisecond, where that leaves three digits.
fn readable(time: Duration) -> Duration {
    if time < Duration::from_millis(100) { time } else { Duration::from_millis(time.as_millis() as u64) }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("reason", &self.0.reason)
            .field("sent", &self.0.sent)
            .field("client", &self.0.client)
            .field("key", &self.0.key)
            .field("endpoint", &self.0.endpoint)
            .field("lasted", &self.0.lasted)
            .field("retry_after", &self.0.retry_after)
            .field("cause", &self.0.cause)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// Errors are failures and everything else is a success: for services whose response says nothing of failure.
///
/// An [`Error`] of this crate in the chain tells whether the request was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorsFail;

impl<Res> Classify<Res> for ErrorsFail {
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::success(),
            Err(error) => of_error(error),
        }
    }
}

/// The verdict on an error that nothing is known about but its chain.
pub fn of_error(error: &BoxError) -> Verdict {
    match Error::find(&**error) {
        Some(ours) => ours.verdict(),
        None => Verdict::failure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error);

    #[test]
    fn ours_is_found_anywhere_in_a_chain() {
        let chain: tower::BoxError = Box::new(Outer(Error::new(Reason::Deadline)));
        assert_eq!(Error::find(&*chain).map(Error::reason), Some(Reason::Deadline));
        let other: tower::BoxError = "nothing of ours".into();
        assert!(Error::find(&*other).is_none());
    }

    #[test]
    fn the_text_names_client_endpoint_time_and_advice_and_leaves_the_cause_to_the_chain() {
        let error = Error::new(Reason::AttemptTimeout)
            .with_client("users".into())
            .with_key("GetUser".into())
            .with_endpoint("10.0.0.1:80".into())
            .with_lasted(Duration::new(3, 999_999))
            .with_retry_after(Duration::from_secs(1))
            .with_cause(Arc::new(Error::new(Reason::Connect)));
        assert_eq!(
            error.to_string(),
            "users, GetUser: the attempt took too long (endpoint 10.0.0.1:80) after 3s, try again in 1s"
        );
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("the connection could not be made")
        );
    }
}
