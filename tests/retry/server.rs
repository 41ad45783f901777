//! A server that answers by a script, on virtual time, and keeps a log.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use mainstay::{
    Classify, Describe, Invalid, Verdict,
    backoff::Backoff,
    budget::{Budget, BudgetOptions},
    clock,
    describe::Sending,
    retry::{RetryLayer, RetryPolicy},
};
use tower::{BoxError, Service};

pub(crate) type Test = Result<(), BoxError>;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// What is sent: which request, and what [`Requests`] has stamped on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) attempt: u32,
    pub(crate) remaining: Option<Duration>,
    pub(crate) is_retry: bool,
}

pub(crate) fn request(id: u32) -> Request {
    Request { id, ..Request::default() }
}

/// Requests that can be copied.
#[derive(Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) idempotent: bool,
}

impl Describe<Request> for Requests {
    fn copy(&self, request: &mut Request) -> Option<Request> {
        Some(*request)
    }

    fn is_idempotent(&self, _: &Request) -> bool {
        self.idempotent
    }

    fn stamp(&self, request: &mut Request, sending: &Sending) {
        request.attempt = sending.attempt;
        request.remaining = sending.remaining();
        request.is_retry = sending.is_retry();
    }
}

/// An error that says what its verdict is.
#[derive(Debug, thiserror::Error)]
#[error("answer {number}")]
pub(crate) struct Bad {
    verdict: Verdict,
    pub(crate) number: u32,
}

/// The number of the answer that came out as an error.
pub(crate) fn bad_number<T>(result: &Result<T, BoxError>) -> Option<u32> {
    result.as_ref().err()?.downcast_ref::<Bad>().map(|bad| bad.number)
}

/// Believes what a [`Bad`] says.
#[derive(Clone, Copy)]
pub(crate) struct Believe;

impl Classify<u32> for Believe {
    fn classify(&self, result: Result<&u32, &BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::success(),
            Err(error) => error
                .downcast_ref::<Bad>()
                .map_or_else(|| mainstay::error::of_error(error), |bad| bad.verdict),
        }
    }
}

/// One answer of the script.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Good,
    Bad(Verdict),
    /// A good one after this time.
    In(Duration),
    /// A failure after this time.
    FailIn(Duration),
    Hang,
}

pub(crate) const FAIL: Answer = Answer::Bad(Verdict::failure());

/// Answers its n-th request, counted from 1, with the n-th answer of its script.
#[derive(Clone)]
pub(crate) struct Server {
    script: Arc<dyn Fn(u32) -> Answer + Send + Sync>,
    log: Arc<Mutex<Vec<(Instant, Request)>>>,
}

impl Server {
    pub(crate) fn new(script: impl Fn(u32) -> Answer + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), log: Arc::default() }
    }

    /// Gives these answers, and good ones after them.
    pub(crate) fn answers(script: impl Into<Vec<Answer>>) -> Self {
        let script = script.into();
        Self::new(move |n| script.get(n as usize - 1).copied().unwrap_or(Answer::Good))
    }

    pub(crate) fn failing() -> Self {
        Self::new(|_| FAIL)
    }

    /// What it was sent.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.log.lock().unwrap().iter().map(|(_, request)| *request).collect()
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        self.log.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// How long was waited between one request and the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.times().windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).collect()
    }
}

impl Service<Request> for Server {
    type Response = u32;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push((clock::now(), request));
            log.len() as u32
        };
        let answer = (self.script)(number);
        let bad = move |verdict| Err(Bad { verdict, number }.into());
        Box::pin(async move {
            match answer {
                Answer::Good => Ok(number),
                Answer::Bad(verdict) => bad(verdict),
                Answer::In(time) => {
                    tokio::time::sleep(time).await;
                    Ok(number)
                }
                Answer::FailIn(time) => {
                    tokio::time::sleep(time).await;
                    bad(Verdict::failure())
                }
                Answer::Hang => std::future::pending().await,
            }
        })
    }
}

/// A budget that never says no, unless a test is about the budget.
pub(crate) fn plenty() -> Budget {
    reserve(1_000_000)
}

/// A budget of nothing but a reserve.
pub(crate) fn reserve(reserve: u32) -> Budget {
    let options = BudgetOptions::default().share(mainstay::Ratio::ZERO).reserve(reserve);
    Budget::new(options).expect("the window is the default one")
}

/// `attempts` without waits in between.
pub(crate) fn at_once(attempts: u32) -> RetryPolicy {
    RetryPolicy::default().max_attempts(attempts).backoff(Backoff::fixed(Duration::ZERO))
}

/// A layer for idempotent requests with plenty of budget.
pub(crate) fn layer(policy: RetryPolicy) -> Result<RetryLayer<Request, u32>, Invalid> {
    let requests = Requests { idempotent: true };
    Ok(RetryLayer::new(policy)?.budget(plenty()).describe(requests).classify(Believe))
}
