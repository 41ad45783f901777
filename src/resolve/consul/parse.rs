//! What Consul says of the health of a service.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Deserializer};

use super::ConsulOptions;
use crate::{
    Endpoint,
    endpoint::{Address, Reported},
    resolve::web::WebError,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, deserialize_with = "null_is_nothing")]
    node: Node,
    service: Service,
    #[serde(default, deserialize_with = "null_is_nothing")]
    checks: Vec<CheckEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    #[serde(deserialize_with = "null_is_nothing")]
    node: String,
    #[serde(deserialize_with = "null_is_nothing")]
    address: String,
    #[serde(deserialize_with = "null_is_nothing")]
    tagged_addresses: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_nothing")]
    meta: BTreeMap<String, String>,
    locality: Option<Place>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    #[serde(rename = "ID", deserialize_with = "null_is_nothing")]
    id: String,
    #[serde(deserialize_with = "null_is_nothing")]
    address: String,
    #[serde(deserialize_with = "port")]
    port: u16,
    #[serde(deserialize_with = "null_is_nothing")]
    tags: Vec<String>,
    #[serde(deserialize_with = "null_is_nothing")]
    meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_nothing")]
    tagged_addresses: BTreeMap<String, TaggedAddress>,
    #[serde(deserialize_with = "null_is_nothing")]
    weights: Weights,
    locality: Option<Place>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedAddress {
    address: String,
    #[serde(default, deserialize_with = "port")]
    port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weights {
    passing: f64,
    warning: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1.0, warning: 1.0 }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Place {
    #[serde(deserialize_with = "null_is_nothing")]
    region: String,
    #[serde(deserialize_with = "null_is_nothing")]
    zone: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CheckEntry {
    #[serde(deserialize_with = "null_is_nothing")]
    status: String,
}

fn null_is_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What is no port is none, as 0 is: nobody checks what is registered, and one that is odd must not cost the others.
fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let told: Option<i64> = Option::deserialize(from)?;
    Ok(told.and_then(|number| u16::try_from(number).ok()).unwrap_or(0))
}

/// The worst of the checks of an instance and its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Passing,
    Warning,
    Critical,
}

impl Entry {
    fn health(&self) -> Health {
        let health = |check: &CheckEntry| match check.status.as_str() {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            // Maintenance is critical, too. What is not known is not good.
            _ => Health::Critical,
        };
        self.checks.iter().map(health).max().unwrap_or(Health::Passing)
    }

    fn address(&self, options: &ConsulOptions) -> Option<Address> {
        let (node, service) = (&self.node, &self.service);
        let tagged = options.tagged_address.as_deref().and_then(|tag| {
            let own = service.tagged_addresses.get(tag).map(|tagged| (tagged.address.as_str(), tagged.port));
            own.or_else(|| node.tagged_addresses.get(tag).map(|address| (address.as_str(), 0)))
        });
        let own = if service.address.is_empty() { &node.address } else { &service.address };
        let (host, port) = tagged.unwrap_or((own, 0));
        let port = if port == 0 { service.port } else { port };
        if host.is_empty() || port == 0 {
            return None;
        }
        Some(host.parse().map_or_else(
            |_| Address::Authority(format!("{host}:{port}").into()),
            |ip| Address::Socket(SocketAddr::new(ip, port)),
        ))
    }

