//! The EndpointSlices of one service, and the endpoints in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Deserializer};

use super::name::Port;
use crate::{
    Endpoint,
    endpoint::{Address, Reported},
    resolve::web::WebError,
};

/// A list of slices, or a page of one.
#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    #[serde(default, deserialize_with = "null_is_nothing")]
    pub(super) items: Vec<Slice>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    #[serde(deserialize_with = "null_is_nothing")]
    pub(super) resource_version: String,
    #[serde(rename = "continue", deserialize_with = "null_is_nothing")]
    pub(super) next: String,
}

/// One slice: some of the endpoints of a service, which have the same ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Slice {
    metadata: Meta,
    #[serde(deserialize_with = "null_is_nothing")]
    address_type: String,
    #[serde(deserialize_with = "null_is_nothing")]
    endpoints: Vec<Entry>,
    #[serde(deserialize_with = "null_is_nothing")]
    ports: Vec<SlicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    #[serde(deserialize_with = "null_is_nothing")]
    name: String,
    #[serde(deserialize_with = "null_is_nothing")]
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    #[serde(deserialize_with = "null_is_nothing")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "null_is_nothing")]
    conditions: Conditions,
    node_name: Option<String>,
    zone: Option<String>,
    #[serde(deserialize_with = "null_is_nothing")]
    hints: Hints,
    #[serde(deserialize_with = "null_is_nothing")]
    target_ref: TargetRef,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    #[serde(deserialize_with = "null_is_nothing")]
    for_zones: Vec<ForZone>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ForZone {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    uid: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlicePort {
    #[serde(deserialize_with = "null_is_nothing")]
    name: String,
    port: Option<u16>,
    protocol: Option<String>,
}

/// Kubernetes writes `null` where it means nothing.
fn null_is_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Event {
    Changed(Slice),
    Deleted(Slice),
    /// Nothing, up to this version.
    Bookmark(String),
    /// The watch is over: with the code of a status, and its message.
    Error(u16, String),
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

impl Event {
    pub(super) fn parse(line: &[u8]) -> Result<Self, WebError> {
        let raw: RawEvent<'_> = serde_json::from_slice(line).map_err(WebError::document)?;
        let slice = || serde_json::from_str::<Slice>(raw.object.get()).map_err(WebError::document);
        match raw.kind {
            "ADDED" | "MODIFIED" => slice().map(Self::Changed),
            "DELETED" => slice().map(Self::Deleted),
            "BOOKMARK" => slice().map(|slice| Self::Bookmark(slice.metadata.resource_version)),
            "ERROR" => {
                let status: Status = serde_json::from_str(raw.object.get()).map_err(WebError::document)?;
                Ok(Self::Error(status.code, status.message))
            }
            other => Err(WebError::document(format_args!("an event of type {other:?}"))),
        }
    }

    /// The version that a watch goes on after.
    pub(super) fn version(&self) -> Option<&str> {
        let version = match self {
            Self::Changed(slice) | Self::Deleted(slice) => slice.metadata.resource_version.as_str(),
            Self::Bookmark(version) => version,
            Self::Error(..) => return None,
        };
        (!version.is_empty()).then_some(version)
    }
}

pub(super) fn page(text: &[u8]) -> Result<Page, WebError> {
    serde_json::from_slice(text).map_err(WebError::document)
}

/// All slices of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices(BTreeMap<String, Slice>);

impl Slices {
    pub(super) fn insert(&mut self, slice: Slice) {
        self.0.insert(slice.metadata.name.clone(), slice);
    }

    pub(super) fn remove(&mut self, slice: &Slice) {
        self.0.remove(&slice.metadata.name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The endpoints at `port`. `zone` is the one whose hints are honoured, if any.
    ///
    /// # Errors
    /// If the port is one that no slice has, or several could be meant.
    pub(super) fn endpoints(&self, port: &Port, zone: Option<&str>) -> Result<Vec<Endpoint>, WebError> {
        let instances = self.instances(port)?;
        let any_ready = instances.iter().any(|(_, entry)| entry.is_ready());
        let hinted = zone.filter(|zone| {
            let mut ready = instances.iter().filter(|(_, entry)| entry.is_ready()).peekable();
            let is_for = |entry: &Entry| entry.hints.for_zones.iter().any(|hint| hint.name == **zone);
            let all_hint = ready.clone().all(|(_, entry)| !entry.hints.for_zones.is_empty());
            ready.peek().is_some() && all_hint && ready.any(|(_, entry)| is_for(entry))
        });
        let endpoints = instances.iter().filter_map(|(address, entry)| {
            let reported = match (entry.is_ready(), any_ready) {
                (true, _) => Reported::Healthy,
                (false, _) if !entry.is_serving_its_last() => return None,
                (false, true) => Reported::Draining,
                // What is on its way out is all there is.
                (false, false) => Reported::Healthy,
            };
            let is_elsewhere = |zone: &str| !entry.hints.for_zones.iter().any(|hint| hint.name == zone);
            if entry.is_ready() && hinted.is_some_and(is_elsewhere) {
                return None;
            }
            Some(entry.endpoint(address.clone()).with_reported(reported))
        });
        Ok(endpoints.collect())
    }

    /// Who is where: one for each pod, and for each address that is no pod's.
    fn instances(&self, port: &Port) -> Result<Vec<(Address, &Entry)>, WebError> {
        let mut names = BTreeSet::new();
        let (mut found, mut is_wanted) = (false, false);
        let mut sockets: BTreeMap<SocketAddr, &Entry> = BTreeMap::new();
        let mut hosts: BTreeMap<Arc<str>, &Entry> = BTreeMap::new();
        for slice in self.0.values() {
            let number = match slice.number(port) {
                Ok(number) => number,
                Err(own) => {
                    is_wanted |= !slice.endpoints.is_empty();
                    names.extend(own);
                    continue;
                }
            };
            found = true;
            for entry in &slice.endpoints {
                // Several addresses of one entry are the same place.
                let Some(text) = entry.addresses.first() else { continue };
                match text.parse::<IpAddr>() {
                    Ok(ip) => keep(&mut sockets, SocketAddr::new(ip, number), entry),
                    Err(_) if slice.address_type == "FQDN" => {
                        keep(&mut hosts, format!("{text}:{number}").into(), entry);
                    }
                    Err(_) => {
                        tracing::debug!(target: "mainstay", address = %text, "an endpoint without an address")
                    }
                }
            }
        }
        if !found && is_wanted {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(WebError::document(format_args!("{port}: the service has {}", names.join(", "))));
        }
        Ok(by_pod(sockets)
            .into_iter()
            .chain(hosts.into_iter().map(|(host, entry)| (Address::Authority(host), entry)))
            .collect())
    }
}

/// Of two that claim the same place, as when a slice is split or a pod inherits an address, the better one counts.
fn keep<'a, K: Ord>(places: &mut BTreeMap<K, &'a Entry>, place: K, entry: &'a Entry) {
    let rank = |entry: &Entry| (entry.is_ready(), entry.is_serving_its_last());
    places
        .entry(place)
        .and_modify(|known| {
            if rank(entry) >= rank(known) {
                *known = entry;
            }
        })
        .or_insert(entry);
}

/// A pod of two families is in two slices, and one endpoint.
fn by_pod(sockets: BTreeMap<SocketAddr, &Entry>) -> Vec<(Address, &Entry)> {
    let mut pods: BTreeMap<&str, (Vec<SocketAddr>, &Entry)> = BTreeMap::new();
    let mut instances = Vec::new();
    for (socket, entry) in sockets {
        match entry.target_ref.uid.as_deref() {
            Some(uid) => pods.entry(uid).or_insert_with(|| (Vec::new(), entry)).0.push(socket),
            None => instances.push((Address::Socket(socket), entry)),
        }
    }
    instances.extend(pods.into_values().map(|(sockets, entry)| match sockets[..] {
        [socket] => (Address::Socket(socket), entry),
        _ => (Address::Sockets(sockets.into()), entry),
    }));
    instances
}

impl Slice {
    /// The number that `port` has in this slice, or else the names of its ports.
    fn number(&self, port: &Port) -> Result<u16, Vec<&str>> {
        let is_tcp = |port: &&SlicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let tcp: Vec<&SlicePort> = self.ports.iter().filter(is_tcp).collect();
        let found = match port {
            Port::Number(number) => return Ok(*number),
            Port::Named(name) => tcp.iter().find(|port| port.name == *name),
            Port::Only if tcp.len() == 1 => tcp.first(),
            Port::Only => None,
        };
        let names =
            || tcp.iter().map(|port| if port.name.is_empty() { "one without a name" } else { &port.name });
        found.and_then(|port| port.port).ok_or_else(|| names().collect())
    }
}

impl Entry {
    /// Not said is yes.
    fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// Going away, and still good for what it has.
    fn is_serving_its_last(&self) -> bool {
        self.conditions.serving.unwrap_or(self.is_ready()) && self.conditions.terminating == Some(true)
    }

    fn endpoint(&self, address: Address) -> Endpoint {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut endpoint =
            Endpoint::new(address).with_locality("", &text(&self.zone), &text(&self.node_name));
        if let Some(uid) = &self.target_ref.uid {
            endpoint = endpoint.with_instance(uid.as_str());
        }
        if let Some(pod) = &self.target_ref.name {
            endpoint = endpoint.with_metadata("pod", pod);
        }
        if !self.hints.for_zones.is_empty() {
            let zones: Vec<&str> = self.hints.for_zones.iter().map(|zone| zone.name.as_str()).collect();
            endpoint = endpoint.with_metadata("for-zones", zones.join(","));
        }
        endpoint
    }
}

/// Reads whatever `bytes` are as a page, as an event, and makes endpoints of what is there.
#[cfg(any(test, fuzzing))]
pub(in crate::resolve) fn fuzz(bytes: &[u8]) {
    let mut slices = Slices::default();
    if let Ok(page) = page(bytes) {
        page.items.into_iter().for_each(|slice| slices.insert(slice));
    }
    if let Ok(event) = Event::parse(bytes) {
        let _ = event.version();
        if let Event::Changed(slice) | Event::Deleted(slice) = event {
            slices.insert(slice);
        }
    }
    for port in [Port::Only, Port::Number(80), Port::Named("http".to_owned())] {
        let _ = slices.endpoints(&port, Some("a"));
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn slices(values: &[Value]) -> Slices {
        let mut slices = Slices::default();
        for value in values {
            slices.insert(serde_json::from_value(value.clone()).unwrap());
        }
        slices
    }

    fn slice(name: &str, endpoints: Value) -> Value {
        json!({"metadata": {"name": name}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "admin", "port": 9090}]})
    }

    fn named(name: &str) -> Port {
        Port::Named(name.to_owned())
    }

    /// Addresses with `+` for healthy and `-` for draining.
    fn shown(slices: &Slices, port: &Port, zone: Option<&str>) -> String {
        let endpoints = match slices.endpoints(port, zone) {
            Ok(endpoints) => endpoints,
            Err(error) => return error.to_string(),
        };
        let mut words: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let mark = if endpoint.reported() == Reported::Healthy { '+' } else { '-' };
                format!("{}{mark}", endpoint.address())
            })
            .collect();
        words.sort();
        words.join(" ")
    }

    #[test]
    fn conditions_mean_what_kube_proxy_makes_of_them() {
        let known = slices(&[slice(
            "a",
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {}},
                {"addresses": ["10.0.0.3"]},
                {"addresses": ["10.0.0.4"], "conditions": null},
                {"addresses": ["10.0.0.5"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.7"], "conditions": {"ready": false, "serving": false, "terminating": true}},
            ]),
        )]);
        let told = "10.0.0.1:8080+ 10.0.0.2:8080+ 10.0.0.3:8080+ 10.0.0.4:8080+ 10.0.0.6:8080-";
        assert_eq!(shown(&known, &named("http"), None), told);
        let last = slices(&[slice(
            "a",
            json!([
                {"addresses": ["10.0.0.5"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ]),
        )]);
        assert_eq!(shown(&last, &named("http"), None), "10.0.0.6:8080+", "all there is");
    }

    #[test]
    fn ports_are_found_by_name_and_number() {
        let known = slices(&[slice("a", json!([{"addresses": ["10.0.0.1"]}]))]);
        assert_eq!(shown(&known, &named("admin"), None), "10.0.0.1:9090+");
        assert_eq!(shown(&known, &Port::Number(81), None), "10.0.0.1:81+");
        let told = "what it says is not understood: no port is named: the service has admin, http";
        assert_eq!(shown(&known, &Port::Only, None), told);
        let told = "what it says is not understood: no port \"dns\" of TCP: the service has admin, http";
        assert_eq!(shown(&known, &named("dns"), None), told);
        let one = json!({"metadata": {"name": "a"}, "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}],
            "ports": [{"name": null, "port": 80}]});
        assert_eq!(shown(&slices(&[one]), &Port::Only, None), "a.example:80+");
        let none = json!({"metadata": {"name": "a"}, "endpoints": null, "ports": null});
        assert_eq!(shown(&slices(&[none]), &named("http"), None), "", "a service that is scaled to nothing");
    }

    #[test]
    fn several_slices_are_one_set_and_of_two_claims_to_an_address_the_better_counts() {
        let known = slices(&[
            slice(
                "a",
                json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]),
            ),
            slice("b", json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}])),
            slice("c", json!([{"addresses": ["10.0.0.3"], "conditions": {"ready": false}}])),
        ]);
        assert_eq!(shown(&known, &named("http"), None), "10.0.0.1:8080+ 10.0.0.2:8080+ 10.0.0.3:8080+");
    }

    #[test]
    fn a_pod_of_two_families_is_one_endpoint() {
        let mut other =
            slice("b", json!([{"addresses": ["fd00::1"], "targetRef": {"uid": "u-1", "name": "pod-1"}}]));
        other["addressType"] = "IPv6".into();
        let known = slices(&[
            slice(
                "a",
                json!([{"addresses": ["10.0.0.1"], "targetRef": {"uid": "u-1", "name": "pod-1"},
            "zone": "eu-1a", "nodeName": "n-7"}]),
            ),
            other,
        ]);
        let endpoints = known.endpoints(&named("http"), None).unwrap();
        let [endpoint] = &endpoints[..] else { panic!("{endpoints:?}") };
        assert_eq!(endpoint.address().sockets().len(), 2);
        assert_eq!(endpoint.instance(), Some("u-1"));
        assert_eq!(endpoint.metadata()["pod"], "pod-1");
        assert_eq!((&*endpoint.locality().zone, &*endpoint.locality().sub_zone), ("eu-1a", "n-7"));
    }

    #[test]
    fn hints_are_honoured_only_where_all_have_some_and_one_is_for_us() {
        let hint = |address: &str, zones: &[&str]| {
            let zones: Vec<Value> = zones.iter().map(|zone| json!({"name": zone})).collect();
            json!({"addresses": [address], "hints": {"forZones": zones}})
        };
        let known = slices(&[slice(
            "a",
            json!([hint("10.0.0.1", &["a"]), hint("10.0.0.2", &["b"]), hint("10.0.0.3", &["a", "b"])]),
        )]);
        let all = "10.0.0.1:8080+ 10.0.0.2:8080+ 10.0.0.3:8080+";
        assert_eq!(shown(&known, &named("http"), None), all);
        assert_eq!(shown(&known, &named("http"), Some("a")), "10.0.0.1:8080+ 10.0.0.3:8080+");
        assert_eq!(shown(&known, &named("http"), Some("c")), all);
        let partly = slices(&[slice("a", json!([hint("10.0.0.1", &["a"]), {"addresses": ["10.0.0.2"]}]))]);
        assert_eq!(shown(&partly, &named("http"), Some("a")), "10.0.0.1:8080+ 10.0.0.2:8080+");
        assert_eq!(known.endpoints(&named("http"), None).unwrap()[2].metadata()["for-zones"], "a,b");
    }

    #[test]
    fn events_are_told_apart() {
        let event = |text: &str| Event::parse(text.as_bytes());
        assert!(matches!(event(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#),
            Ok(Event::Bookmark(version)) if version == "7"));
        assert!(matches!(
            event(r#"{"type":"ERROR","object":{"code":410,"message":"old"}}"#),
            Ok(Event::Error(410, _))
        ));
        assert!(matches!(
            event(r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#),
            Ok(Event::Changed(_))
        ));
        assert!(event(r#"{"type":"ADDED","object":{"metadata":"#).is_err());
        assert!(event(r#"{"type":"NEW","object":{}}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            fuzz(text.as_bytes());
        }

        #[test]
        fn no_broken_document_panics(at in 0_usize..2000, byte in any::<u8>(), cut in 0_usize..4000) {
            let entry = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true},
                "zone": "a", "hints": {"forZones": [{"name": "a"}]}, "targetRef": {"uid": "u", "name": "n"}});
            let known = slice("a", json!([entry]));
            for whole in [json!({"metadata": {"continue": ""}, "items": [known]}), json!({"type": "ADDED", "object": known})] {
                let mut bytes = whole.to_string().into_bytes();
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
                bytes.truncate(cut);
                fuzz(&bytes);
            }
        }
    }
}
