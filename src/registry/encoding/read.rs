//! Which encoding a node has, and the way there and back.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use super::{
    grpc,
    instance::{Instance, Place},
    nerve,
    serverset::{self, Rule},
};

/// How instances are written into a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// `10.0.0.7:8080`, and nothing else.
    Plain,
    /// gRPC's naming in etcd: `{"Op":0,"Addr":"10.0.0.7:8080","Metadata":{..}}`, under a key that ends with the
    /// address.
    Grpc,
    /// Airbnb's Nerve: `{"host":"10.0.0.7","port":8080,"name":"users-7","weight":1,"labels":{..}}`.
    Nerve,
    /// The same JSON in the name of a node without data, `base64_<length>_<JSON in URL-safe base 64>_`: who lists the
    /// names needs to read no node.
    NervePath,
    /// Twitter's serversets: nodes named `member_..` with `serviceEndpoint`, `additionalEndpoints`, `status`, `shard` and
    /// `metadata`, and nodes named `vector_..` that multiply weights.
    Serverset,
}

impl Encoding {
    /// The encoding of the name `plain`, `grpc`, `nerve`, `nerve_path` or `serverset`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Grpc, Self::Nerve, Self::NervePath, Self::Serverset]
            .into_iter()
            .find(|encoding| encoding.to_string() == name)
    }

    /// The data of the node of `instance`.
    pub(crate) fn write(self, instance: &Instance) -> Vec<u8> {
        match self {
            Self::Plain => instance.address.clone().into_bytes(),
            Self::Grpc => grpc::write(instance),
            Self::Nerve => nerve::write(instance),
            Self::NervePath => Vec::new(),
            Self::Serverset => serverset::write(instance),
        }
    }

    #[cfg(any(feature = "zookeeper", test, fuzzing))]
    /// What the name of a sequential node of `instance` begins with.
    pub(crate) fn node(self, instance: &Instance) -> String {
        match self {
            Self::Plain | Self::Grpc | Self::Nerve => format!("{}_", instance.id()),
            Self::NervePath => nerve::name(instance),
            Self::Serverset => "member_".to_owned(),
        }
    }

    #[cfg(any(feature = "etcd", test, fuzzing))]
    /// The end of the key of `instance` in a registry without sequences.
    pub(crate) fn key(self, instance: &Instance) -> String {
        match self {
            Self::Plain | Self::Grpc | Self::Nerve => instance.id().to_owned(),
            Self::NervePath => nerve::name(instance),
            Self::Serverset => format!("member_{}", instance.id()),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Grpc => "grpc",
            Self::Nerve => "nerve",
            Self::NervePath => "nerve_path",
            Self::Serverset => "serverset",
        })
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Instance(Box<Instance>),
    /// What multiplies weights.
    Vector(Vec<Rule>),
    /// None of ours, and no mistake.
    Other,
}

impl From<Instance> for Entry {
    fn from(instance: Instance) -> Self {
        Self::Instance(Box::new(instance))
    }
}

/// Why a node could not be read. Its contents are not told: they may hold what is not for those who read logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) Cow<'static, str>);

