//! One instance, as registries hold it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use crate::{Endpoint, Invalid, endpoint::Reported, invalid::Check};

use super::Encoding;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Place {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|host| host.contains(':'))?,
            None if host.contains(':') => return None,
            None => host,
        };
        Self::new(host, port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??)
    }

    /// A place that can be written and read again; `None` for what no host is called, and for port 0.
    pub(crate) fn new(host: &str, port: u16) -> Option<Self> {
        let word =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'%');
        let fits = (1..=255).contains(&host.len()) && host.bytes().all(word) && port != 0;
        fits.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How an instance is, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Fit for requests.
    #[default]
    Alive,
    /// Not fit yet.
    Starting,
    /// Going away: it finishes what it has.
    Stopping,
    /// Gone, or as good as that.
    Dead,
    /// It says nothing about itself.
    Unknown,
}

impl Status {
    /// What the balancer makes of it; `None` for one that is left out.
    pub(crate) fn reported(self) -> Option<Reported> {
        match self {
            Self::Alive => Some(Reported::Healthy),
            Self::Starting => Some(Reported::Unhealthy),
            Self::Stopping => Some(Reported::Draining),
            Self::Unknown => Some(Reported::Unknown),
            Self::Dead => None,
        }
    }
}

/// One instance of a service, as it stands in a registry: what is announced of a process, and what is read of others.
///
/// ```
/// use mainstay::registry::Instance;
///
/// let instance = Instance::new("10.0.0.7:8080").name("users-7").weight(2.0).metadata("zone", "eu-1a");
/// # let _ = instance;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub(crate) address: String,
    pub(crate) name: Option<String>,
    pub(crate) weight: Option<f64>,
    pub(crate) status: Status,
    pub(crate) shard: Option<i64>,
    pub(crate) additional: BTreeMap<String, String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Instance {
    /// An instance at `address`, a host and a port that others can reach it by, such as `10.0.0.7:8080`.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        Self {
            // One way to write it, so that it is known again.
            address: Place::parse(&address).map_or(address, |place| place.to_string()),
            name: None,
            weight: None,
            status: Status::Alive,
            shard: None,
            additional: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// What it is called, the same after each restart \[its address\]. At most one instance of a service has the name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its share of the traffic relative to its peers' \[1\]. In Nerve's encoding a whole number. Serversets and plain
    /// addresses have no place for it.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = Some(weight);
        self
    }

    /// How it is \[alive\]; only serversets have a place for it.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Which shard it is; only serversets have a place for it.
    #[must_use]
    pub fn shard(mut self, shard: i64) -> Self {
        self.shard = Some(shard);
        self
    }

    /// Another port of it, under a name such as `admin`; only serversets have a place for it.
    #[must_use]
    pub fn additional(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.additional.insert(name.into(), address.into());
        self
    }

    /// Adds a word about it: a label of Nerve's, metadata of a serverset or of gRPC. `region`, `zone` and `sub_zone` are
    /// what a balancer takes for its place.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// What it is called, or else its address.
    pub(crate) fn id(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.address)
    }

    /// Notes what cannot be announced in `encoding`.
    pub(crate) fn check(&self, check: &mut Check, encoding: Encoding) {
        let place = "a host and a port from 1 to 65535, such as 10.0.0.7:8080";
        check.rule(Place::parse(&self.address).is_some(), "address", &self.address, place);
        let id = self.id();
        let rule = "1 to 200 characters, none of them a slash or a control character, and not . or ..";
        let fits = !id.contains(|c: char| c == '/' || c.is_control()) && !matches!(id, "." | "..");
        check.rule(fits && (1..=200).contains(&id.len()), "name", id, rule);
        for (name, address) in &self.additional {
            check.rule(Place::parse(address).is_some(), "additional", format!("{name}={address}"), place);
        }
        let has = |fits: bool, what: &'static str| (fits, format!("{encoding} has no place for {what}"));
        let serverset = encoding == Encoding::Serverset;
        if let Some(weight) = self.weight {
            let (fits, rule) = match encoding {
                Encoding::Nerve | Encoding::NervePath => (
                    (1.0..=f64::from(u32::MAX)).contains(&weight) && weight.fract() == 0.0,
                    "a whole number, at least 1".to_owned(),
                ),
                Encoding::Grpc => (weight.is_finite() && weight > 0.0, "a positive finite number".to_owned()),
                Encoding::Plain | Encoding::Serverset => has(false, "a weight"),
            };
            check.rule(fits, "weight", weight, rule);
        }
        let (fits, rule) = has(serverset || self.status == Status::Alive, "a status");
        check.rule(fits, "status", self.status, rule);
        let (fits, rule) = has(serverset || self.shard.is_none(), "a shard");
        check.rule(fits, "shard", self.shard, rule);
        let (fits, rule) = has(serverset || self.additional.is_empty(), "additional endpoints");
        check.rule(fits, "additional", self.additional.keys(), rule);
        let grpc = encoding == Encoding::Grpc;
        let own = ["name", "weight"].iter().any(|key| self.metadata.contains_key(*key));
        let rule = "in grpc name and weight of the metadata are those of the instance";
        check.rule(!(grpc && own), "metadata", self.metadata.keys(), rule);
        let (fits, rule) = has(encoding != Encoding::Plain || self.metadata.is_empty(), "metadata");
        check.rule(fits, "metadata", self.metadata.keys(), rule);
    }

    /// Checks that it can be announced in `encoding`.
    ///
    /// # Errors
    /// [`Invalid`] with all that cannot.
    pub fn validate(&self, encoding: Encoding) -> Result<(), Invalid> {
        Check::of(|check| self.check(check, encoding))
    }

    /// The endpoint that it is, at its own address or at the additional one of the name `port`. `Ok(None)` for one that
    /// is dead.
    pub(crate) fn endpoint(&self, port: Option<&str>) -> Result<Option<Endpoint>, Cow<'static, str>> {
        let address = match port {
            None => &self.address,
            Some(name) => match self.additional.get(name) {
                Some(address) => address,
                None => return Err(format!("no endpoint of the name {name:?}").into()),
            },
        };
        let Some(mut reported) = self.status.reported() else { return Ok(None) };
        let mut endpoint = Endpoint::new(address.as_str());
        match self.weight {
            // What gets no traffic by its weight is going away, or not there yet.
            Some(0.0) => reported = Reported::Draining,
            Some(weight) if weight.is_finite() && weight > 0.0 => endpoint = endpoint.with_weight(weight),
            Some(_) => return Err("a weight that is no positive number".into()),
            None => {}
        }
        let said = |key: &str| self.metadata.get(key).map_or("", String::as_str);
        endpoint =
            endpoint.with_reported(reported).with_locality(said("region"), said("zone"), said("sub_zone"));
        if let Some(name) = &self.name {
            endpoint = endpoint.with_metadata("name", name);
        }
        if let Some(shard) = self.shard {
            endpoint = endpoint.with_metadata("shard", shard.to_string());
        }
        Ok(Some(
            self.metadata.iter().fold(endpoint, |endpoint, (key, value)| endpoint.with_metadata(key, value)),
        ))
    }
}
