//! A list of endpoints as YAML, JSON or TOML.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::Path, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    Endpoint,
    endpoint::{Address, Reported},
};

/// How a list of endpoints is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`
    Json,
    /// `.toml`
    Toml,
}

impl Format {
    /// By the extension of a file.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// Reads a list of endpoints; see [`file`](fn@super::file) for its form.
    ///
    /// # Errors
    /// [`DocumentError`] with line and reason.
    pub fn parse(self, text: &str) -> Result<Vec<Endpoint>, DocumentError> {
        parse(text, self)
    }
}

/// Why a list of endpoints could not be read: the line, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(String);

/// Reads a list of endpoints.
pub(super) fn parse(text: &str, format: Format) -> Result<Vec<Endpoint>, DocumentError> {
    let list: List = match format {
        Format::Yaml => serde_saphyr::from_str(text).map_err(|error| told(&error)),
        Format::Json => serde_json::from_str(text).map_err(|error| told(&error)),
        Format::Toml => toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
            DocumentError(format!("{} at line {}", error.message(), line.unwrap_or(1)))
        }),
    }?;
    Ok(list.endpoints.into_iter().map(|entry| entry.0).collect())
}

/// Writes a list of endpoints as JSON, in the form in which it is read.
pub(super) fn write<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> String {
    let written = Written { endpoints: endpoints.map(Entry::written).collect() };
    // Strings, numbers and maps of strings: nothing in it can fail to be written.
    serde_json::to_string_pretty(&written).unwrap_or_default()
}

