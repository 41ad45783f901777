//! What a service config says of a call, on its way through the client.

use std::time::{Duration, Instant};

use ::http::{HeaderMap, Response, StatusCode};
use tower::BoxError;

use crate::{
    client::Terms,
    grpc::{Attempts, Codes, MethodPolicy, Methods, STATUS, ServiceConfig, pushed_back},
    invalid::Invalid,
    outcome::{Classify, Sent, Verdict},
    report::Report,
};

/// UNAVAILABLE: what a connection that broke, or an attempt that took too long, counts as.
const UNAVAILABLE: u8 = 14;

/// What is done of a policy, made once for a document.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) timeout: Option<Duration>,
    pub(super) attempts: Option<Planned>,
}

/// How often a call is made, and after which ends again.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) terms: Terms,
    /// Whether a call that ended without an answer is made again.
    pub(super) without_an_answer: bool,
    pub(super) on: On,
}

/// The codes after which there is another attempt: with a call to its transport, and with the answer back to whoever judges it.
#[derive(Clone, Copy, Debug)]
pub(super) struct On(Codes);

impl Plan {
    /// What is to be done of each policy of `config`.
    pub(super) fn of(config: &ServiceConfig, epoch: Instant) -> Result<Methods<Self>, Invalid> {
        let mut invalid = Ok(());
        let plans = config.methods(|policy| {
            Self::of_policy(policy, epoch).unwrap_or_else(|problem| {
                invalid = Err(problem);
                Self { timeout: policy.timeout, attempts: None }
            })
        });
        invalid.map(|()| plans)
    }

    fn of_policy(policy: &MethodPolicy, epoch: Instant) -> Result<Self, Invalid> {
        let attempts = match &policy.attempts {
            Attempts::Unsaid => None,
            Attempts::Retry { policy, on } => Some(Planned {
                terms: Terms::retried(policy.clone()),
                without_an_answer: on.contains(UNAVAILABLE),
                on: On(*on),
            }),
            Attempts::Hedge { options, on } => {
                Some(Planned { terms: Terms::hedged(options, epoch)?, without_an_answer: true, on: On(*on) })
            }
        };
        Ok(Self { timeout: policy.timeout, attempts })
    }
}

/// Judges as `C` does, and leaves it to the method's policy whether there is another attempt.
pub(super) struct ByMethod<C>(pub(super) C);

impl<C, B> Classify<Response<B>> for ByMethod<C>
where
    C: Classify<Response<B>>,
{
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Verdict {
        let verdict = self.0.classify(result);
        match result {
            Ok(response) => match response.extensions().get() {
                None => verdict,
                Some(On(codes)) => refined(verdict, response.status(), response.headers(), *codes),
            },
            Err(_) => verdict,
        }
    }

    fn report(&self, response: &Response<B>) -> Option<Report> {
        self.0.report(response)
    }
}

/// What was not processed is sent again whatever the policy is.
fn refined(verdict: Verdict, status: StatusCode, headers: &HeaderMap, codes: Codes) -> Verdict {
    match code(status, headers) {
        None | Some(0) => verdict,
        Some(_) if verdict.was_sent() != Sent::Maybe => verdict,
        Some(code) if codes.contains(code) => match pushed_back(headers) {
            // What is no failure to the endpoint has no pushback in its verdict yet.
            Some(again) => verdict.again(again).wanted(),
            None => verdict.wanted(),
        },
        Some(_) => verdict.settled(),
    }
}

/// How the call has ended, where the head says so; in HTTP's words too, as http-grpc-status-mapping has them.
fn code(status: StatusCode, headers: &HeaderMap) -> Option<u8> {
    if let Some(code) = headers.get(STATUS) {
        return Some(code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(2));
    }
    match status.as_u16() {
        200 => None,
        400 => Some(13),
        401 => Some(16),
        403 => Some(7),
        404 => Some(12),
        429 | 502 | 503 | 504 => Some(UNAVAILABLE),
        _ => Some(2),
    }
}
