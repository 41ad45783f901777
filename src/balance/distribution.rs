//! By which rule requests are spread over endpoints.

use super::{maglev::MaglevOptions, reported::ReportedOptions, ring::RingOptions};
use crate::invalid::Check;

/// By which rule requests are spread over the endpoints of a priority and zone.
///
/// Whatever the rule, an endpoint that is set aside, is full, or was tried already by this request is passed over: by load for
/// another one, in turn for the next, by key for the one that the key prefers then. Only the endpoints that are used together
/// (see [`Localities`](super::Localities)) are spread over by it. A key that spills to another priority or zone does so always,
/// as long as the shares stay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// To the least loaded of a few drawn at random, as `load` and `choices` say; with two choices this is the power of two
    /// choices.
    #[default]
    LeastLoaded,
    /// In turn, by weight where weights differ; see [`Stride`](super::Stride). It knows nothing of load: where servers or
    /// requests differ it does worse than the default, and after a failure the next one gets all that was meant for it.
    RoundRobin,
    /// In turn, by weights from what servers say of themselves (see [`Classify::report`](crate::Classify::report)): gRPC's
    /// weighted round robin. The registry's weights do not count; while fewer than two endpoints have reported for long enough
    /// requests simply go in turn, and one that has not is given what the others have in the mean. None counts for more than ten times the median of them, or less than a tenth. See
    /// [`ReportedWeight`](super::ReportedWeight).
    ByReports(ReportedOptions),
    /// Requests with the same key to the same endpoint, on a [`Ring`](super::Ring): when an endpoint comes or goes only its own
    /// keys move. A request without a key goes to the least loaded.
    Ring(RingOptions),
    /// The same by a [`Maglev`](super::Maglev) table: evener and faster, and a few more keys move.
    Maglev(MaglevOptions),
}

impl Distribution {
    pub(super) fn check(&self, check: &mut Check) {
        match self {
            Self::LeastLoaded | Self::RoundRobin => {}
            Self::ByReports(options) => options.check(check),
            Self::Ring(options) => options.check(check),
            Self::Maglev(options) => options.check(check),
        }
    }

    /// How reports become weights, if it goes by them.
    pub(super) fn by_reports(&self) -> Option<&ReportedOptions> {
        match self {
            Self::ByReports(options) => Some(options),
            _ => None,
        }
    }

    /// Whether it needs to know the key of a request.
    pub(super) fn goes_by_key(&self) -> bool {
        matches!(self, Self::Ring(_) | Self::Maglev(_))
    }

    /// Up to which load an endpoint is given requests by key, in percent of its share.
    pub(super) fn bound(&self) -> Option<u32> {
        match self {
            Self::LeastLoaded | Self::RoundRobin | Self::ByReports(_) => None,
            Self::Ring(options) => options.bound,
            Self::Maglev(options) => options.bound,
        }
    }
}

/// What becomes of a request that names the endpoint that it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sticky {
    /// Nobody asks.
    #[default]
    Off,
    /// It goes there while that is available, and else as it would without. So does a retry: an endpoint that has been tried
    /// is not asked again.
    Prefer,
    /// It goes there or nowhere: it waits for the first resolution and the first connection, and while the endpoint is full or
    /// not ready; it is refused while the endpoint is set aside or unknown.
    Require,
}
