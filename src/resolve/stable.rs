//! Losses that are not believed at once.

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::task::coop::poll_proceed;

use super::{Endpoints, Resolution, Resolve};
use crate::{Endpoint, Invalid, Ratio, alarm::Alarm, clock, invalid::Check};

/// When losses are believed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StableOptions {
    /// How long an endpoint that is not told any more stays \[10 s\]. One that is dead is set aside by its health
    /// meanwhile.
    pub removal: Duration,
    /// The largest share of the endpoints that may be gone at once \[50 %\]. A set that lost more is not believed, nor is
    /// an empty one, nor that the name is absent.
    pub loss: Ratio,
    /// How long a set that is not believed must be insisted on \[1 min\]. Then it is taken. A registry that fails
    /// meanwhile does not insist: it has to say so again, or nothing else for as long.
    pub insist: Duration,
}

impl StableOptions {
    /// Sets [`removal`](Self::removal). 0 removes at once.
    pub const fn removal(mut self, removal: Duration) -> Self {
        self.removal = removal;
        self
    }

    /// Sets [`loss`](Self::loss).
    pub const fn loss(mut self, loss: Ratio) -> Self {
        self.loss = loss;
        self
    }

    /// Sets [`insist`](Self::insist).
    pub const fn insist(mut self, insist: Duration) -> Self {
        self.insist = insist;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with each option that breaks its rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        Check::of(|check| {
            check.part("stable", |check| {
                let removal = self.removal.max(Duration::from_nanos(1));
                check.duration("removal", removal).duration("insist", self.insist);
            });
        })
    }
}

impl Default for StableOptions {
    fn default() -> Self {
        Self {
            removal: Duration::from_secs(10),
            loss: Ratio::percent::<50>(),
            insist: Duration::from_secs(60),
        }
    }
}

/// Decides which losses are believed: the algorithm alone.
///
/// Endpoints that come, and changes of those that stay, are believed at once, unless they come with a loss that is not.
#[derive(Debug)]
pub struct Keeper {
    options: StableOptions,
    /// Those of the last set that was believed.
    present: Vec<Arc<Endpoint>>,
    /// Those that were in one before, and since when they are not.
    leaving: Vec<(Instant, Arc<Endpoint>)>,
    doubted: Option<Doubt>,
}

/// What is not believed.
#[derive(Debug)]
struct Doubt {
    since: Instant,
    /// When the registry failed last, if it has not said the like after it.
    failed: Option<Instant>,
    resolution: Resolution,
}

impl Keeper {
    /// Nothing is known yet.
    pub fn new(options: StableOptions) -> Self {
        Self { options, present: Vec::new(), leaving: Vec::new(), doubted: None }
    }

    /// Takes a resolution in. What is to be told in its place, if anything.
    pub fn take(&mut self, now: Instant, resolution: Resolution) -> Option<Resolution> {
        let size = match &resolution {
            Resolution::Pending | Resolution::Failed(_) => {
                if let Some(doubt) = &mut self.doubted {
                    doubt.failed = Some(now);
                }
                return Some(resolution);
            }
            Resolution::Bound(set) => set.len(),
            Resolution::Absent => 0,
        };
        let least = self.present.len() as f64 * (1.0 - self.options.loss.get());
        let is_believed = self.present.is_empty() || (size > 0 && size as f64 >= least);
        let since = self.doubted.take().map_or(now, |doubt| doubt.since);
        if is_believed || since + self.options.insist <= now {
            return Some(self.believe(now, resolution));
        }
        let cause = Doubted { size, of: self.present.len(), insist: self.options.insist };
        self.doubted = Some(Doubt { since, failed: None, resolution });
        Some(Resolution::Failed(Arc::new(cause)))
    }

    /// Does what time has brought. What is to be told then, if anything.
    pub fn due(&mut self, now: Instant) -> Option<Resolution> {
        let insist = self.options.insist;
        if let Some(doubt) = self.doubted.take_if(|doubt| doubt.last() + insist <= now) {
            return Some(self.believe(now, doubt.resolution));
        }
        let (removal, before) = (self.options.removal, self.leaving.len());
        self.leaving.retain(|(since, _)| *since + removal > now);
        (self.leaving.len() < before).then(|| self.whole())
    }

    /// When [`due`](Self::due) will have something to do.
    pub fn next(&self) -> Option<Instant> {
        let removal = self.leaving.iter().map(|(since, _)| *since + self.options.removal).min();
        let insisted = self.doubted.as_ref().map(|doubt| doubt.last() + self.options.insist);
        removal.into_iter().chain(insisted).min()
    }

