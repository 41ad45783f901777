//! When a registry that was lost is tried again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{backoff::Backoff, clock, random::Random};

/// How long a connection must have stood to count as one that stands: a server that accepts and breaks off at once is
/// tried ever less often.
const STANDS: Duration = Duration::from_secs(10);

/// The rests between connections of one client to its registry. Even the first is drawn by chance, so that clients that
/// lost a server together do not come back together.
pub(crate) struct Pace {
    backoff: Backoff,
    random: Arc<dyn Random>,
    failures: u32,
    rest: Duration,
    stands: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(backoff: Backoff, random: Arc<dyn Random>) -> Self {
        Self { backoff, random, failures: 0, rest: Duration::ZERO, stands: None }
    }

    /// What was asked of the registry was done.
    pub(crate) fn stands(&mut self) {
        self.stands.get_or_insert_with(clock::now);
    }

    /// Rests after a failure.
    pub(crate) async fn rest(&mut self) {
        tokio::time::sleep(self.next(clock::now())).await;
    }

    fn next(&mut self, now: Instant) -> Duration {
        let stood = self.stands.take().map(|since| now.saturating_duration_since(since));
        if stood.is_some_and(|stood| stood >= STANDS) {
            (self.failures, self.rest) = (0, Duration::ZERO);
        }
        self.failures = self.failures.saturating_add(1);
        self.rest = self.backoff.delay(self.failures, self.rest, &*self.random);
        self.rest
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;
    use crate::{backoff::Jitter, random::Seeded};

    #[test]
    fn rests_grow_until_a_connection_has_stood() {
        const SECOND: Duration = Duration::from_secs(1);
        let backoff = Backoff::exponential(SECOND).cap(SECOND * 8).jitter(Jitter::None);
        let (mut pace, now) = (Pace::new(backoff, Arc::new(Seeded::new(1))), clock::now());
        let rests: Vec<_> = (0..5).map(|_| pace.next(now).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 8]);
        pace.stands = Some(now);
        assert_eq!(pace.next(now + SECOND).as_secs(), 8, "one that broke at once");
        pace.stands = Some(now);
        assert_eq!(pace.next(now + STANDS).as_secs(), 1);
    }

    #[test]
    fn those_who_lost_a_server_together_come_back_apart() {
        let tenth = Duration::from_millis(100);
        let backoff = Backoff::exponential(tenth).cap(tenth * 300);
        let random: Arc<dyn Random> = Arc::new(Seeded::new(7));
        let mut came = [0; 60];
        for _ in 0..1_000 {
            // The server is away for 3 s, and takes whoever comes after that.
            let (mut pace, mut at) = (Pace::new(backoff, random.clone()), Duration::ZERO);
            while at < Duration::from_secs(3) {
                at += pace.next(clock::now());
            }
            let tenth = (at.as_millis() - 3_000) / 100;
            came[usize::try_from(tenth).unwrap().min(59)] += 1;
        }
        assert!(
            came.iter().all(|tenth| *tenth <= 100),
            "at most a tenth of them in a tenth of a second: {came:?}"
        );
    }
}
