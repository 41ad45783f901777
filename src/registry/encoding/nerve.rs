//! What Airbnb's Nerve writes and its Synapse reads.

use serde_json::{Map, Value, json};

use super::{
    Entry, Instance, Unreadable, base64,
    instance::Place,
    read::{object, place, texts},
};

/// What the name of a node begins with that holds all of its data.
const ENCODED: &str = "base64_";

pub(super) fn read(object: &Map<String, Value>) -> Result<Entry, Unreadable> {
    let mut instance = Instance::new(place(object)?.to_string());
    instance.name =
        object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    instance.weight = match object.get("weight") {
        None | Some(Value::Null) => None,
        Some(Value::Number(weight)) => weight.as_f64(),
        Some(Value::String(weight)) => weight.parse().ok(),
        Some(_) => return Err("a weight that is no number".into()),
    };
    instance.metadata = texts(object.get("labels")).collect();
    Ok(instance.into())
}

pub(super) fn write(instance: &Instance) -> Vec<u8> {
    let mut object = Map::new();
    if let Some(place) = Place::parse(&instance.address) {
        object.insert("host".to_owned(), place.host.into());
        object.insert("port".to_owned(), place.port.into());
    }
    if let Some(name) = &instance.name {
        object.insert("name".to_owned(), name.clone().into());
    }
    if let Some(weight) = instance.weight {
        // Checked to be whole, and below 2^32.
        object.insert("weight".to_owned(), (weight as u64).into());
    }
    if !instance.metadata.is_empty() {
        object.insert("labels".to_owned(), json!(instance.metadata));
    }
    Value::Object(object).to_string().into_bytes()
}

pub(super) fn is_encoded(name: &str) -> bool {
    name.starts_with(ENCODED)
}

/// `base64_<length>_<JSON>_`, to which ZooKeeper adds a sequence number.
pub(super) fn name(instance: &Instance) -> String {
    let encoded = base64::encode(&write(instance));
    format!("{ENCODED}{}_{encoded}_", encoded.len())
}

pub(super) fn decode(name: &str) -> Result<Entry, Unreadable> {
    let encoded = name.strip_prefix(ENCODED).and_then(|rest| {
        let (length, rest) = rest.split_once('_')?;
        rest.get(..length.parse::<usize>().ok()?)
    });
    let encoded = encoded.ok_or(Unreadable::from("a length that does not fit the name"))?;
    read(&object(&base64::decode(encoded).ok_or(Unreadable::from("a name that is not base 64"))?)?)
}
