//! What may be wrong with a server besides its speed.

use std::time::Duration;

/// What a server does with a request instead of serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// Answers with an error at once, without a slot.
    Fail,
    /// Does all the work and then answers with an error.
    FailLate,
    /// Asks to be left alone, for so long where a time is given.
    BackOff(Option<Duration>),
    /// Says that it did not process it.
    Reject,
    /// Breaks the connection off.
    Reset,
    /// Never answers.
    Hang,
}

/// A trouble, and whom it meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Risk {
    pub(super) share: f64,
    pub(super) operation: Option<&'static str>,
    pub(super) trouble: Trouble,
}

/// The trouble that a request for `operation` meets, of several with chances of their own; `chance` is drawn from [0, 1).
pub(super) fn met(risks: &[Risk], operation: &str, chance: f64) -> Option<Trouble> {
    let mut left = chance;
    let concerned = risks.iter().filter(|risk| risk.operation.is_none_or(|own| own == operation));
    concerned
        .into_iter()
        .find(|risk| {
            left -= risk.share;
            left < 0.0
        })
        .map(|risk| risk.trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_operations_are_told_apart() {
        let risks = [
            Risk { share: 0.25, operation: None, trouble: Trouble::Fail },
            Risk { share: 0.25, operation: Some("search"), trouble: Trouble::Hang },
        ];
        assert_eq!(met(&risks, "search", 0.2), Some(Trouble::Fail));
        assert_eq!(met(&risks, "search", 0.3), Some(Trouble::Hang));
        assert_eq!(met(&risks, "search", 0.5), None);
        assert_eq!(met(&risks, "get", 0.3), None);
    }
}
