//! What Eureka says, in the JSON that it makes of its XML: numbers may be texts, and a list of one may be that one.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::SocketAddr};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::resolver::{EurekaOptions, Wanted};
use crate::{
    Endpoint,
    endpoint::{Address, Reported},
    resolve::web::WebError,
};

/// All applications, or what changed of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Applications {
    /// Of the registry after this, by the server's count.
    #[serde(rename = "apps__hashcode", deserialize_with = "null_is_nothing")]
    pub(super) hash: Text,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) application: Vec<Application>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Application {
    #[serde(deserialize_with = "null_is_nothing")]
    pub(super) name: String,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) instance: Vec<Instance>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Instance {
    #[serde(deserialize_with = "null_is_nothing")]
    instance_id: String,
    #[serde(deserialize_with = "null_is_nothing")]
    host_name: String,
    #[serde(deserialize_with = "null_is_nothing")]
    ip_addr: String,
    #[serde(deserialize_with = "null_is_nothing")]
    pub(super) status: String,
    #[serde(deserialize_with = "null_is_nothing")]
    pub(super) action_type: String,
    #[serde(deserialize_with = "null_is_nothing")]
    port: Port,
    #[serde(deserialize_with = "null_is_nothing")]
    secure_port: Port,
    #[serde(deserialize_with = "null_is_nothing")]
    vip_address: String,
    #[serde(deserialize_with = "null_is_nothing")]
    secure_vip_address: String,
    #[serde(deserialize_with = "null_is_nothing")]
    metadata: BTreeMap<String, Text>,
    #[serde(deserialize_with = "null_is_nothing")]
    data_center_info: DataCenter,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DataCenter {
    #[serde(deserialize_with = "null_is_nothing")]
    metadata: BTreeMap<String, Text>,
}

/// `{"$": 8080, "@enabled": "true"}`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    #[serde(rename = "$", deserialize_with = "null_is_nothing")]
    number: Text,
    #[serde(rename = "@enabled", deserialize_with = "null_is_nothing")]
    enabled: Text,
}

impl Port {
    fn get(&self) -> Option<u16> {
        let number = self.number.0.trim().parse().ok().filter(|number| *number > 0);
        number.filter(|_| self.enabled.0.trim().eq_ignore_ascii_case("true"))
    }
}

/// A text, or a number or truth value written as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a truth value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text::default())
            }

            // Metadata may hold anything, which is then no text.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text::default())
            }
        }
        from.deserialize_any(AnyText)
    }
}

fn null_is_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct OneOrMany<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one, or a list")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut many = Vec::new();
            while let Some(one) = seq.next_element()? {
                many.push(one);
            }
            Ok(many)
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }
    }
    from.deserialize_any(OneOrMany(PhantomData))
}

#[derive(Deserialize)]
struct Whole {
    applications: Applications,
}

pub(super) fn applications(text: &[u8]) -> Result<Applications, WebError> {
    let whole: Whole = serde_json::from_slice(text).map_err(WebError::document)?;
    Ok(whole.applications)
}

impl Instance {
    /// What it is known by within its application.
    pub(super) fn id(&self) -> &str {
        if self.instance_id.is_empty() { &self.host_name } else { &self.instance_id }
    }

    pub(super) fn is(&self, application: &str, wanted: &Wanted) -> bool {
        let has = |list: &str, name: &str| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(name));
        wanted.application.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(application))
            && wanted.vip.as_deref().is_none_or(|name| has(&self.vip_address, name))
            && wanted.secure_vip.as_deref().is_none_or(|name| has(&self.secure_vip_address, name))
    }

    pub(super) fn endpoint(&self, wanted: &Wanted, options: &EurekaOptions) -> Option<Endpoint> {
        let reported = match self.status.as_str() {
            "UP" => Reported::Healthy,
            _ if !options.all => return None,
            "OUT_OF_SERVICE" => Reported::Draining,
            _ => Reported::Unhealthy,
        };
        let is_secure = options.secure || wanted.secure_vip.is_some();
        let port = if is_secure { self.secure_port.get() } else { self.port.get() }?;
        let by_name = options.host_name || self.ip_addr.is_empty();
        let host = if by_name { &self.host_name } else { &self.ip_addr };
        if host.is_empty() {
            return None;
        }
        let address = host.parse().map_or_else(
            |_| Address::Authority(format!("{host}:{port}").into()),
            |ip| Address::Socket(SocketAddr::new(ip, port)),
        );
        let text = |key: &str| self.metadata.get(key).map_or("", |text| text.0.as_str());
        let zone = self
            .data_center_info
            .metadata
            .get("availability-zone")
            .map_or_else(|| text("zone"), |zone| zone.0.as_str());
        let mut endpoint = Endpoint::new(address)
            .with_reported(reported)
            .with_instance(self.id())
            .with_locality(text("region"), zone, "");
        // `@class` is the serialiser's.
        for (key, value) in self.metadata.iter().filter(|(key, _)| !key.starts_with('@')) {
            endpoint = endpoint.with_metadata(key, value.0.as_str());
        }
        Some(endpoint)
    }
}

