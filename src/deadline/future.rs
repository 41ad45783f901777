//! A future that is cut off when its time is over.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project::{pin_project, pinned_drop};
use tower::BoxError;

use super::fit::{AttemptFit, Measured};
use crate::{
    context::{self, EnterInherited, Timer},
    error::{Error, Reason},
    outcome::Sent,
};

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The time covers everything inside, which inherits it.
    Total,
    /// The time covers one attempt, whose limit goes by this, too.
    Attempt(AttemptFit, Option<Arc<Measured>>),
}

impl Kind {
    fn is_total(&self) -> bool {
        matches!(self, Self::Total)
    }

    fn reason(&self) -> Reason {
        if self.is_total() { Reason::Deadline } else { Reason::AttemptTimeout }
    }

    /// Notes how long an attempt has lasted that came to an end, where limits go by that.
    fn ended(&self, began: Instant, is_ok: bool) {
        if let Self::Attempt(_, Some(measured)) = self {
            // What a layer further in calls a failure may have come fast, and says nothing of how long answers take.
            let verdict = context::call().and_then(|call| call.verdict);
            let answered = is_ok && verdict.is_none_or(|verdict| verdict.is_success());
            let now = context::fresh_now();
            measured.note(now, now.saturating_duration_since(began), answered);
        }
    }

    /// The same of one that was cut off, or given up.
    fn cut(&self, began: Instant) {
        if let Self::Attempt(_, Some(measured)) = self {
            let now = context::now();
            measured.note(now, now.saturating_duration_since(began), false);
        }
    }
}

/// The future of [`Deadline`](super::Deadline) and [`AttemptLimit`](super::AttemptLimit).
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    /// Dropped as soon as the time is over, so that it stops what it does.
    #[pin]
    inner: Option<F>,
    #[pin]
    timer: Timer,
    kind: Kind,
    time: Duration,
    /// When it was first polled, and when it ends.
    span: Option<(Instant, Instant)>,
}

/// An attempt that is given up had lasted so long at least.
#[pinned_drop]
impl<F> PinnedDrop for ResponseFuture<F> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let (Some((began, _)), Some(_)) = (*this.span, this.inner.as_pin_mut()) {
            this.kind.cut(began);
        }
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, kind: Kind, time: Duration) -> Self {
        Self { inner: Some(inner), timer: Timer::default(), kind, time, span: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut inner, span, kind, time) = (this.inner, this.span, &*this.kind, *this.time);
        this.timer.poll(cx, |cx| {
            let (began, until) = *span.get_or_insert_with(|| begin(kind, time));
            let over = |began: Instant, now: Instant, sent| {
                let lasted = now.saturating_duration_since(began);
                Poll::Ready(Err(Error::new(kind.reason()).with_sent(sent).with_lasted(lasted).into()))
            };
            if until <= began {
                // It was over before it began: the endpoint is not touched.
                inner.set(None);
                return over(began, began, Sent::No);
            }
            let Some(future) = inner.as_mut().as_pin_mut() else { return Poll::Pending };
            let polled = {
                let _inherited =
                    kind.is_total().then(|| EnterInherited::new(context::inherited().with_deadline(until)));
                future.poll(cx)
            };
            if let Poll::Ready(result) = polled {
                inner.set(None);
                kind.ended(began, result.is_ok());
                return Poll::Ready(result.map_err(Into::into));
            }
            let now = context::now();
            if now >= until {
                kind.cut(began);
                inner.set(None);
                return over(began, now, Sent::Maybe);
            }
            context::wake_at(until);
            Poll::Pending
        })
    }
}

