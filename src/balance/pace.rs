//! How fast a client as a whole redials.

use std::time::{Duration, Instant};

use crate::random::{Random, unit};

/// As many as this are redialled without waiting for each other: an endpoint or two that are gone are none of a storm's.
const BURST: u32 = 4;
/// However few endpoints there are, they wait no longer for each other.
const LONGEST: Duration = Duration::from_secs(3);

/// Spaces the redials of one client.
///
/// Each endpoint has a backoff of its own, which knows nothing of the others. Where a whole fleet restarts, a client of
/// many endpoints knocks as often as many clients: with exponential waits of factor 2 some `1.4 n / t` times a second, `t`
/// after the fleet went away. One connection is enough to work with, so the others can take turns: all `n` endpoints of a
/// client are redialled over at least `spread`.
///
/// A leaky bucket as a meter ("GCRA"), with intervals spread by half so that clients that lost their fleet at the same
/// instant do not march in step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the redials so far would have been over, had each taken its interval.
    spoken_for: Option<Instant>,
}

impl Pace {
    /// When the next redial may begin, if not now. `endpoints` are all that the client has.
    pub(super) fn next(&self, now: Instant, endpoints: usize, spread: Duration) -> Option<Instant> {
        let ahead = interval(endpoints, spread) * (BURST - 1);
        let at = self.spoken_for?.checked_sub(ahead)?;
        (at > now).then_some(at)
    }

    /// Takes a redial that begins now into account.
    pub(super) fn began(&mut self, now: Instant, endpoints: usize, spread: Duration, random: &dyn Random) {
        let interval = interval(endpoints, spread).mul_f64(0.5 + unit(random.next()));
        let from = self.spoken_for.map_or(now, |at| at.max(now));
        self.spoken_for = Some(from + interval);
    }
}

fn interval(endpoints: usize, spread: Duration) -> Duration {
    (spread / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    const SPREAD: Duration = Duration::from_secs(30);

    /// The times of `count` redials that all want to begin at once, in seconds.
    fn times(count: usize, endpoints: usize, spread: Duration) -> Vec<f64> {
        let (start, random, mut pace) = (crate::clock::now(), Seeded::new(3), Pace::default());
        let mut now = start;
        let dial = |_| {
            now = pace.next(now, endpoints, spread).unwrap_or(now);
            pace.began(now, endpoints, spread, &random);
            now.saturating_duration_since(start).as_secs_f64()
        };
        (0..count).map(dial).collect()
    }

    #[test]
    fn a_few_begin_at_once_and_all_take_about_the_spread() {
        let times = times(100, 100, SPREAD);
        assert!(times[2] == 0.0 && times[99] > 25.0 && times[99] < 33.0, "{times:?}");
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn one_endpoint_waits_for_others_a_few_seconds_at_most() {
        let times = times(12, 1, SPREAD);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 4.5 + 1e-9), "{times:?}");
        assert!(times[11] > 15.0);
    }

    #[test]
    fn without_a_spread_nobody_waits() {
        assert!(times(50, 10, Duration::ZERO).iter().all(|at| *at == 0.0));
    }

    #[test]
    fn a_pause_gives_no_more_than_the_burst() {
        let (mut now, random, mut pace) = (crate::clock::now(), Seeded::new(3), Pace::default());
        now += Duration::from_secs(3_600);
        let mut at_once = 0;
        while pace.next(now, 100, SPREAD).is_none() {
            pace.began(now, 100, SPREAD, &random);
            at_once += 1;
        }
        assert!((3..=6).contains(&at_once), "{at_once}");
    }
}
