//! Endpoints from a function of the application's that is asked from time to time.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower::BoxError;

use super::{
    PollOptions, Resolution, Resolve,
    periodic::{Periodic, Told},
};
use crate::{Invalid, random::Random};

/// Asks `ask` every `interval`, spread by \[10 %\]; see [`PollOptions`] for the rest.
///
/// What it answers is a whole set, as a `Vec` of anything that makes an endpoint, or any [`Resolution`]. The next answer
/// is asked for after the last has come, so no two look-ups of one resolver run at once. Dropping the resolver drops
/// the look-up under way.
///
/// ```
/// use std::time::Duration;
/// use mainstay::resolve;
/// use tower::BoxError;
///
/// let shards = resolve::poll(Duration::from_secs(10), || async {
///     // ask a registry here
///     Ok::<_, BoxError>(vec!["10.0.0.1:80", "10.0.0.2:80"])
/// });
/// # let _ = shards;
/// ```
pub fn poll<F, A, R, E>(interval: Duration, mut ask: F) -> Polled
where
    F: FnMut() -> A + Send + 'static,
    A: Future<Output = Result<R, E>> + Send + 'static,
    R: Into<Resolution>,
    E: Into<BoxError>,
{
    let options = PollOptions::default().interval(interval);
    Polled(Periodic::new(options, move || {
        let answer = ask();
        Box::pin(async {
            match answer.await {
                Ok(found) => Told::from(found.into()),
                Err(error) => Resolution::Failed(Arc::from(error.into())).into(),
            }
        })
    }))
}

/// The resolver made by [`poll`].
#[derive(Debug)]
pub struct Polled(Periodic);

impl Polled {
    /// Replaces all the options, the interval among them.
    #[must_use]
    pub fn options(mut self, options: PollOptions) -> Self {
        self.0.set_options(options);
        self
    }

    /// Draws jitter from `random` instead of [`Entropy`](crate::random::Entropy).
    #[must_use]
    pub fn random(mut self, random: impl Random) -> Self {
        self.0.set_random(Arc::new(random));
        self
    }
}

