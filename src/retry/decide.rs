//! Whether a request is sent again: the one place where that is decided.

use std::time::Duration;

use crate::outcome::{Again, Class, Sent, Verdict};

/// What is known when an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    /// Whether processing the request twice is harmless.
    pub(super) idempotent: bool,
    /// Attempts that may have been sent, this one included.
    pub(super) sent: u32,
    /// Attempts that may be sent in all.
    pub(super) most: u32,
    /// Attempts of which nothing was sent.
    pub(super) unsent: u32,
    /// Whether a server has refused this request unprocessed before.
    pub(super) refused_before: bool,
    /// Whether this attempt was a probe.
    pub(super) probe: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The result goes to the caller.
    Stop,
    /// Send it again.
    Again {
        /// Whether it costs no budget.
        free: bool,
        /// How long to wait: as the server says, or as the backoff says, or not at all.
        wait: Wait,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Backoff,
    Exactly(Duration),
}

/// How often a request of which nothing was sent is tried elsewhere. Each time its endpoint is taken out of the picks, so
/// this is met only when many break at once.
const UNSENT: u32 = 4;

pub(super) fn decide(ended: &Ended) -> Next {
    let verdict = &ended.verdict;
    if verdict.is_plain_success() || verdict.is_settled() || verdict.may_repeat() == Again::Never {
        return Next::Stop;
    }
    let wait = match verdict.may_repeat() {
        Again::After(after) => Wait::Exactly(after),
        _ => Wait::Backoff,
    };
    match verdict.was_sent() {
        // Nothing was sent: another endpoint may have it at once.
        Sent::No if ended.unsent > UNSENT => Next::Stop,
        Sent::No => Next::Again { free: true, wait: if wait == Wait::Backoff { Wait::No } else { wait } },
        // A server did not process it: free the first time, even if that was the last attempt.
        Sent::Refused if !ended.refused_before => Next::Again { free: true, wait: Wait::No },
        _ if ended.sent >= ended.most => Next::Stop,
        Sent::Refused => Next::Again { free: false, wait },
        _ if verdict.is_wanted() => Next::Again { free: false, wait },
        _ if !ended.idempotent || verdict.class() == Class::Inconclusive => Next::Stop,
        // The request that proved an endpoint bad did everybody a service.
        _ if ended.probe => Next::Again { free: true, wait: Wait::No },
        _ => Next::Again { free: false, wait },
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    fn ended(verdict: Verdict) -> Ended {
        Ended { verdict, idempotent: true, sent: 1, most: 3, unsent: 0, refused_before: false, probe: false }
    }

    const PAID: Next = Next::Again { free: false, wait: Wait::Backoff };
    const FREE: Next = Next::Again { free: true, wait: Wait::No };

    #[test]
    fn what_may_have_been_processed_is_repeated_only_if_that_is_harmless() {
        assert_eq!(decide(&ended(Verdict::failure())), PAID);
        assert_eq!(decide(&Ended { idempotent: false, ..ended(Verdict::failure()) }), Next::Stop);
        assert_eq!(decide(&Ended { idempotent: false, ..ended(Verdict::back_off(None)) }), Next::Stop);
    }

    #[test]
    fn what_was_never_sent_is_repeated_free_and_at_once_though_not_for_ever() {
        let unsent = Ended { idempotent: false, sent: 3, ..ended(Verdict::failure().sent(Sent::No)) };
        assert_eq!(decide(&unsent), FREE);
        assert_eq!(decide(&Ended { unsent: UNSENT + 1, ..unsent }), Next::Stop);
    }

    #[test]
    fn what_a_server_refused_is_free_once_and_costs_then() {
        let refused = Ended { idempotent: false, ..ended(Verdict::failure().sent(Sent::Refused)) };
        assert_eq!(decide(&refused), FREE);
        assert_eq!(decide(&Ended { refused_before: true, ..refused }), PAID);
    }

    #[test]
    fn what_a_server_refused_goes_out_once_more_even_after_the_last_attempt() {
        let refused = Ended { sent: 3, ..ended(Verdict::failure().sent(Sent::Refused)) };
        assert_eq!(decide(&refused), FREE);
        assert_eq!(decide(&Ended { sent: 4, refused_before: true, ..refused }), Next::Stop);
        assert_eq!(decide(&Ended { sent: 4, ..ended(Verdict::failure()) }), Next::Stop);
    }

    #[test]
    fn the_servers_word_on_waiting_and_never_stands() {
        let after = Duration::from_secs(2);
        assert_eq!(
            decide(&ended(Verdict::back_off(Some(after)))),
            Next::Again { free: false, wait: Wait::Exactly(after) }
        );
        assert_eq!(decide(&ended(Verdict::failure().again(Again::Never))), Next::Stop);
    }

    #[test]
    fn the_number_of_attempts_is_a_bound() {
        assert_eq!(decide(&Ended { sent: 3, ..ended(Verdict::failure()) }), Next::Stop);
    }

    #[test]
    fn a_failed_probe_is_repeated_free() {
        assert_eq!(decide(&Ended { probe: true, ..ended(Verdict::failure()) }), FREE);
    }

    #[test]
    fn what_is_wanted_again_is_repeated_whatever_it_is_within_the_number_of_attempts() {
        for verdict in [Verdict::success(), Verdict::failure(), Verdict::inconclusive()] {
            let wanted = Ended { idempotent: false, ..ended(verdict.wanted()) };
            assert_eq!(decide(&wanted), PAID);
            assert_eq!(decide(&Ended { sent: 3, ..wanted }), Next::Stop);
            let never = Ended { verdict: verdict.wanted().again(Again::Never), ..wanted };
            assert_eq!(decide(&never), Next::Stop);
        }
    }

    #[test]
    fn what_is_settled_is_not_repeated_though_its_endpoint_asks_for_time() {
        for verdict in [Verdict::failure(), Verdict::back_off(Some(Duration::from_secs(1)))] {
            assert_eq!(decide(&ended(verdict.settled())), Next::Stop);
        }
    }

    #[test]
    fn what_says_nothing_is_not_repeated() {
        assert_eq!(decide(&ended(Verdict::inconclusive())), Next::Stop);
        assert_eq!(decide(&ended(Verdict::success())), Next::Stop);
    }
}