impl From<&'static str> for Unreadable {
    fn from(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

#[cfg(any(feature = "zookeeper", test))]
/// Whether the name of a node says all that there is to be said.
pub(crate) fn is_self_contained(name: &str) -> bool {
    nerve::is_encoded(name)
}

/// Reads the node `name` with the data `data`, in `encoding` or, without one, in that which it looks like.
pub(crate) fn read(encoding: Option<Encoding>, name: &str, data: &[u8]) -> Result<Entry, Unreadable> {
    match encoding {
        Some(Encoding::Plain) => plain(data).map(Into::into),
        Some(Encoding::Grpc) => grpc::read(&object(data)?),
        Some(Encoding::Nerve | Encoding::NervePath) if nerve::is_encoded(name) => nerve::decode(name),
        Some(Encoding::Nerve) => nerve::read(&object(data)?),
        Some(Encoding::NervePath) => Ok(Entry::Other),
        Some(Encoding::Serverset) if name.starts_with("member_") => serverset::read(&object(data)?),
        Some(Encoding::Serverset) if name.starts_with("vector_") => serverset::read_vector(&object(data)?),
        Some(Encoding::Serverset) => Ok(Entry::Other),
        None => detect(name, data),
    }
}

fn detect(name: &str, data: &[u8]) -> Result<Entry, Unreadable> {
    if nerve::is_encoded(name) {
        return nerve::decode(name);
    }
    if !data.trim_ascii_start().starts_with(b"{") {
        return plain(data).map(Into::into);
    }
    let object = object(data)?;
    if object.contains_key("serviceEndpoint") {
        serverset::read(&object)
    } else if object.contains_key("vector") {
        serverset::read_vector(&object)
    } else if object.contains_key("host") {
        nerve::read(&object)
    } else if object.contains_key("Addr") || object.contains_key("Op") {
        grpc::read(&object)
    } else {
        Err("none of serviceEndpoint, host and Addr in its JSON".into())
    }
}

fn plain(data: &[u8]) -> Result<Instance, Unreadable> {
    let text = std::str::from_utf8(data).map_err(|_| Unreadable::from("not UTF-8"))?;
    match Place::parse(text.trim()) {
        Some(place) => Ok(Instance::new(place.to_string())),
        None if text.trim().is_empty() => Err("no data".into()),
        None => Err("not a host and a port".into()),
    }
}

pub(super) fn object(data: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    match serde_json::from_slice(data) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("JSON, but no object".into()),
        Err(error) => Err(Unreadable(Cow::Owned(format!(
            "no JSON: it breaks off or goes wrong at line {}, column {}",
            error.line(),
            error.column()
        )))),
    }
}

/// The place that `host` and `port` of `object` make; a port may be a number or a text.
pub(super) fn place(object: &Map<String, Value>) -> Result<Place, Unreadable> {
    let host = object.get("host").and_then(Value::as_str).ok_or(Unreadable::from("no host"))?;
    let port = match object.get("port") {
        Some(Value::Number(port)) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        Some(Value::String(port)) => port.parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port != 0).ok_or(Unreadable::from("no port from 1 to 65535"))?;
    Place::new(host, port).ok_or(Unreadable::from("a host that none is called"))
}

/// The members of `value`, an object, as texts.
pub(super) fn texts(value: Option<&Value>) -> impl Iterator<Item = (String, String)> + '_ {
    value.and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((key.clone(), text))
    })
}

/// Reads whatever it is given in every encoding, and panics if what was read does not read the same when it is written.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(input: &[u8]) {
    let (name, data) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (&b""[..], input),
    };
    let name = String::from_utf8_lossy(name);
    let encodings =
        [Encoding::Plain, Encoding::Grpc, Encoding::Nerve, Encoding::NervePath, Encoding::Serverset];
    for encoding in encodings.map(Some).into_iter().chain([None]) {
        let entry = read(encoding, &name, data);
        let node = super::Node::read(encoding, &name, data, None);
        let mut assembly = super::Assembly::weighing(std::iter::once(&node));
        assembly.take(&name, &node);
        assert!(assembly.finish().len() <= 1);
        if let (Some(encoding), Ok(Entry::Instance(instance))) = (encoding, &entry)
            && instance.validate(encoding).is_ok()
        {
            let name = format!("{}0000000001", encoding.node(instance));
            let again = read(Some(encoding), &name, &encoding.write(instance));
            let Ok(Entry::Instance(mut again)) = again else { panic!("{again:?} of {instance:?}") };
            // What JSON says of a fraction may be a bit off.
            if let (Some(one), Some(other)) = (again.weight, instance.weight)
                && (one - other).abs() <= one * 1e-12
            {
                again.weight = instance.weight;
            }
            assert_eq!(again, *instance);
        }
    }
}