/// When the time begins, now, and when it ends.
fn begin(kind: &Kind, time: Duration) -> (Instant, Instant) {
    let now = context::now();
    // A time beyond what the clock can tell is no limit.
    let until = now.checked_add(time).unwrap_or_else(|| now + crate::invalid::FOREVER);
    let earlier = match kind {
        Kind::Total => context::deadline(),
        Kind::Attempt(fit, measured) => {
            fit.expires(now, |share| measured.as_ref().and_then(|measured| measured.latency(now, share)))
        }
    };
    (now, earlier.map_or(until, |earlier| until.min(earlier)))
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };

    use tower::{Service as _, ServiceBuilder, ServiceExt as _, service_fn};

    use super::*;
    use crate::{
        backoff::Backoff,
        budget::{Budget, BudgetOptions},
        clock,
        context::Inherited,
        deadline::{AttemptLimitLayer, Deadline, DeadlineLayer},
        describe::Idempotent,
        retry::{RetryLayer, RetryPolicy},
    };

    const MS: Duration = Duration::from_millis(1);

    fn reason<T>(result: &Result<T, BoxError>) -> Option<Reason> {
        result.as_ref().err().and_then(|error| Error::find(&**error)).map(Error::reason)
    }

    async fn takes(time: Duration) -> Result<(), BoxError> {
        tokio::time::sleep(time).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_cut_off_at_its_time() {
        let start = clock::now();
        let mut service = Deadline::new(service_fn(|()| takes(MS * 900)), MS * 300);
        let result = service.ready().await.unwrap().call(()).await;
        assert_eq!(reason(&result), Some(Reason::Deadline));
        assert_eq!(clock::now() - start, MS * 300);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_the_same_poll_wins() {
        let service = Deadline::new(service_fn(|()| takes(MS * 300)), MS * 300);
        assert!(service.oneshot(()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_the_own_and_the_inherited_deadline_wins_and_is_inherited() {
        let seen = service_fn(|()| async { Ok::<_, BoxError>(context::inherited().deadline()) });
        let start = clock::now();
        let own = Deadline::new(seen, MS * 100);
        let inherited = |millis| Inherited::default().with_deadline(start + MS * millis);
        let shorter = context::scope(inherited(30), own.oneshot(())).await.unwrap();
        assert_eq!(shorter, Some(start + MS * 30));
        let longer = context::scope(inherited(900), own.oneshot(())).await.unwrap();
        assert_eq!(longer, Some(start + MS * 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_does_not_touch_the_service() {
        let calls = Arc::new(AtomicU32::new(0));
        let polled = calls.clone();
        let service = service_fn(move |()| {
            let polled = polled.clone();
            async move {
                polled.fetch_add(1, SeqCst);
                Ok::<_, BoxError>(())
            }
        });
        let past = Inherited::default().with_deadline(clock::now());
        let result = context::scope(past, Deadline::new(service, MS).oneshot(())).await;
        let error = result.unwrap_err();
        let error = Error::find(&*error).unwrap();
        assert_eq!((error.reason(), error.sent(), calls.load(SeqCst)), (Reason::Deadline, Sent::No, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_deadline_and_a_limit_the_nearer_cuts() {
        for (total, limit, expected) in [(50, 80, Reason::Deadline), (80, 50, Reason::AttemptTimeout)] {
            let service = ServiceBuilder::new()
                .layer(DeadlineLayer::new(MS * total))
                .layer(AttemptLimitLayer::new(MS * limit))
                .service(service_fn(|()| takes(MS * 900)));
            assert_eq!(reason(&service.oneshot(()).await), Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_beyond_the_clock_is_no_limit_and_no_panic() {
        let service = Deadline::new(service_fn(|()| takes(MS)), Duration::MAX);
        assert!(service.oneshot(()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn under_retries_each_attempt_gets_a_share_of_what_is_left() {
        let begun = Arc::new(AtomicU32::new(0));
        let seen = begun.clone();
        let hangs = service_fn(move |()| {
            seen.fetch_add(1, SeqCst);
            std::future::pending::<Result<(), BoxError>>()
        });
        let policy = RetryPolicy::default().backoff(Backoff::fixed(Duration::ZERO));
        let budget = Budget::new(BudgetOptions::default().reserve(100)).unwrap();
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::new(MS * 900))
            .layer(RetryLayer::new(policy).unwrap().budget(budget).describe(Idempotent))
            .layer(AttemptLimitLayer::fitted(MS * 3_000, AttemptFit::share()).unwrap())
            .service(hangs);
        let start = clock::now();
        let call = tokio::spawn(service.oneshot(()));
        for expected in 1..=3 {
            tokio::time::sleep_until((start + MS * (300 * expected - 10)).into()).await;
            assert_eq!(begun.load(SeqCst), expected);
        }
        assert_eq!(reason(&call.await.unwrap()), Some(Reason::Deadline));
        assert_eq!(clock::now() - start, MS * 900);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_cut_off_by_what_those_before_took() {
        let takes = Arc::new(AtomicU32::new(20));
        let now = takes.clone();
        let inner = service_fn(move |()| self::takes(MS * now.load(SeqCst)));
        let layer = AttemptLimitLayer::fitted(MS * 3_000, AttemptFit::latency()).unwrap();
        let service = ServiceBuilder::new().layer(layer).service(inner);
        for _ in 0..100 {
            service.clone().oneshot(()).await.unwrap();
        }
        takes.store(900, SeqCst);
        tokio::time::sleep(MS * 100).await;
        let start = clock::now();
        assert_eq!(reason(&service.clone().oneshot(()).await), Some(Reason::AttemptTimeout));
        let took = clock::now() - start;
        assert!((MS * 180..MS * 220).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_are_given_up_are_not_forgotten() {
        let takes = Arc::new(AtomicU32::new(20));
        let now = takes.clone();
        let inner = service_fn(move |()| self::takes(MS * now.load(SeqCst)));
        let layer = AttemptLimitLayer::fitted(MS * 3_000, AttemptFit::latency()).unwrap();
        let service = ServiceBuilder::new().layer(layer).service(inner);
        for _ in 0..100 {
            service.clone().oneshot(()).await.unwrap();
        }
        takes.store(900, SeqCst);
        for _ in 0..150 {
            assert!(tokio::time::timeout(MS * 190, service.clone().oneshot(())).await.is_err());
        }
        assert!(
            service.clone().oneshot(()).await.is_ok(),
            "more than half were cut off: nobody knows the median"
        );
    }

    #[test]
    fn every_mistake_of_a_fit_is_told() {
        let fit = AttemptFit::Latency { percentile: crate::Ratio::ONE, times: 0.5, least: MS * 9_000 };
        let told = AttemptLimitLayer::fitted(MS * 3_000, fit).unwrap_err().to_string();
        for rule in
            ["fit.percentile = ", "fit.times = 0.5: 1 to", "fit.least = 9s: at most attempt_limit (3s)"]
        {
            assert!(told.contains(rule), "{told}");
        }
    }
}
