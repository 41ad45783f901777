//! One instance behind a name, as a resolver tells it.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// One socket address.
    Socket(SocketAddr),
    /// Several socket addresses of the same instance (IPv6 and IPv4).
    Sockets(Arc<[SocketAddr]>),
    /// Anything the transport understands: a host and port, a path of a Unix socket, a shard's name.
    Authority(Arc<str>),
}

impl Address {
    /// The socket addresses, as far as they are known.
    pub fn sockets(&self) -> &[SocketAddr] {
        match self {
            Self::Socket(address) => std::slice::from_ref(address),
            Self::Sockets(addresses) => addresses,
            Self::Authority(_) => &[],
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Sockets(addresses) => match addresses.first() {
                Some(first) if addresses.len() > 1 => write!(f, "{first} (+{})", addresses.len() - 1),
                Some(first) => first.fmt(f),
                None => f.write_str("no address"),
            },
            Self::Authority(authority) => f.write_str(authority),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl From<&str> for Address {
    /// A socket address if it reads as one, else an authority.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Authority(text.into()), Self::Socket)
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// Where an endpoint stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Locality {
    /// The region.
    pub region: Cow<'static, str>,
    /// The zone within the region.
    pub zone: Cow<'static, str>,
    /// The sub-zone (rack, host) within the zone.
    pub sub_zone: Cow<'static, str>,
}

impl Locality {
    /// A region, a zone within it, and a sub-zone within that; each may be empty.
    pub fn new(region: &str, zone: &str, sub_zone: &str) -> Self {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        Self { region: owned(region), zone: owned(zone), sub_zone: owned(sub_zone) }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        for part in [&self.zone, &self.sub_zone] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

/// The health of an endpoint as its registry sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reported {
    /// The registry says nothing.
    #[default]
    Unknown,
    /// Fit for requests.
    Healthy,
    /// Not fit: it gets nothing, unless the registry finds every endpoint unfit.
    Unhealthy,
    /// Going away: it finishes what it has and gets nothing new.
    Draining,
}

/// What makes two endpoints of successive resolutions the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    address: Address,
    instance: Option<Arc<str>>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{} ({instance})", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// One instance behind a name.
///
/// Its identity is the address, with the registry's instance id where there is one; everything else may change between
/// resolutions without the endpoint losing its history.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    identity: Identity,
    weight: f64,
    locality: Locality,
    priority: u32,
    reported: Reported,
    metadata: BTreeMap<String, String>,
}

impl Endpoint {
    /// An endpoint at `address`: weight 1, priority 0, no locality, health unknown, no metadata.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            identity: Identity { address: address.into(), instance: None },
            weight: 1.0,
            locality: Locality::default(),
            priority: 0,
            reported: Reported::Unknown,
            metadata: BTreeMap::new(),
        }
    }

    /// Its share of the traffic relative to its peers' \[1.0\]. A weight that is not a positive finite number makes the
    /// resolution invalid, which is told in the status; it is never clamped.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// The instance id that its registry knows it by: the same address with another id is another endpoint.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.identity.instance = Some(instance.into());
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn with_locality(mut self, region: &str, zone: &str, sub_zone: &str) -> Self {
        self.locality = Locality::new(region, zone, sub_zone);
        self
    }

    /// Its priority \[0\]; lower is used first.
    #[must_use]
    pub fn with_priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Its health as the registry sees it.
    #[must_use]
    pub fn with_reported(mut self, reported: Reported) -> Self {
        self.reported = reported;
        self
    }

    /// Adds a metadata entry.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// What stays the same as long as it is the same endpoint.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        &self.identity.address
    }

    /// The registry's instance id.
    pub fn instance(&self) -> Option<&str> {
        self.identity.instance.as_deref()
    }

    /// Its share of the traffic relative to its peers'.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Where it stands.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// Its priority; lower is used first.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Its health as the registry sees it.
    pub fn reported(&self) -> Reported {
        self.reported
    }

    /// What else the registry says.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl From<&str> for Endpoint {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

impl From<String> for Endpoint {
    fn from(address: String) -> Self {
        Self::new(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_the_address_and_the_instance_and_nothing_else() {
        let plain = Endpoint::new("10.0.0.1:80");
        assert_eq!(plain.identity(), plain.clone().with_weight(2.0).with_priority(1).identity());
        assert_ne!(plain.identity(), plain.clone().with_instance("a").identity());
    }

    #[test]
    fn text_that_is_no_socket_address_is_an_authority() {
        assert_eq!(Endpoint::new("db.internal:80").address().to_string(), "db.internal:80");
        assert!(matches!(Endpoint::new("[::1]:80").address(), Address::Socket(_)));
    }
}
