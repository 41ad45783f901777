//! How a limit learns how requests end, and until when they count.

use std::{fmt, sync::Arc};

use tower::BoxError;

use super::limiter::Place;
use crate::{
    Error, Reason, context,
    error::ErrorsFail,
    outcome::{Classify, Verdict},
    track::{Ends, Guard, Track},
};

/// Judges answers, and keeps places until the answer or until its body ends; made by a
/// [`ConcurrencyLimitLayer`](super::ConcurrencyLimitLayer).
pub trait Judges<Res>: Clone {
    #[doc(hidden)]
    fn end(&self, place: Held, result: &mut Result<Res, BoxError>);
}

/// A place in a limit, for a [`Judges`] to end.
#[derive(Debug)]
pub struct Held(pub(super) Place);

/// Judges by a classifier; a place is given back with the head of the response.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtHead<C = ErrorsFail>(pub(super) C);

impl<Res, C: Classify<Res> + Clone> Judges<Res> for AtHead<C> {
    #[inline]
    fn end(&self, mut held: Held, result: &mut Result<Res, BoxError>) {
        show(&mut held.0, &self.0, result);
        held.0.over();
    }
}

/// Judges by a classifier; a place is given back when the body of the response has ended.
pub struct AtEnd<Res, C = ErrorsFail>(pub(super) C, pub(super) Arc<dyn Track<Res>>);

impl<Res: 'static, C: Classify<Res> + Clone> Judges<Res> for AtEnd<Res, C> {
    fn end(&self, mut held: Held, result: &mut Result<Res, BoxError>) {
        let verdict = show(&mut held.0, &self.0, result);
        if let Ok(response) = result {
            self.1.track(response, Guard::new(Arc::new(Streaming(held.0)), verdict));
        }
    }
}

impl<Res, C: Clone> Clone for AtEnd<Res, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1.clone())
    }
}

impl<Res, C> fmt::Debug for AtEnd<Res, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtEnd").finish_non_exhaustive()
    }
}

/// Latency is time to the head, whatever becomes of the body.
#[inline]
fn show<Res>(place: &mut Place, classify: &impl Classify<Res>, result: &Result<Res, BoxError>) -> Verdict {
    let (verdict, unread) = context::judged(|| classify.classify(result.as_ref()));
    if unread {
        // What is further in has not read the clock when the answer came.
        context::forget_now();
    }
    place.show(verdict, timed_out(result));
    verdict
}

/// Whether the limit of an attempt cut a request off.
pub(crate) fn timed_out<Res>(result: &Result<Res, BoxError>) -> bool {
    let ours = result.as_ref().err().and_then(|error| Error::find(&**error));
    ours.is_some_and(|error| error.reason() == Reason::AttemptTimeout)
}

/// A place of a response whose body is being read.
struct Streaming(#[expect(dead_code, reason = "held until it is dropped")] Place);

impl Ends for Streaming {
    fn ended(self: Arc<Self>, _: Verdict, _: Option<Verdict>) {}
}