impl Resolve for Polled {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        if self.0.is_new()
            && let Err(invalid) = self.validate()
        {
            return self.0.refuse(invalid);
        }
        self.0.poll(cx)
    }

    fn refresh(&mut self) {
        self.0.refresh();
    }

    fn describe(&self) -> String {
        format!("asked every {:?}", self.0.options().interval)
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.0.options().validate()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Instant,
    };

    use super::*;
    use crate::{Ratio, backoff::Backoff, clock, random::Seeded};

    const SECOND: Duration = Duration::from_secs(1);

    fn plain() -> PollOptions {
        PollOptions::default()
            .interval(SECOND * 30)
            .jitter(Ratio::ZERO)
            .backoff(Backoff::exponential(SECOND).jitter(crate::backoff::Jitter::None).cap(SECOND * 4))
    }

    /// A resolver that notes when it asks, and succeeds or fails as `answers` says for the number of the look-up.
    fn noting(answers: fn(usize) -> bool) -> (Polled, Arc<Mutex<Vec<Instant>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let polled = poll(SECOND, move || {
            let mut noted = noted.lock().unwrap();
            noted.push(clock::now());
            let answer = if answers(noted.len()) { Ok(vec!["a:1"]) } else { Err("registry down") };
            async { answer }
        });
        (polled.options(plain()), asked)
    }

    async fn next(polled: &mut Polled) -> Resolution {
        poll_fn(|cx| polled.poll_next(cx)).await.unwrap()
    }

    fn is_pending(polled: &mut Polled) -> bool {
        polled.poll_next(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    fn rests(asked: &Mutex<Vec<Instant>>) -> Vec<u64> {
        let asked = asked.lock().unwrap();
        asked.windows(2).map(|two| two[1].saturating_duration_since(two[0]).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_at_once_and_then_every_interval() {
        let (mut polled, asked) = noting(|_| true);
        let start = clock::now();
        for _ in 0..3 {
            assert!(matches!(next(&mut polled).await, Resolution::Bound(set) if set.len() == 1));
        }
        assert_eq!(asked.lock().unwrap()[0], start);
        assert_eq!(rests(&asked), [30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn rests_are_spread_around_the_interval_and_never_beyond_the_jitter() {
        let (polled, asked) = noting(|_| true);
        let mut polled = polled.options(plain().jitter(Ratio::percent::<10>())).random(Seeded::new(3));
        for _ in 0..200 {
            next(&mut polled).await;
        }
        let rests = rests(&asked);
        assert!(rests.iter().all(|rest| (27..=33).contains(rest)), "{rests:?}");
        assert!(rests.contains(&27) && rests.contains(&32), "{rests:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_a_success_goes_back_to_the_interval() {
        let (mut polled, asked) = noting(|look_up| look_up > 4);
        for _ in 0..4 {
            assert!(
                matches!(next(&mut polled).await, Resolution::Failed(cause) if cause.to_string() == "registry down")
            );
        }
        next(&mut polled).await;
        next(&mut polled).await;
        assert_eq!(rests(&asked), [1, 2, 4, 4, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn asked_for_early_look_ups_keep_to_the_floor() {
        let (mut polled, asked) = noting(|_| true);
        next(&mut polled).await;
        let waiting = tokio::spawn(async move {
            assert!(is_pending(&mut polled));
            for _ in 0..100 {
                polled.refresh();
            }
            next(&mut polled).await;
            tokio::time::sleep(SECOND * 7).await;
            polled.refresh();
            next(&mut polled).await;
        });
        waiting.await.unwrap();
        assert_eq!(rests(&asked), [5, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_for_an_early_look_up_wakes_whoever_waits() {
        let (mut polled, asked) = noting(|_| true);
        next(&mut polled).await;
        let polled = Mutex::new(polled);
        let (refresh, resolve) = (
            async {
                tokio::time::sleep(SECOND).await;
                polled.lock().unwrap().refresh();
            },
            poll_fn(|cx| polled.lock().unwrap().poll_next(cx)),
        );
        tokio::join!(resolve, refresh);
        assert_eq!(rests(&asked), [5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_back_off_is_not_cut_short() {
        let (polled, asked) = noting(|_| false);
        let mut polled = polled.options(plain().backoff(Backoff::fixed(SECOND * 20)));
        next(&mut polled).await;
        polled.refresh();
        next(&mut polled).await;
        assert_eq!(rests(&asked), [20]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_in_time_is_a_failure_and_polling_goes_on() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let mut polled = poll(SECOND, move || {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { pending().await } else { Ok::<_, BoxError>(vec!["a:1"]) } }
        });
        let start = clock::now();
        let Resolution::Failed(cause) = next(&mut polled).await else { panic!("an answer out of nowhere") };
        assert_eq!(cause.to_string(), "the look-up took longer than 5s");
        assert_eq!(clock::now().saturating_duration_since(start), SECOND * 5);
        assert!(matches!(next(&mut polled).await, Resolution::Bound(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_it_drops_the_look_up_under_way() {
        let under_way = Arc::new(());
        let held = under_way.clone();
        let mut polled = poll(SECOND, move || {
            let held = held.clone();
            async move {
                let _held = held;
                pending::<Result<Vec<&str>, BoxError>>().await
            }
        });
        assert!(is_pending(&mut polled));
        assert_eq!(Arc::strong_count(&under_way), 3);
        drop(polled);
        assert_eq!(Arc::strong_count(&under_way), 1);
    }

    #[test]
    fn it_goes_on_when_its_runtime_has_ended() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
        };
        let (mut polled, asked) = noting(|_| true);
        for _ in 0..2 {
            runtime().block_on(async {
                next(&mut polled).await;
                assert!(is_pending(&mut polled));
            });
        }
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn options_that_do_not_hold_together_are_told_at_once_and_nothing_is_asked() {
        let (polled, asked) = noting(|_| true);
        let bad = plain().interval(Duration::ZERO).jitter(Ratio::ONE).backoff(Backoff::fixed(Duration::ZERO));
        let mut polled = polled.options(bad);
        assert_eq!(polled.validate().unwrap_err().problems().len(), 3);
        assert!(matches!(next(&mut polled).await, Resolution::Failed(_)));
        assert!(poll_fn(|cx| polled.poll_next(cx)).await.is_none());
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn any_resolution_may_be_the_answer() {
        let mut polled = poll(SECOND, || async { Ok::<_, BoxError>(Resolution::Absent) });
        assert!(matches!(next(&mut polled).await, Resolution::Absent));
    }
}
