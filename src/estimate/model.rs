//! Every interleaving of a few records and reads.

use std::{sync::Arc, time::Duration};

use loom::thread;

use super::{Decay, FadingMean, PeakEwma, Recent, SuccessRate};
use crate::Outcome;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_worst_of_two_samples_at_once_wins() {
    loom::model(|| {
        let epoch = crate::clock::now();
        let at = Decay::new(epoch, SECOND).at(epoch);
        let ewma = Arc::new(PeakEwma::new());
        let threads = [5, 9].map(|millis| {
            let ewma = ewma.clone();
            thread::spawn(move || ewma.observe(at, MS * millis))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ewma.value(at), Some(9e6));
    });
}

#[test]
fn of_two_samples_at_once_none_is_lost_from_the_mean() {
    loom::model(|| {
        let epoch = crate::clock::now();
        let at = Decay::half_life(epoch, SECOND).at(epoch);
        let mean = Arc::new(FadingMean::new());
        let threads = [10, 30].map(|millis| {
            let mean = mean.clone();
            thread::spawn(move || mean.observe(at, MS * millis))
        });
        // Whatever is seen meanwhile is of samples that were taken.
        if let Some(known) = mean.known(at) {
            assert!((0.99e7..3.01e7).contains(&known.mean) && known.weight >= 1.0);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let known = mean.known(at).unwrap();
        assert!((1.99e7..2.01e7).contains(&known.mean) && known.weight == 2.0, "{known:?}");
    });
}

#[test]
fn outcomes_at_once_are_all_counted_and_old_ones_never() {
    loom::model(|| {
        let epoch = crate::clock::now();
        let window = Arc::new(SuccessRate::over(SECOND, epoch));
        window.record(epoch, Outcome::Failure);
        let later = epoch + SECOND * 3;
        let threads = [epoch, later, later].map(|now| {
            let window = window.clone();
            thread::spawn(move || window.record(now, Outcome::Failure))
        });
        assert!(window.counts(later).1 <= 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(window.counts(later), (0, 2));
    });
}

#[test]
fn a_half_that_turns_never_shows_its_old_counts() {
    loom::model(|| {
        let epoch = crate::clock::now();
        let recent = Arc::new(Recent::new(epoch, SECOND));
        (0..5).for_each(|_| recent.record(epoch, MS));
        let later = epoch + SECOND * 2;
        let threads = [(); 2].map(|()| {
            let recent = recent.clone();
            thread::spawn(move || recent.record(later, MS))
        });
        assert!(recent.counts(later).total() <= 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // The loser of the race to clear may have dropped its record.
        assert!((1..=2).contains(&recent.counts(later).total()));
    });
}
