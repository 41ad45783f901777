//! A figure that is dear to take, kept for a tenth of a second.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Keeps a figure that is read from thousands of counters, so that it is taken at most every 100 ms.
///
/// One word: in its high half the tenth of a second since the epoch, plus 1, in its low half the figure, plus 1; 0 there is
/// nothing. Of several that find it out of date at once each takes it anew.
#[derive(Debug, Default)]
pub(crate) struct Memo(AtomicU64);

impl Memo {
    /// The figure, up to 4 billion, as it was within the last 100 ms; that there is none is kept as well.
    pub(crate) fn get(
        &self,
        epoch: Instant,
        now: Instant,
        take: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        let tick = tick(epoch, now);
        let word = self.0.load(Relaxed);
        if word >> 32 == tick {
            return (word & LOW).checked_sub(1);
        }
        let figure = take().map(|figure| figure.min(LOW - 1));
        self.0.store(tick << 32 | figure.map_or(0, |figure| figure + 1), Relaxed);
        figure
    }

    /// The same of a time, to the microsecond. That nothing is known is not kept: it may change with the next answer.
    pub(crate) fn time(
        &self,
        epoch: Instant,
        now: Instant,
        take: impl FnOnce() -> Option<Duration>,
    ) -> Option<Duration> {
        let tick = tick(epoch, now);
        let word = self.0.load(Relaxed);
        if word >> 32 == tick && word & LOW != 0 {
            return Some(Duration::from_micros((word & LOW) - 1));
        }
        let micros = u64::try_from(take()?.as_micros()).unwrap_or(LOW).clamp(1, LOW - 1);
        self.0.store(tick << 32 | (micros + 1), Relaxed);
        Some(Duration::from_micros(micros))
    }
}

const LOW: u64 = 0xFFFF_FFFF;

fn tick(epoch: Instant, now: Instant) -> u64 {
    (now.saturating_duration_since(epoch).as_millis() as u64 / 100 + 1) & LOW
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_figure_is_taken_once_in_a_tenth_of_a_second_and_so_is_none() {
        let (epoch, memo) = (crate::clock::now(), Memo::default());
        assert_eq!(memo.get(epoch, epoch, || Some(7)), Some(7));
        assert_eq!(memo.get(epoch, epoch + 99 * MS, || unreachable!("it is fresh")), Some(7));
        assert_eq!(memo.get(epoch, epoch + 100 * MS, || None), None);
        assert_eq!(memo.get(epoch, epoch + 199 * MS, || unreachable!("that there is none is kept")), None);
        assert_eq!(memo.get(epoch, epoch + 200 * MS, || Some(u64::MAX)), Some(LOW - 1));
    }

    #[test]
    fn a_time_that_is_not_known_is_asked_for_again() {
        let (epoch, memo) = (crate::clock::now(), Memo::default());
        assert_eq!(memo.time(epoch, epoch, || None), None);
        assert_eq!(memo.time(epoch, epoch, || Some(3 * MS)), Some(3 * MS));
        assert_eq!(memo.time(epoch, epoch, || unreachable!("it is fresh")), Some(3 * MS));
        assert_eq!(memo.time(epoch, epoch + 100 * MS, || Some(Duration::ZERO)), Some(MS / 1_000));
    }
}
