//! Asking endpoints for their load: how often.

use std::time::Duration;

use crate::{
    Ratio,
    invalid::{Check, FOREVER, Invalid},
};

/// How endpoints are asked for their load beside the requests, where somebody says how
/// ([`ClientBuilder::probe`](crate::client::ClientBuilder::probe)) and something goes by
/// [reports](super::BalanceOptions::reports).
///
/// Each time a share of the requests since the last time is asked of endpoints drawn at random, so that one who is given little is heard
/// of too, and a client at rest asks nobody. Each question is an extra request in the budget of the client: without room there, none is
/// asked.
///
/// It is for servers that cannot say it on their answers: in the lab's `noisy_fleet` half a question for each request gives about half of what
/// reports on answers do, and nothing on top of them.
///
/// Source: Prequal, which asks a few times for each request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProbeOptions {
    /// How many are asked, as a share of the requests that are answered \[10 %\]. Beyond the budget's own share (20 %) none is.
    pub share: Ratio,
    /// How often that is looked at \[50 ms\]; in a client at rest once a second at the most.
    pub every: Duration,
    /// How long an answer may take \[100 ms\]. A later one says nothing about now.
    pub timeout: Duration,
    /// How many may be under way at a time \[16\].
    pub most: u32,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            share: Ratio::percent::<10>(),
            every: Duration::from_millis(50),
            timeout: Duration::from_millis(100),
            most: 16,
        }
    }
}

impl ProbeOptions {
    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn share(mut self, share: Ratio) -> Self {
        self.share = share;
        self
    }

    /// Sets [`every`](Self::every).
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`most`](Self::most).
    #[must_use]
    pub fn most(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Invalid`] with all that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        self.check(&mut check);
        check.finish()
    }

    pub(super) fn check(&self, check: &mut Check) {
        let least = Duration::from_millis(10);
        check
            .rule((least..=FOREVER).contains(&self.every), "every", self.every, "10 ms to 10 years")
            .duration("timeout", self.timeout)
            .rule(self.most >= 1, "most", self.most, "at least 1");
    }
}

/// How many questions are due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    /// Answers that were counted when it was last looked.
    counted: u64,
    /// What a share of them left over.
    rest: f64,
}

impl Due {
    /// Whether some have been counted since it was last looked.
    pub(super) fn is_more(&self, answers: u64) -> bool {
        answers > self.counted
    }

    /// How many are due when so many answers have been counted in all. More than `most` are never owed: what was missed is
    /// missed.
    pub(super) fn take(&mut self, answers: u64, share: Ratio, most: usize) -> usize {
        let since = answers.saturating_sub(std::mem::replace(&mut self.counted, answers));
        let owed = self.rest + since as f64 * share.get();
        let due = (owed as usize).min(most);
        self.rest = if owed >= most as f64 { 0.0 } else { owed.fract() };
        due
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_answers_is_due_and_nothing_without_any() {
        let (mut due, share) = (Due::default(), Ratio::percent::<10>());
        let taken: Vec<_> = [5, 9, 12, 12, 12, 40].map(|answers| due.take(answers, share, 16)).to_vec();
        assert_eq!(taken, [0, 0, 1, 0, 0, 3]);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let (mut due, share) = (Due::default(), Ratio::percent::<10>());
        assert_eq!(due.take(10_000, share, 16), 16);
        assert_eq!(due.take(10_009, share, 16), 0);
        assert_eq!(due.take(10_010, share, 16), 1);
    }

    #[test]
    fn options_that_make_no_sense_are_told() {
        let broken = ProbeOptions::default().every(Duration::ZERO).timeout(Duration::ZERO).most(0);
        assert_eq!(broken.validate().unwrap_err().problems().len(), 3);
    }
}