    fn believe(&mut self, now: Instant, resolution: Resolution) -> Resolution {
        self.doubted = None;
        let set = match resolution {
            Resolution::Bound(set) if !set.is_empty() => set,
            // That nothing is left was insisted on, or there was nothing: it is told as it is.
            other => {
                self.present.clear();
                self.leaving.clear();
                return other;
            }
        };
        // By their addresses: one that has another instance now must not get requests as the old one, too.
        let here: HashSet<_> = set.iter().map(|endpoint| endpoint.address()).collect();
        self.leaving.retain(|(_, endpoint)| !here.contains(endpoint.address()));
        if !self.options.removal.is_zero() {
            let lost = self.present.iter().filter(|endpoint| !here.contains(endpoint.address()));
            self.leaving.extend(lost.map(|endpoint| (now, endpoint.clone())));
        }
        self.present = set.to_vec();
        self.whole()
    }

    fn whole(&self) -> Resolution {
        let leaving = self.leaving.iter().map(|(_, endpoint)| endpoint);
        let all: Endpoints = self.present.iter().chain(leaving).cloned().collect();
        Resolution::Bound(all)
    }
}

impl Doubt {
    /// From when on it is insisted on.
    fn last(&self) -> Instant {
        self.failed.unwrap_or(self.since)
    }
}

/// Too many endpoints were gone at once.
#[derive(Debug, thiserror::Error)]
#[error("only {size} of {of} endpoints are left: not believed until it was insisted on for {insist:?}")]
struct Doubted {
    size: usize,
    of: usize,
    insist: Duration,
}

/// Another resolver whose losses are not believed at once: what [`ResolveExt::stable`](super::ResolveExt::stable) makes.
#[derive(Debug)]
pub struct Stable<R> {
    resolver: R,
    ended: bool,
    keeper: Keeper,
    alarm: Alarm,
}

impl<R: Resolve> Stable<R> {
    pub(super) fn new(resolver: R, options: StableOptions) -> Self {
        Self { resolver, ended: false, keeper: Keeper::new(options), alarm: Alarm::default() }
    }
}

impl<R: Resolve> Resolve for Stable<R> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Resolution>> {
        let budget = ready!(poll_proceed(cx));
        while !self.ended {
            match self.resolver.poll_next(cx) {
                Poll::Ready(Some(resolution)) => {
                    if let Some(told) = self.keeper.take(clock::now(), resolution) {
                        budget.made_progress();
                        return Poll::Ready(Some(told));
                    }
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        while self.alarm.poll(cx, self.keeper.next()) {
            if let Some(told) = self.keeper.due(clock::now()) {
                budget.made_progress();
                return Poll::Ready(Some(told));
            }
        }
        if self.ended && self.keeper.next().is_none() { Poll::Ready(None) } else { Poll::Pending }
    }

    fn refresh(&mut self) {
        if !self.ended {
            self.resolver.refresh();
        }
    }

    fn describe(&self) -> String {
        format!("stable {}", self.resolver.describe())
    }

    fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.absorb("", self.resolver.validate()).absorb("", self.keeper.options.validate());
        check.finish()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;

    use super::*;
    use crate::resolve::{self, ResolveExt as _};

    const SECOND: Duration = Duration::from_secs(1);

    fn set(names: std::ops::Range<u8>) -> Resolution {
        Resolution::bound(names.map(|name| format!("10.0.0.{name}:80")))
    }

    fn size(told: Option<Resolution>) -> Option<usize> {
        match told {
            Some(Resolution::Bound(set)) => Some(set.len()),
            _ => None,
        }
    }

    #[test]
    fn an_endpoint_that_is_gone_stays_for_a_while() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        assert_eq!(size(keeper.take(start, set(0..4))), Some(4));
        assert_eq!(size(keeper.take(start, set(1..5))), Some(5), "one came and one is going");
        assert_eq!(size(keeper.take(start + SECOND, set(2..5))), Some(5));
        assert_eq!(keeper.next(), Some(start + 10 * SECOND));
        assert_eq!(size(keeper.due(start + 10 * SECOND)), Some(4));
        assert_eq!(size(keeper.due(start + 11 * SECOND)), Some(3));
        assert_eq!(keeper.next(), None);
    }

    #[test]
    fn one_that_returns_in_time_was_never_gone() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        keeper.take(start, set(0..4));
        keeper.take(start, set(1..4));
        assert_eq!(size(keeper.take(start + SECOND, set(0..4))), Some(4));
        assert_eq!(keeper.next(), None);
    }

