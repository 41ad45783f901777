//! Where a client stands, and how far it prefers what is near.

use crate::{
    endpoint::Locality,
    invalid::{Check, Ratio},
};

/// How a client prefers the endpoints of its own zone: as far as they can take what is sent there, and no further.
///
/// A zone is what [`Locality`] calls region and zone; sub-zones are not told apart. Its capacity is the weight of its
/// available endpoints. That of the client's own zone counts for as much less as its answers take longer than those of the
/// others, the way there included, from a quarter more on, and as its requests succeed less often: so long as what is near
/// is also sooner, it is preferred, and a zone that is cut off is left within a second or two of the first timeout. Its demand is the share of all
/// traffic that the clients in that zone send. Where the capacity, as a share of that of all zones, covers the demand, all
/// requests stay. Else as many stay as it covers, and the others go where capacity is left: in the own region first, then
/// elsewhere. Envoy's zone-aware routing is the same by counts of hosts.
///
/// ```
/// use mainstay::{balance::{BalanceOptions, Localities}, endpoint::Locality};
///
/// let mut options = BalanceOptions::default();
/// options.localities = Localities::at(Locality::new("eu-west", "eu-west-1b", ""));
/// assert!(options.validate().is_ok());
/// ```
///
/// It needs no coordination: where each client goes by this and the demands are true, each zone gets what it can take. A
/// zone whose endpoints all fail has no capacity; one that has left the resolution is no zone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Localities {
    /// Where the client stands \[nowhere: localities are not looked at\].
    pub own: Option<Locality>,
    /// The share of all traffic that comes from clients in the own zone \[an equal part for each zone\].
    pub demand: Option<Ratio>,
    /// The share of the requests that goes to the other zones of the own region in any case, so that it is known how long
    /// they take \[1 %\]. Without it the own zone is held for as fast as them, until it has lost endpoints.
    pub elsewhere: Ratio,
    /// With fewer endpoints than this at a priority, its zones are not told apart \[6\].
    pub min_endpoints: u32,
}

impl Localities {
    /// For a client that stands at `own`.
    pub fn at(own: Locality) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// So much of all traffic comes from clients in the own zone.
    #[must_use]
    pub fn demand(mut self, demand: impl Into<Option<Ratio>>) -> Self {
        self.demand = demand.into();
        self
    }

    /// So much goes to the neighbours in any case.
    #[must_use]
    pub fn elsewhere(mut self, elsewhere: Ratio) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// With fewer endpoints than this zones are not told apart.
    #[must_use]
    pub fn min_endpoints(mut self, endpoints: u32) -> Self {
        self.min_endpoints = endpoints;
        self
    }

    pub(super) fn check(&self, check: &mut Check) {
        if let Some(demand) = self.demand {
            check.rule(demand.get() > 0.0, "demand", demand, "more than 0");
        }
        check.rule(self.elsewhere.get() <= 0.5, "elsewhere", self.elsewhere, "at most a half");
    }
}

impl Default for Localities {
    fn default() -> Self {
        Self { own: None, demand: None, elsewhere: Ratio::percent::<1>(), min_endpoints: 6 }
    }
}