    fn endpoint(self, options: &ConsulOptions) -> Option<Endpoint> {
        let weight = match self.health() {
            Health::Passing => self.service.weights.passing,
            Health::Warning if !options.passing => self.service.weights.warning,
            _ => return None,
        };
        // A weight of nothing is how Consul takes one out.
        if !(weight.is_finite() && weight > 0.0) {
            return None;
        }
        let address = self.address(options)?;
        let place = |of: fn(&Place) -> &String, key: &str| {
            let known = [&self.service.locality, &self.node.locality];
            let told = known.into_iter().flatten().map(of).find(|text| !text.is_empty());
            told.or_else(|| self.service.meta.get(key))
                .or_else(|| self.node.meta.get(key))
                .cloned()
                .unwrap_or_default()
        };
        let region = place(|place| &place.region, &options.region_key);
        let zone = place(|place| &place.zone, &options.zone_key);
        let mut endpoint = Endpoint::new(address)
            .with_weight(weight)
            .with_reported(Reported::Healthy)
            .with_locality(&region, &zone, &self.node.node)
            .with_instance(self.service.id.as_str());
        for (key, value) in self.service.meta {
            endpoint = endpoint.with_metadata(key, value);
        }
        if !self.service.tags.is_empty() {
            endpoint = endpoint.with_metadata("tags", self.service.tags.join(","));
        }
        Some(endpoint)
    }
}

/// The endpoints that an answer tells, or `None` if it knows of no instance at all, healthy or not.
pub(super) fn endpoints(text: &[u8], options: &ConsulOptions) -> Result<Option<Vec<Endpoint>>, WebError> {
    let entries: Vec<Entry> = serde_json::from_slice(text).map_err(WebError::document)?;
    if entries.is_empty() {
        return Ok(None);
    }
    Ok(Some(entries.into_iter().filter_map(|entry| entry.endpoint(options)).collect()))
}

/// The index of a service, as one waits for a newer one.
///
/// One that goes backwards, as when a server was restored from a snapshot, is forgotten: the next question does not wait.
/// So is one that is missing. Nothing newer than 0 can be waited for, so 0 is taken as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Index(Option<u64>);

impl Index {
    pub(super) fn get(self) -> Option<u64> {
        self.0
    }

    pub(super) fn after(self, told: Option<&str>) -> Self {
        let told = told.and_then(|text| text.trim().parse::<u64>().ok()).map(|told| told.max(1));
        match (self.0, told) {
            (Some(known), Some(told)) if told < known => Self(None),
            (_, told) => Self(told),
        }
    }
}

