//! What the document says of balancing.

use std::time::Duration;

use super::read::Fields;
use crate::balance::{BalanceOptions, Distribution, Load, ReportedOptions};

/// A balancing policy of gRPC, as far as this crate has its like.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum LoadBalancing {
    /// `pick_first`: whatever the client is set to. That all clients run to one server is what this crate is there to avoid.
    PickFirst,
    /// `round_robin`, by the weights that the resolver tells.
    RoundRobin,
    /// `weighted_round_robin`, by what servers report on their answers (gRFC A58). `enableOobLoadReport`, and
    /// `oobReportingPeriod` with it, are passed over: reports of their own streams are not asked for.
    WeightedRoundRobin(ReportedOptions),
    /// `least_request`: to the least loaded, by requests in flight, of so many drawn at random; a draw is at most 8 here.
    LeastRequest {
        /// `choiceCount` \[2\].
        choices: u32,
    },
    /// `ring_hash`: requests with the same key to the same endpoint.
    RingHash,
}

impl LoadBalancing {
    /// The first of the list that is known; those of gRPC's own that this crate has nothing for are passed over, and so are
    /// foreign ones.
    pub(super) fn read(document: &mut Fields<'_, '_>) -> Option<Self> {
        let (mut found, mut named, place) = (None, false, "loadBalancingConfig");
        document.objects(place, |policy| {
            let mut names = policy.entries();
            let (first, more) = (names.next(), names.next().is_some());
            named = true;
            let Some((name, _)) = first.filter(|_| !more) else {
                policy.rule(false, "", "exactly one policy, by name");
                return;
            };
            // As gRPC does: what follows the one that is taken is not even looked at.
            if found.is_none() {
                found = Self::by_name(name, policy);
            }
        });
        if named {
            document.rule(found.is_some(), place, "at least one policy that is known");
            return found;
        }
        let name = document.text("loadBalancingPolicy").to_ascii_lowercase();
        match &*name {
            "" => None,
            "pick_first" => Some(Self::PickFirst),
            "round_robin" => Some(Self::RoundRobin),
            _ => {
                document.rule(false, "loadBalancingPolicy", "a policy that needs no more than its name");
                None
            }
        }
    }

    fn by_name(name: &str, policy: &mut Fields<'_, '_>) -> Option<Self> {
        Some(match name {
            "pick_first" => Self::PickFirst,
            "round_robin" => Self::RoundRobin,
            "weighted_round_robin" => Self::WeightedRoundRobin(policy.object(name, reported)?),
            "ring_hash" | "ring_hash_experimental" => Self::RingHash,
            "least_request" | "least_request_experimental" => {
                let read = |options: &mut Fields<'_, '_>| {
                    let choices =
                        if options.has("choiceCount") { options.whole("choiceCount") } else { Some(2) };
                    let holds = choices.is_some_and(|choices| choices >= 2);
                    options.rule(holds, "choiceCount", "a whole number, at least 2");
                    choices.unwrap_or(2).clamp(2, 10) as u32
                };
                Self::LeastRequest { choices: policy.object(name, read)? }
            }
            _ => return None,
        })
    }

    /// `options` with this policy in them.
    #[must_use]
    pub fn over(self, mut options: BalanceOptions) -> BalanceOptions {
        match self {
            Self::PickFirst => {}
            Self::RoundRobin => options.distribution = Distribution::RoundRobin,
            Self::WeightedRoundRobin(reported) => {
                options.distribution = Distribution::ByReports(reported);
            }
            Self::LeastRequest { choices } => {
                options.distribution = Distribution::LeastLoaded;
                options.load = Load::InFlight;
                options.choices = choices.min(8);
            }
            // A ring that is chosen already keeps its size.
            Self::RingHash => {
                if !matches!(options.distribution, Distribution::Ring(_)) {
                    options.distribution = Distribution::Ring(Default::default());
                }
            }
        }
        options
    }
}

/// The options of `weighted_round_robin`. A period of computing under 100 ms is taken for 100 ms, as the gRFC says.
fn reported(options: &mut Fields<'_, '_>) -> ReportedOptions {
    let mut reported = ReportedOptions::default();
    if let Some(blackout) = options.duration("blackoutPeriod") {
        reported.blackout = blackout;
    }
    if let Some(expiration) = options.duration("weightExpirationPeriod") {
        // None at all is as good as none that counts.
        reported.expiration = expiration.max(Duration::from_nanos(1));
    }
    if let Some(every) = options.duration("weightUpdatePeriod") {
        reported.every = every.max(Duration::from_millis(100));
    }
    if let Some(penalty) = options.number_from_0("errorUtilizationPenalty") {
        reported.error_penalty = penalty;
    }
    reported
}
