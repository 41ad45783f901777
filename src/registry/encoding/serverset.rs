//! Twitter's serversets, as Finagle and Aurora write them.

use serde_json::{Map, Value, json};

use super::{
    Entry, Instance, Status, Unreadable,
    instance::Place,
    read::{place, texts},
};

pub(super) fn read(object: &Map<String, Value>) -> Result<Entry, Unreadable> {
    let endpoint = object.get("serviceEndpoint").and_then(Value::as_object);
    let endpoint = endpoint.ok_or(Unreadable::from("no serviceEndpoint"))?;
    let mut instance = Instance::new(place(endpoint)?.to_string());
    instance.status = match object.get("status").and_then(Value::as_str) {
        Some("ALIVE" | "WARNING") => Status::Alive,
        Some("STARTING") => Status::Starting,
        Some("STOPPING") => Status::Stopping,
        Some("DEAD" | "STOPPED") => Status::Dead,
        _ => Status::Unknown,
    };
    instance.shard = object.get("shard").and_then(Value::as_i64);
    // One bad port of a name that nobody asks for must not hide the others.
    instance.additional = object
        .get("additionalEndpoints")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), place(value.as_object()?).ok()?.to_string())))
        .collect();
    instance.metadata = texts(object.get("metadata")).collect();
    Ok(instance.into())
}

pub(super) fn write(instance: &Instance) -> Vec<u8> {
    let place = |address: &str| {
        Place::parse(address).map_or(Value::Null, |place| json!({"host": place.host, "port": place.port}))
    };
    let status = match instance.status {
        Status::Alive => "ALIVE",
        Status::Starting => "STARTING",
        Status::Stopping => "STOPPING",
        Status::Dead => "DEAD",
        Status::Unknown => "UNKNOWN",
    };
    let additional: Map<String, Value> =
        instance.additional.iter().map(|(name, address)| (name.clone(), place(address))).collect();
    let mut object = json!({
        "serviceEndpoint": place(&instance.address),
        "additionalEndpoints": additional,
        "status": status,
    });
    if let Some(shard) = instance.shard {
        object["shard"] = shard.into();
    }
    if !instance.metadata.is_empty() {
        object["metadata"] = json!(instance.metadata);
    }
    object.to_string().into_bytes()
}

/// Multiplies the weight of those it selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    selects: Selects,
    weight: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Selects {
    Place(Place),
    Member(String),
    Shard(i64),
}

impl Rule {
    /// What the weight of the member `name` is multiplied by.
    pub(super) fn factor(&self, name: &str, instance: &Instance, address: &str) -> f64 {
        let selected = match &self.selects {
            Selects::Place(place) => Place::parse(address).as_ref() == Some(place),
            Selects::Member(member) => member == name,
            Selects::Shard(shard) => instance.shard == Some(*shard),
        };
        if selected { self.weight } else { 1.0 }
    }
}

/// As in Finagle a rule that cannot be read is passed over, and priorities are not acted upon.
pub(super) fn read_vector(object: &Map<String, Value>) -> Result<Entry, Unreadable> {
    let rules = object.get("vector").and_then(Value::as_array).ok_or(Unreadable::from("no vector"))?;
    let read = |rule: &Value| {
        let (kind, which) = rule.get("select")?.as_str()?.split_once('=')?;
        let selects = match kind {
            "inet" => Selects::Place(Place::parse(which)?),
            "member" => Selects::Member(which.to_owned()),
            "shard" => Selects::Shard(which.parse().ok()?),
            _ => return None,
        };
        let weight = rule.get("weight").map_or(Some(1.0), Value::as_f64)?;
        (weight.is_finite() && weight >= 0.0).then_some(Rule { selects, weight })
    };
    Ok(Entry::Vector(rules.iter().filter_map(read).collect()))
}