/// Reads whatever `bytes` are as the health of a service.
#[cfg(any(test, fuzzing))]
pub(in crate::resolve) fn fuzz(bytes: &[u8]) {
    for options in [ConsulOptions::default(), ConsulOptions::default().tagged_address("wan")] {
        if let Ok(Some(told)) = endpoints(bytes, &options) {
            let _ = crate::resolve::Resolution::bound(told);
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn shown(entries: Value, options: &ConsulOptions) -> Vec<String> {
        let told = endpoints(entries.to_string().as_bytes(), options).unwrap();
        told.unwrap().iter().map(|endpoint| format!("{}*{}", endpoint.address(), endpoint.weight())).collect()
    }

    fn entry(service: Value, checks: &[&str]) -> Value {
        let checks: Vec<Value> = checks.iter().map(|status| json!({"Status": status})).collect();
        json!({"Node": {"Node": "n1", "Address": "10.0.0.9", "TaggedAddresses": {"wan": "192.0.2.9"},
            "Meta": {"zone": "b"}}, "Service": service, "Checks": checks})
    }

    #[test]
    fn health_is_the_worst_check_and_chooses_the_weight() {
        let weights = json!({"Passing": 10, "Warning": 2});
        let service = |last: u8| json!({"ID": "u", "Address": format!("10.0.0.{last}"), "Port": 80, "Weights": weights});
        let all = json!([
            entry(service(1), &["passing", "passing"]),
            entry(service(2), &["passing", "warning"]),
            entry(service(3), &["warning", "critical"]),
            entry(service(4), &[]),
            entry(service(5), &["maintenance"]),
        ]);
        let options = ConsulOptions::default();
        assert_eq!(shown(all.clone(), &options), ["10.0.0.1:80*10", "10.0.0.2:80*2", "10.0.0.4:80*10"]);
        assert_eq!(shown(all, &options.passing(true)), ["10.0.0.1:80*10", "10.0.0.4:80*10"]);
    }

    #[test]
    fn a_weight_of_nothing_takes_one_out_and_no_weight_is_one() {
        let zero = json!({"Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 0, "Warning": 1}});
        let none = json!({"Address": "10.0.0.2", "Port": 80});
        assert_eq!(
            shown(json!([entry(zero, &["passing"]), entry(none, &[])]), &ConsulOptions::default()),
            ["10.0.0.2:80*1"]
        );
    }

    #[test]
    fn an_address_is_the_services_or_the_nodes_or_a_tagged_one() {
        let plain = json!({"Address": "", "Port": 80});
        let tagged = json!({"Address": "10.0.0.1", "Port": 80, "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 443}}});
        let host = json!({"Address": "users.internal", "Port": 80});
        let without = json!({"Address": "10.0.0.1", "Port": 0});
        let all = json!([entry(plain, &[]), entry(tagged, &[]), entry(host, &[]), entry(without, &[])]);
        let options = ConsulOptions::default();
        assert_eq!(shown(all.clone(), &options), ["10.0.0.9:80*1", "10.0.0.1:80*1", "users.internal:80*1"]);
        assert_eq!(
            shown(all, &options.tagged_address("wan")),
            ["192.0.2.9:80*1", "198.51.100.1:443*1", "192.0.2.9:80*1"]
        );
    }

    #[test]
    fn an_instance_with_a_port_that_is_none_costs_the_others_nothing() {
        let at = |port: i64| entry(json!({"Address": "10.0.0.1", "Port": port}), &[]);
        let all = json!([at(-1), at(80), at(70_000)]);
        assert_eq!(shown(all, &ConsulOptions::default()), ["10.0.0.1:80*1"]);
    }

    #[test]
    fn locality_is_consuls_own_or_metadata() {
        let one = json!([entry(
            json!({"ID": "u-1", "Port": 80, "Tags": ["v2", "blue"], "Meta": {"rack": "r7"}, "Locality": {"Region": "eu"}}),
            &[]
        )]);
        let told = endpoints(one.to_string().as_bytes(), &ConsulOptions::default()).unwrap().unwrap();
        assert_eq!(told[0].locality().to_string(), "eu/b/n1");
        assert_eq!(told[0].metadata()["tags"], "v2,blue");
        let told = endpoints(one.to_string().as_bytes(), &ConsulOptions::default().zone_key("rack"))
            .unwrap()
            .unwrap();
        assert_eq!(told[0].locality().to_string(), "eu/r7/n1");
    }

    #[test]
    fn a_service_without_an_instance_is_told_from_one_without_a_healthy_one() {
        let options = ConsulOptions::default();
        assert!(endpoints(b"[]", &options).unwrap().is_none());
        let sick = json!([entry(json!({"Port": 80}), &["critical"])]).to_string();
        assert_eq!(endpoints(sick.as_bytes(), &options).unwrap().map(|told| told.len()), Some(0));
        assert!(endpoints(&sick.as_bytes()[..20], &options).is_err());
    }

    #[test]
    fn an_index_that_goes_backwards_is_forgotten() {
        let index = Index::default().after(Some("7"));
        assert_eq!(index.get(), Some(7));
        assert_eq!(index.after(Some("9")).get(), Some(9));
        assert_eq!(index.after(Some("7")).get(), Some(7));
        assert_eq!(index.after(Some("6")).get(), None);
        assert_eq!(index.after(Some("6")).after(Some("6")).get(), Some(6));
        assert_eq!(index.after(None).get(), None);
        assert_eq!(Index::default().after(Some("0")).get(), Some(1));
        assert_eq!(index.after(Some("x")).get(), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            fuzz(text.as_bytes());
            let _ = Index::default().after(Some(&text));
        }

        #[test]
        fn no_broken_document_panics(at in 0_usize..600, byte in any::<u8>(), cut in 0_usize..1200) {
            let service = json!({"ID": "u", "Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 1, "Warning": 1}});
            let mut bytes = json!([entry(service, &["passing"])]).to_string().into_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            fuzz(&bytes);
        }
    }
}
