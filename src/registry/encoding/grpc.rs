//! What gRPC's naming writes into etcd (`clientv3/naming`).

use serde_json::{Map, Value, json};

use super::{Entry, Instance, Unreadable, instance::Place, read::texts};

/// The `Op` of an entry that takes its address away.
const DELETE: u64 = 1;

pub(super) fn read(object: &Map<String, Value>) -> Result<Entry, Unreadable> {
    if object.get("Op").and_then(Value::as_u64) == Some(DELETE) {
        return Ok(Entry::Other);
    }
    let address = object.get("Addr").and_then(Value::as_str).ok_or(Unreadable::from("no Addr"))?;
    let place = Place::parse(address).ok_or(Unreadable::from("an Addr that is not a host and a port"))?;
    let mut instance = Instance::new(place.to_string());
    let metadata = object.get("Metadata");
    let said = |key: &str| metadata.and_then(|said| said.get(key));
    instance.weight = match said("weight") {
        Some(Value::Number(weight)) => weight.as_f64(),
        _ => None,
    };
    instance.name = said("name").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    let is_own = |key: &str| key == "name" || (key == "weight" && instance.weight.is_some());
    let metadata = match metadata {
        Some(Value::String(text)) if !text.is_empty() => [("metadata".to_owned(), text.clone())].into(),
        said => texts(said).filter(|(key, _)| !is_own(key)).collect(),
    };
    instance.metadata = metadata;
    Ok(instance.into())
}

pub(super) fn write(instance: &Instance) -> Vec<u8> {
    let mut metadata: Map<String, Value> =
        instance.metadata.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if let Some(weight) = instance.weight {
        metadata.insert("weight".to_owned(), weight.into());
    }
    if let Some(name) = &instance.name {
        metadata.insert("name".to_owned(), name.clone().into());
    }
    let metadata = if metadata.is_empty() { Value::Null } else { Value::Object(metadata) };
    json!({"Op": 0, "Addr": instance.address, "Metadata": metadata}).to_string().into_bytes()
}
