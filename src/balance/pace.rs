//! How fast a client as a whole redials.

use std::time::{Duration, Instant};

use crate::random::{Random, unit};

/// As many as this are redialled without waiting for each other, and a client of no more endpoints is not held up at all.
const BURST: f64 = 4.0;
/// However few endpoints there are, they wait no longer for each other.
const LONGEST: Duration = Duration::from_secs(3);
/// A connection that was made lets the next begin after so many times as long as it took: as fast as they are accepted, and
/// with a queue before the door no faster than that.
const PATIENCE: u32 = 4;
/// Nobody looks again sooner.
const LEAST: Duration = Duration::from_millis(1);

/// Spaces the redials of one client.
///
/// Each endpoint has a backoff of its own, which knows nothing of the others. Where a whole fleet restarts, a client of many
/// endpoints knocks as often as many clients: with exponential waits of factor 2 some `1.4 n / t` times a second, `t` after
/// the fleet went away. So the endpoints of a client take turns. As long as nobody answers a turn comes when the fleet has been
/// away for twice as long as at the last one, and at the latest after 3 s or the share of an endpoint in `spread`; as soon as one is accepted the next begins
/// after four times as long as that took, so that a fleet which is back at full strength is used at full strength.
///
/// A bucket of tokens, one for each interval, with redials that take half a token to one and a half: clients that lost their
/// fleet at the same instant do not march in step.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: f64,
    /// When there were so many.
    at: Option<Instant>,
    /// Since when none was accepted.
    failing: Option<Instant>,
    /// How long the last one took that was accepted.
    accepted: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { tokens: BURST, at: None, failing: None, accepted: Duration::ZERO }
    }
}

impl Pace {
    /// When the next redial may begin, if not now. `endpoints` are all that the client has.
    pub(super) fn next(&self, now: Instant, endpoints: usize, spread: Duration) -> Option<Instant> {
        if endpoints <= BURST as usize {
            return None;
        }
        let interval = self.interval(now, endpoints, spread);
        let missing = 1.0 - self.tokens(now, interval);
        (missing > 0.0).then(|| now + interval.mul_f64(missing).max(LEAST))
    }

    /// Takes a redial that begins now into account.
    pub(super) fn began(&mut self, now: Instant, endpoints: usize, spread: Duration, random: &dyn Random) {
        let tokens = self.tokens(now, self.interval(now, endpoints, spread));
        self.tokens = tokens - (0.5 + unit(random.next()));
        self.at = Some(now);
    }

    /// A redial has failed, or a connection has broken.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failing.get_or_insert(now);
    }

    /// A connection was made, in so long.
    pub(super) fn connected(&mut self, took: Duration) {
        (self.failing, self.accepted) = (None, took);
    }

    fn tokens(&self, now: Instant, interval: Duration) -> f64 {
        let Some(at) = self.at else { return self.tokens };
        let passed = now.saturating_duration_since(at).as_secs_f64();
        // Nothing passes in no time, and without an interval everything may.
        let more = if interval.is_zero() { BURST } else { passed / interval.as_secs_f64() };
        (self.tokens + more).min(BURST)
    }

    fn interval(&self, now: Instant, endpoints: usize, spread: Duration) -> Duration {
        let longest = (spread / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX)).min(LONGEST);
        let away = self.failing.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // Half of it, so that a turn comes when the fleet has been away for twice as long as at the last one.
        (away / 2).max(self.accepted.saturating_mul(PATIENCE)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    const MS: Duration = Duration::from_millis(1);
    const SPREAD: Duration = Duration::from_secs(30);

    /// The times in seconds at which redials begin that all want to at once and go on until `end`, none of them accepted.
    fn refused(endpoints: usize, spread: Duration, end: Duration) -> Vec<f64> {
        let (start, random, mut pace) = (crate::clock::now(), Seeded::new(3), Pace::default());
        pace.failed(start);
        let (mut now, mut times) = (start, Vec::new());
        while now < start + end && times.len() < 10_000 {
            match pace.next(now, endpoints, spread) {
                Some(at) => now = at.max(now + MS),
                None => {
                    pace.began(now, endpoints, spread, &random);
                    times.push(now.saturating_duration_since(start).as_secs_f64());
                    now += MS;
                }
            }
        }
        times
    }

    #[test]
    fn turns_double_as_long_as_nobody_answers_and_then_take_the_spread() {
        let times = refused(10, SPREAD, MS * 30_000);
        let within = |from: f64, to: f64| times.iter().filter(|at| (from..to).contains(at)).count();
        assert!((1..=3).contains(&within(0.5, 2.0)) && (1..=3).contains(&within(2.0, 6.0)), "{times:?}");
        assert!((4..=9).contains(&within(10.0, 30.0)), "one in three seconds: {times:?}");
        let many = refused(300, SPREAD, MS * 30_000);
        let late = many.iter().filter(|at| **at >= 20.0).count();
        assert!((85..115).contains(&late), "ten a second: {late}");
    }

    #[test]
    fn a_client_of_few_endpoints_is_not_held_up() {
        for endpoints in 1..=4 {
            assert!(refused(endpoints, SPREAD, MS * 2_000).len() > 1_500, "each millisecond");
        }
    }

    #[test]
    fn without_a_spread_nobody_waits() {
        assert!(refused(100, Duration::ZERO, MS * 2_000).len() > 1_500);
    }

    #[test]
    fn once_one_is_accepted_the_others_follow_as_fast_as_that_was() {
        for (took, longest) in [(MS * 2, MS * 1_000), (MS * 200, MS * 45_000)] {
            let (start, random, mut pace) = (crate::clock::now(), Seeded::new(3), Pace::default());
            pace.failed(start);
            let mut now = start + MS * 20_000;
            (0..6).for_each(|_| pace.began(now, 100, SPREAD, &random));
            assert!(pace.next(now, 100, SPREAD).is_some());
            pace.connected(took);
            let back = now;
            for _ in 0..100 {
                now = pace.next(now, 100, SPREAD).unwrap_or(now);
                pace.began(now, 100, SPREAD, &random);
                pace.connected(took);
            }
            let all = now.saturating_duration_since(back);
            assert!(all <= longest, "{took:?}: {all:?}");
        }
    }

    #[test]
    fn a_failure_ends_the_hurry() {
        let (start, random, mut pace) = (crate::clock::now(), Seeded::new(3), Pace::default());
        pace.failed(start);
        pace.connected(MS);
        pace.failed(start + MS * 2);
        let now = start + MS * 10_000;
        (0..8).for_each(|_| pace.began(now, 100, SPREAD, &random));
        assert!(pace.next(now, 100, SPREAD).is_some());
    }
}