    #[test]
    fn an_address_that_has_another_instance_now_is_not_kept_beside_it() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        let instance = |id: &str| Resolution::bound([Endpoint::new("10.0.0.1:80").with_instance(id)]);
        keeper.take(start, instance("i-1"));
        assert_eq!(size(keeper.take(start, instance("i-2"))), Some(1), "it would get two shares");
    }

    #[test]
    fn a_set_that_lost_too_much_is_taken_only_when_it_is_insisted_on() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        keeper.take(start, set(0..10));
        let Some(Resolution::Failed(cause)) = keeper.take(start, set(0..4)) else {
            panic!("believed at once that six of ten are gone")
        };
        let told = "only 4 of 10 endpoints are left: not believed until it was insisted on for 60s";
        assert_eq!(cause.to_string(), told);
        keeper.take(start + 30 * SECOND, set(0..3));
        assert_eq!(keeper.next(), Some(start + 60 * SECOND), "counted from the first doubt");
        assert_eq!(size(keeper.due(start + 60 * SECOND)), Some(10), "the lost ones still have their delay");
        assert_eq!(size(keeper.due(start + 70 * SECOND)), Some(3));
    }

    #[test]
    fn a_doubt_is_forgotten_when_the_endpoints_are_back() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        keeper.take(start, set(0..10));
        assert!(size(keeper.take(start, Resolution::Absent)).is_none());
        assert_eq!(size(keeper.take(start + SECOND, set(0..5))), Some(10));
        assert_eq!(keeper.next(), Some(start + 11 * SECOND), "only removals are left to do");
    }

    #[test]
    fn a_registry_that_fails_does_not_insist() {
        let away = || Resolution::Failed(Arc::new(std::io::Error::other("away")));
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        keeper.take(start, set(0..10));
        keeper.take(start, set(0..0));
        keeper.take(start + 50 * SECOND, away());
        assert_eq!(keeper.next(), Some(start + 110 * SECOND), "it may have been wrong, and says no more");
        assert!(keeper.due(start + 60 * SECOND).is_none());
        assert_eq!(size(keeper.take(start + 80 * SECOND, set(0..0))), Some(0), "it says so still");
        keeper.take(start + 80 * SECOND, set(0..10));
        keeper.take(start + 80 * SECOND, Resolution::Absent);
        keeper.take(start + 90 * SECOND, away());
        let told = keeper.due(start + 150 * SECOND);
        assert!(matches!(told, Some(Resolution::Absent)), "it is silent, and no more said");
    }

    #[test]
    fn that_nothing_is_left_is_told_in_the_end() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        keeper.take(start, set(0..3));
        keeper.take(start, Resolution::Absent);
        assert!(matches!(keeper.due(start + 60 * SECOND), Some(Resolution::Absent)));
        assert_eq!(size(keeper.take(start + 61 * SECOND, set(0..1))), Some(1));
    }

    #[test]
    fn with_nothing_to_lose_everything_is_believed() {
        let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
        assert!(matches!(keeper.take(start, Resolution::Absent), Some(Resolution::Absent)));
        assert_eq!(size(keeper.take(start, set(0..0))), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn time_alone_removes() {
        let (feed, fed) = resolve::channel();
        let mut stable = fed.stable(StableOptions::default());
        feed.set(["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(size(poll_fn(|cx| stable.poll_next(cx)).await), Some(2));
        feed.set(["10.0.0.1:80"]);
        drop(feed);
        assert_eq!(size(poll_fn(|cx| stable.poll_next(cx)).await), Some(2));
        let before = clock::now();
        assert_eq!(size(poll_fn(|cx| stable.poll_next(cx)).await), Some(1));
        assert_eq!((clock::now() - before).as_secs(), 10);
        assert!(poll_fn(|cx| stable.poll_next(cx)).await.is_none());
    }

    proptest! {
        /// Whatever is told, and whenever: what is passed on has every endpoint of the last believed set, none that was
        /// not told within the delay, and none twice; and time alone ends at the truth.
        #[test]
        fn what_is_kept_was_there_and_what_is_there_is_kept(
            told in proptest::collection::vec((0_u8..20, 0_u8..20, 0_u64..30), 1..40),
        ) {
            let (start, mut keeper) = (clock::now(), Keeper::new(StableOptions::default()));
            let (mut at, mut last) = (start, 0);
            for (from, count, rest) in told {
                at += Duration::from_secs(rest);
                while let Some(due) = keeper.next().filter(|due| *due <= at) {
                    keeper.due(due);
                }
                if let Some(Resolution::Bound(set)) = keeper.take(at, set(from..from + count)) {
                    let all: HashSet<_> = set.iter().map(|endpoint| endpoint.identity().clone()).collect();
                    prop_assert_eq!(all.len(), set.len());
                    prop_assert!(set.len() >= usize::from(count));
                }
                last = usize::from(count);
            }
            let mut end = None;
            while let Some(due) = keeper.next() {
                prop_assert!(due >= at);
                end = keeper.due(due).or(end);
            }
            prop_assert_eq!(keeper.present.len(), last);
            prop_assert!(keeper.leaving.is_empty());
        }
    }
}