/// Reads whatever `bytes` are as applications, and as changes to what they were.
#[cfg(any(test, fuzzing))]
pub(in crate::resolve) fn fuzz(bytes: &[u8]) {
    use super::registry::Registry;
    let (wanted, options) = (Wanted::default(), EurekaOptions::default().all(true));
    if let (Ok(all), Ok(delta)) = (applications(bytes), applications(bytes)) {
        let mut registry = Registry::of(all, &wanted);
        registry.apply(delta, &wanted);
        if let Some(told) = registry.endpoints(&wanted, &options) {
            let _ = crate::resolve::Resolution::bound(told);
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn shown(instance: Value, options: &EurekaOptions) -> String {
        let instance: Instance = serde_json::from_value(instance).unwrap();
        let wanted = Wanted::default();
        match instance.endpoint(&wanted, options) {
            Some(endpoint) => {
                format!("{} {:?} {}", endpoint.identity(), endpoint.reported(), endpoint.locality())
            }
            None => "none".to_owned(),
        }
    }

    fn instance() -> Value {
        json!({"instanceId": "i-1", "hostName": "one.internal", "ipAddr": "10.0.0.1", "status": "UP",
            "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": "8443", "@enabled": false},
            "metadata": {"@class": "java.util.Collections$EmptyMap", "zone": "b", "n": 7},
            "dataCenterInfo": {"@class": "x", "name": "Amazon", "metadata": {"availability-zone": "eu-1a"}}})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut instance = instance();
        instance[key] = value;
        instance
    }

    #[test]
    fn an_instance_is_read_whatever_its_numbers_are_written_as() {
        let options = EurekaOptions::default();
        assert_eq!(shown(instance(), &options), "10.0.0.1:8080 (i-1) Healthy /eu-1a");
        assert_eq!(shown(with("dataCenterInfo", json!(null)), &options), "10.0.0.1:8080 (i-1) Healthy /b");
        assert_eq!(
            shown(with("port", json!({"$": "81", "@enabled": true})), &options),
            "10.0.0.1:81 (i-1) Healthy /eu-1a"
        );
        assert_eq!(shown(with("port", json!({"$": 81, "@enabled": "false"})), &options), "none");
        assert_eq!(shown(instance(), &options.clone().secure(true)), "none");
        assert_eq!(shown(instance(), &options.host_name(true)), "one.internal:8080 (i-1) Healthy /eu-1a");
    }

    #[test]
    fn only_those_that_are_up_are_told_unless_all_are_asked_for() {
        let options = EurekaOptions::default();
        for (status, reported) in [
            ("OUT_OF_SERVICE", "Draining"),
            ("DOWN", "Unhealthy"),
            ("STARTING", "Unhealthy"),
            ("UNKNOWN", "Unhealthy"),
        ] {
            assert_eq!(shown(with("status", status.into()), &options), "none");
            assert!(
                shown(with("status", status.into()), &options.clone().all(true)).contains(reported),
                "{status}"
            );
        }
    }

    #[test]
    fn a_list_of_one_may_be_that_one() {
        let one = json!({"applications": {"versions__delta": "1", "apps__hashcode": "UP_1_",
            "application": {"name": "USERS", "instance": instance()}}});
        let read = applications(one.to_string().as_bytes()).unwrap();
        assert_eq!(
            (read.hash.0.as_str(), read.application.len(), read.application[0].instance.len()),
            ("UP_1_", 1, 1)
        );
        for empty in
            [json!({"applications": {"apps__hashcode": ""}}), json!({"applications": {"application": null}})]
        {
            assert!(applications(empty.to_string().as_bytes()).unwrap().application.is_empty());
        }
        assert!(applications(&one.to_string().as_bytes()[..50]).is_err());
    }

    #[test]
    fn virtual_addresses_are_lists() {
        let instance: Instance =
            serde_json::from_value(with("vipAddress", "users.v1, users.v2".into())).unwrap();
        let vip = |name: &str| Wanted { vip: Some(name.into()), ..Wanted::default() };
        assert!(instance.is("X", &vip("users.v2")) && !instance.is("X", &vip("users")));
        let app = |name: &str| Wanted { application: Some(name.into()), ..Wanted::default() };
        assert!(instance.is("USERS", &app("users")) && !instance.is("OTHERS", &app("users")));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            fuzz(text.as_bytes());
        }

        #[test]
        fn no_broken_document_panics(at in 0_usize..600, byte in any::<u8>(), cut in 0_usize..1200) {
            let one = json!({"applications": {"application": {"name": "USERS", "instance": [instance()]}}});
            let mut bytes = one.to_string().into_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            fuzz(&bytes);
        }
    }
}
