//! How an attempt ended: the one verdict that every layer shares.
//!
//! A response is classified once per attempt, by one [`Classify`], next to the service that gave it. The [`Verdict`]
//! then feeds load, health, retry, budget and statistics alike, so no two of them can disagree about what a failure is.
//!
//! ```
//! use mainstay::outcome::{Classify, Verdict};
//! use tower::BoxError;
//!
//! struct Redis;
//! impl Classify<String> for Redis {
//!     fn classify(&self, result: Result<&String, &BoxError>) -> Verdict {
//!         match result {
//!             Ok(answer) if answer.starts_with("-BUSY") => Verdict::back_off(None),
//!             Ok(_) => Verdict::success(), // an error reply is the caller's fault, not the server's
//!             Err(_) => Verdict::failure(),
//!         }
//!     }
//! }
//! assert_eq!(Redis.classify(Ok(&"+OK".to_owned())), Verdict::success());
//! ```

use std::time::Duration;

use tower::BoxError;

use crate::report::Report;

/// The end of an attempt, as far as the endpoint is to be blamed or praised for it: what the algorithms count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint did its work. That the caller asked for something impossible is a success of the endpoint.
    Success,
    /// The endpoint failed: an error, a timeout, a broken connection.
    Failure,
}

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The endpoint did its work.
    Success,
    /// The endpoint failed.
    Failure,
    /// The endpoint is healthy and asks to be left alone for a while.
    BackOff,
    /// Nothing can be learned.
    Inconclusive,
}

/// Whether the endpoint may have seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sent {
    /// Not a byte of it left the client.
    No,
    /// The server says that it did not process it (HTTP/2 `REFUSED_STREAM`, an id above the one in `GOAWAY`).
    Refused,
    /// It may have been processed.
    Maybe,
}

/// What the answer itself says about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Again {
    /// Nothing: the retry policy decides.
    Policy,
    /// Not before this time has passed (`Retry-After`, gRPC pushback).
    After(Duration),
    /// Never: the server said so, or another attempt cannot end differently.
    Never,
}

/// The verdict on one attempt: one word, which is handed about by value on every request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    class: Class,
    sent: Sent,
    again: Word,
    provisional: bool,
    wish: Wish,
    /// How long to wait before another attempt, if `again` says so.
    millis: u32,
}

/// What somebody who knows the method says of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wish {
    Unsaid,
    Wanted,
    Settled,
}

/// [`Again`] without the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Policy,
    After,
    Never,
}

impl Verdict {
    const fn new(class: Class) -> Self {
        Self {
            class,
            sent: Sent::Maybe,
            again: Word::Policy,
            provisional: false,
            wish: Wish::Unsaid,
            millis: 0,
        }
    }

    /// The endpoint did its work.
    pub const fn success() -> Self {
        Self::new(Class::Success)
    }

    /// The endpoint failed; the request may have been processed.
    pub const fn failure() -> Self {
        Self::new(Class::Failure)
    }

    /// The endpoint asks to be left alone, for `after` where it says how long.
    pub const fn back_off(after: Option<Duration>) -> Self {
        let verdict = Self::new(Class::BackOff);
        match after {
            Some(after) => verdict.again(Again::After(after)),
            None => verdict,
        }
    }

    /// The attempt says nothing about the endpoint.
    pub const fn inconclusive() -> Self {
        Self::new(Class::Inconclusive)
    }

    /// The same verdict on a request that was, or was not, sent.
    #[must_use]
    pub const fn sent(mut self, sent: Sent) -> Self {
        self.sent = sent;
        self
    }

    /// The same verdict with what the answer says about another attempt. Times are kept in whole milliseconds, rounded
    /// up, at most 49 days.
    #[must_use]
    pub const fn again(mut self, again: Again) -> Self {
        (self.again, self.millis) = match again {
            Again::Policy => (Word::Policy, 0),
            Again::Never => (Word::Never, 0),
            Again::After(after) => {
                let millis = after.as_nanos().div_ceil(1_000_000);
                (Word::After, if millis > u32::MAX as u128 { u32::MAX } else { millis as u32 })
            }
        };
        self
    }

    /// The same verdict, given at a head that proves nothing: only the end of the body will.
    #[must_use]
    pub const fn provisional(mut self) -> Self {
        self.provisional = true;
        self
    }

    /// The same verdict on an end that is to be followed by another attempt, as far as policy and budget allow one: whatever it
    /// says of the endpoint, and whether the request may be processed twice or not. Who says so knows the method.
    #[must_use]
    pub const fn wanted(mut self) -> Self {
        self.wish = Wish::Wanted;
        self
    }

    /// The same verdict on an end that the request is over with, whatever it says of the endpoint, and when that asks to be let
    /// alone. It is no success to a budget, and no failure.
    #[must_use]
    pub const fn settled(mut self) -> Self {
        self.wish = Wish::Settled;
        self
    }

    /// What the attempt says about its endpoint.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether the endpoint may have seen the request.
    pub const fn was_sent(&self) -> Sent {
        self.sent
    }

    /// What the answer says about another attempt.
    pub const fn may_repeat(&self) -> Again {
        match self.again {
            Word::Policy => Again::Policy,
            Word::After => Again::After(Duration::from_millis(self.millis as u64)),
            Word::Never => Again::Never,
        }
    }

    /// Whether only the end of the body proves this verdict.
    pub const fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// Whether another attempt is to follow whatever the class.
    pub const fn is_wanted(&self) -> bool {
        matches!(self.wish, Wish::Wanted)
    }

    /// Whether none is to follow whatever the class.
    pub const fn is_settled(&self) -> bool {
        matches!(self.wish, Wish::Settled)
    }

    /// Whether the endpoint did its work, and nobody says that this is not all there is to it.
    pub(crate) const fn is_plain_success(&self) -> bool {
        self.is_success() && matches!(self.wish, Wish::Unsaid)
    }

    /// Whether the endpoint did its work.
    pub const fn is_success(&self) -> bool {
        matches!(self.class, Class::Success)
    }

    /// How bad this is, for comparing the verdict at the head with the one at the end.
    pub(crate) const fn badness(&self) -> u8 {
        match self.class {
            Class::Success => 0,
            Class::Inconclusive => 1,
            Class::BackOff => 2,
            Class::Failure => 3,
        }
    }
}

/// Judges the answers of a service.
pub trait Classify<Res>: Send + Sync + 'static {
    /// The verdict on `result`, as it is known when the head of the response is there.
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict;

    /// What the server says of its load in the head of `response` \[nothing\]. It is asked where the balancer
    /// [goes by that](crate::balance::BalanceOptions::reports), before the response is handed on.
    fn report(&self, response: &Res) -> Option<Report> {
        let _ = response;
        None
    }
}

impl<Res, F> Classify<Res> for F
where
    F: Fn(Result<&Res, &BoxError>) -> Verdict + Send + Sync + 'static,
{
    fn classify(&self, result: Result<&Res, &BoxError>) -> Verdict {
        self(result)
    }
}
