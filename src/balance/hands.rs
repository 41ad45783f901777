//! One endpoint, by hand.

use std::{fmt, sync::Arc, time::Duration};

use tower::{BoxError, Service};

use super::{Balance, member::Member};
use crate::{Endpoint, clock, endpoint::Identity, health::Transition};

/// One endpoint of a balancer, to be drained, ejected or put back by hand: for a deployment that takes servers out one after
/// the other, or for somebody who knows better.
///
/// What it does acts at once, is told in an event, and shows in the status. It belongs to the endpoint, not to this handle: it outlives it,
/// new resolutions, and an absence of
/// [`keep_removed`](super::BalanceOptions::keep_removed).
#[derive(Clone)]
pub struct EndpointHandle(Arc<Member>);

impl EndpointHandle {
    /// What the resolution says of it.
    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.0.endpoint()
    }

    /// Gives it no further request until it is [restored](Self::restore), whatever happens to the others; what it has in
    /// flight goes on. False if it is drained already.
    pub fn drain(&self) -> bool {
        let (member, now) = (&self.0, clock::now());
        self.tell(member.health.drain(now, &member.fleet.ledger))
    }

    /// Ejects it for `lasts`, or for what [`ejection`](crate::health::HealthOptions::ejection) says, counted from now even if
    /// it is out already. Then it comes back as others do. The cap of ejections does not hold for this, and in a panic it may be
    /// used nevertheless, where that fails open.
    pub fn eject(&self, lasts: Option<Duration>) -> bool {
        let (member, fleet, now) = (&self.0, &self.0.fleet, clock::now());
        let options = fleet.options.load_full();
        self.tell(member.health.eject_by_hand(lasts, now, &options.health, &fleet.ledger, &*fleet.random))
    }

    /// Puts it back: drained, ejected, in probation, or left alone because it asked for that. It works up to its share. Nothing
    /// happens to a connection, or to what its registry says. False if nothing of all that kept it out.
    pub fn restore(&self) -> bool {
        let (member, now) = (&self.0, clock::now());
        self.tell(member.health.restore_by_hand(now, &member.fleet.ledger))
    }

    fn tell(&self, moved: Option<Transition>) -> bool {
        if let Some(moved) = moved {
            self.0.fleet.changed(&self.0, moved);
        }
        moved.is_some()
    }
}

impl fmt::Debug for EndpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EndpointHandle").field(&self.0.name).finish()
    }
}

impl<S, Req> Balance<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// The endpoint with this identity, to act upon it by hand; `None` if it is not in the present resolution.
    pub fn endpoint(&self, identity: &Identity) -> Option<EndpointHandle> {
        let snapshot = self.lane().roster.snapshot.load();
        let connected = snapshot.entries.iter().map(|entry| &entry.member);
        connected
            .chain(snapshot.unconnected.iter().map(|unconnected| &unconnected.member))
            .find(|member| member.endpoint().identity() == identity)
            .map(|member| EndpointHandle(member.clone()))
    }
}