/// An error in one line, since it goes into a status.
fn told(error: &impl fmt::Display) -> DocumentError {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    DocumentError(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    endpoints: Vec<Entry>,
}

#[derive(Serialize)]
struct Written {
    endpoints: Vec<Full>,
}

/// An address alone, or everything about an endpoint.
struct Entry(Endpoint);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an address, or what is known of an endpoint")]
struct Full {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: f64,
    #[serde(default)]
    priority: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    region: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sub_zone: String,
    #[serde(default)]
    health: Health,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
}

fn one() -> f64 {
    1.0
}

/// Checked while it is read, so that the error knows its line.
fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let weight = f64::deserialize(from)?;
    if weight.is_finite() && weight > 0.0 {
        return Ok(weight);
    }
    Err(de::Error::custom(format_args!("weight = {weight}: a positive finite number")))
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 10.0.0.1:80, or a map with one")
    }

    fn visit_str<E: de::Error>(self, address: &str) -> Result<Entry, E> {
        Ok(Entry(Endpoint::new(read_address(address)?)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        let full = Full::deserialize(MapAccessDeserializer::new(map))?;
        let address = match (&full.address, full.addresses.as_slice()) {
            (Some(address), []) => read_address(address)?,
            (None, [one]) => Address::Socket(*one),
            (None, [_, ..]) => Address::Sockets(full.addresses.as_slice().into()),
            (None, []) => return Err(de::Error::missing_field("address")),
            (Some(_), _) => {
                return Err(de::Error::custom("address and addresses: one of them, not both"));
            }
        };
        let mut endpoint = Endpoint::new(address)
            .with_weight(full.weight)
            .with_priority(full.priority)
            .with_locality(&full.region, &full.zone, &full.sub_zone)
            .with_reported(match full.health {
                Health::Unknown => Reported::Unknown,
                Health::Healthy => Reported::Healthy,
                Health::Unhealthy => Reported::Unhealthy,
                Health::Draining => Reported::Draining,
            });
        if let Some(instance) = full.instance {
            endpoint = endpoint.with_instance(Arc::<str>::from(instance));
        }
        for (key, value) in full.metadata {
            endpoint = endpoint.with_metadata(key, value);
        }
        Ok(Entry(endpoint))
    }
}

fn read_address<E: de::Error>(text: &str) -> Result<Address, E> {
    if text.trim().is_empty() || text.contains(char::is_whitespace) {
        return Err(E::custom(format_args!(
            "address = {text:?}: a host and a port, or a path, without blanks"
        )));
    }
    Ok(Address::from(text))
}

impl Entry {
    fn written(endpoint: &Endpoint) -> Full {
        let (address, addresses) = match endpoint.address() {
            Address::Sockets(addresses) => (None, addresses.to_vec()),
            other => (Some(other.to_string()), Vec::new()),
        };
        let locality = endpoint.locality();
        Full {
            address,
            addresses,
            instance: endpoint.instance().map(str::to_owned),
            weight: endpoint.weight(),
            priority: endpoint.priority(),
            region: locality.region.to_string(),
            zone: locality.zone.to_string(),
            sub_zone: locality.sub_zone.to_string(),
            health: match endpoint.reported() {
                Reported::Unknown => Health::Unknown,
                Reported::Healthy => Health::Healthy,
                Reported::Unhealthy => Health::Unhealthy,
                Reported::Draining => Health::Draining,
            },
            metadata: endpoint.metadata().clone(),
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YAML: &str = "
# the fleet
endpoints:
  - 10.0.0.1:8080
  - address: users-2.internal:8080
    weight: 2.5
    priority: 1
    region: eu
    zone: a
    sub_zone: r7
    health: healthy
    instance: i-2
    metadata: {version: v2}
  - addresses: ['10.0.0.3:8080', '[::3]:8080']
    health: draining
";

    const JSON: &str = r#"{"endpoints": ["10.0.0.1:8080", {"address": "users-2.internal:8080", "weight": 2.5, "priority": 1,
        "region": "eu", "zone": "a", "sub_zone": "r7", "health": "healthy", "instance": "i-2",
        "metadata": {"version": "v2"}}, {"addresses": ["10.0.0.3:8080", "[::3]:8080"], "health": "draining"}]}"#;

    const TOML: &str = r#"
[[endpoints]]
address = "10.0.0.1:8080"

[[endpoints]]
address = "users-2.internal:8080"
weight = 2.5
priority = 1
region = "eu"
zone = "a"
sub_zone = "r7"
health = "healthy"
instance = "i-2"
metadata = { version = "v2" }

[[endpoints]]
addresses = ["10.0.0.3:8080", "[::3]:8080"]
health = "draining"
"#;

    fn expected() -> Vec<Endpoint> {
        let both: Vec<SocketAddr> = vec!["10.0.0.3:8080".parse().unwrap(), "[::3]:8080".parse().unwrap()];
        vec![
            Endpoint::new("10.0.0.1:8080"),
            Endpoint::new("users-2.internal:8080")
                .with_instance("i-2")
                .with_weight(2.5)
                .with_priority(1)
                .with_locality("eu", "a", "r7")
                .with_reported(Reported::Healthy)
                .with_metadata("version", "v2"),
            Endpoint::new(Address::Sockets(both.into())).with_reported(Reported::Draining),
        ]
    }

    #[test]
    fn all_three_formats_say_the_same() {
        for (format, text) in [(Format::Yaml, YAML), (Format::Json, JSON), (Format::Toml, TOML)] {
            assert_eq!(format.parse(text).unwrap(), expected(), "{format:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = write(expected().iter());
        assert_eq!(Format::Json.parse(&text).unwrap(), expected(), "{text}");
        assert_eq!(Format::Yaml.parse(&text).unwrap(), expected(), "JSON is YAML");
    }

    #[test]
    fn an_error_has_its_line_and_its_reason() {
        for (format, text, line, reason) in [
            (Format::Yaml, "endpoints:\n  - a:1\n  - address: b:1\n    wieght: 2\n", "line 4", "wieght"),
            (
                Format::Yaml,
                "endpoints:\n  - address: b:1\n    weight: -2\n",
                "line 3",
                "a positive finite number",
            ),
            (Format::Yaml, "endpoints:\n  - {weight: 2}\n", "line 2", "address"),
            (Format::Yaml, "endpoints:\n  - a:1\n  - [", "line 3", "bracket"),
            (
                Format::Json,
                "{\"endpoints\": [\n\"a:1\",\n{\"address\": \"b:1\", \"weight\": 0}]}",
                "line 3",
                "weight = 0",
            ),
            (Format::Json, "{\"endpoints\": [\n\"a:1\",\n", "line", "EOF"),
            (Format::Json, "{\"endpoints\": [\n\"a b\"]}", "line 2", "without blanks"),
            (
                Format::Toml,
                "[[endpoints]]\naddress = \"a:1\"\n\n[[endpoints]]\naddress = 7\n",
                "line 5",
                "string",
            ),
            (Format::Toml, "[[endpoints]]\naddress = \"a:1\"\nhealth = \"well\"\n", "line 3", "well"),
            (Format::Json, "{}", "line 1", "endpoints"),
        ] {
            let error = format.parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(reason), "{format:?} {text:?}: {error}");
        }
    }

    #[test]
    fn the_format_is_told_by_the_extension() {
        assert_eq!(Format::of(Path::new("/etc/users.yml")), Some(Format::Yaml));
        assert_eq!(Format::of(Path::new("users.JSON")), Some(Format::Json));
        assert_eq!(Format::of(Path::new("users")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", format in 0_usize..3) {
            let _ = [Format::Yaml, Format::Json, Format::Toml][format].parse(&text);
        }

        #[test]
        fn no_part_of_a_list_panics_or_is_taken_for_another_endpoint(end in 0..YAML.len(), format in 0_usize..3) {
            let (format, text) = [(Format::Yaml, YAML), (Format::Json, JSON), (Format::Toml, TOML)][format];
            if let Ok(endpoints) = format.parse(&text[..end.min(text.len())]) {
                prop_assert!(endpoints.len() <= 3);
            }
        }
    }
}
