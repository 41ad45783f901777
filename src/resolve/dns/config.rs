//! Service configs of gRPC that are kept in TXT records.

use std::{fmt, sync::Arc};

use serde_json::Value;

/// What a TXT record begins with that holds service configs.
const ATTRIBUTE: &[u8] = b"grpc_config=";

/// The client language that choices may be meant for.
const LANGUAGE: &str = "rust";

/// What is given the JSON text of a config.
type Take = dyn Fn(Option<&str>) + Send + Sync;

/// Takes the service config that the owners of a name keep for its clients, in a TXT record of `_grpc_config.` and the
/// name ([gRFC A2](https://github.com/grpc/proposal/blob/master/A2-service-configs-in-dns.md)). Off by default, as in
/// gRPC: who can write to the zone can change how its clients behave, and each look-up asks one question more.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use mainstay::resolve::{self, ServiceConfigs};
///
/// let latest = Arc::new(Mutex::new(None));
/// let users = resolve::dns("users.internal:50051").service_configs(ServiceConfigs::new({
///     let latest = latest.clone();
///     move |json| *latest.lock().unwrap() = json.map(str::to_owned)
/// }));
/// # let _ = users;
/// ```
#[derive(Clone)]
pub struct ServiceConfigs {
    take: Arc<Take>,
    hostname: Option<Arc<str>>,
}

impl ServiceConfigs {
    /// Gives the JSON text of the config that was chosen to `take`, whenever it is another one than before; `None` where
    /// there is none any more. A record that cannot be read, and servers that do not answer, change nothing.
    pub fn new(take: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        Self { take: Arc::new(take), hostname: None }
    }

    /// The name of this machine, for choices that are meant for some machines \[unknown: none of those is taken\].
    #[must_use]
    pub fn hostname(mut self, hostname: &str) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// The first of the choices in `records` that is meant for a client like this: Rust, on a machine called `hostname`,
    /// and with a `percent` from 0 to 99 that is below the choice's `percentage`. Each record is all of its strings, one
    /// after the other. `None` where no record begins with `grpc_config=`, or no choice is meant for it.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn choose<R: AsRef<[u8]>>(
        records: impl IntoIterator<Item = R>,
        hostname: Option<&str>,
        percent: u8,
    ) -> Result<Option<String>, String> {
        for record in records {
            let Some(json) = record.as_ref().strip_prefix(ATTRIBUTE) else { continue };
            let choices: Value =
                serde_json::from_slice(json).map_err(|error| format!("grpc_config: {error}"))?;
            let Value::Array(choices) = choices else {
                return Err("grpc_config: not a list of choices".to_owned());
            };
            for choice in choices {
                if is_meant(&choice, hostname, percent)? {
                    return match choice.get("serviceConfig") {
                        Some(config @ Value::Object(_)) => Ok(Some(config.to_string())),
                        _ => Err("grpc_config: serviceConfig is missing or no object".to_owned()),
                    };
                }
            }
        }
        Ok(None)
    }

    pub(super) fn choose_here(&self, records: &[Vec<u8>], percent: u8) -> Result<Option<String>, String> {
        Self::choose(records, self.hostname.as_deref(), percent)
    }

    pub(super) fn give(&self, json: Option<&str>) {
        (self.take)(json);
    }
}

fn is_meant(choice: &Value, hostname: Option<&str>, percent: u8) -> Result<bool, String> {
    let Value::Object(choice) = choice else { return Err("grpc_config: a choice is no object".to_owned()) };
    for key in choice.keys() {
        if !["clientLanguage", "percentage", "clientHostname", "serviceConfig"].contains(&key.as_str()) {
            return Err(format!("grpc_config: unknown key {key:?}"));
        }
    }
    let is_among = |key: &str, is_it: &dyn Fn(&str) -> bool| match choice.get(key) {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Array(words)) => {
            Ok(words.is_empty() || words.iter().filter_map(Value::as_str).any(is_it))
        }
        Some(_) => Err(format!("grpc_config: {key} is no list")),
    };
    let is_below = match choice.get("percentage") {
        None | Some(Value::Null) => true,
        Some(percentage) => match percentage.as_u64() {
            Some(percentage @ 0..=100) => u64::from(percent) < percentage,
            _ => return Err("grpc_config: percentage is not from 0 to 100".to_owned()),
        },
    };
    Ok(is_among("clientLanguage", &|word| word.eq_ignore_ascii_case(LANGUAGE))?
        && is_among("clientHostname", &|word| Some(word) == hostname)?
        && is_below)
}

impl fmt::Debug for ServiceConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConfigs").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHOICES: &str = r#"grpc_config=[
        {"clientLanguage": ["go", "java"], "serviceConfig": {"a": 1}},
        {"percentage": 10, "serviceConfig": {"a": 2}},
        {"clientHostname": ["box"], "serviceConfig": {"a": 3}},
        {"clientLanguage": ["RUST"], "serviceConfig": {"a": 4}}]"#;

    fn chosen(records: &[&str], hostname: Option<&str>, percent: u8) -> Result<Option<String>, String> {
        ServiceConfigs::choose(records, hostname, percent)
    }

    #[test]
    fn the_first_choice_that_is_meant_for_a_client_is_taken() {
        for (hostname, percent, json) in [
            (None, 9, r#"{"a":2}"#),
            (None, 10, r#"{"a":4}"#),
            (Some("box"), 10, r#"{"a":3}"#),
            (Some("bow"), 99, r#"{"a":4}"#),
        ] {
            assert_eq!(chosen(&["v=spf1 -all", CHOICES], hostname, percent).unwrap().as_deref(), Some(json));
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_is_meant_for_a_client() {
        for none in ["", "other", "grpc_config=[]", r#"grpc_config=[{"percentage":0,"serviceConfig":{}}]"#] {
            assert_eq!(chosen(&[none], None, 0), Ok(None), "{none}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (text, told) in [
            ("grpc_config=", "EOF"),
            ("grpc_config={}", "not a list"),
            ("grpc_config=[1]", "no object"),
            (r#"grpc_config=[{"percentage":101,"serviceConfig":{}}]"#, "0 to 100"),
            (r#"grpc_config=[{"serviceConfig":[]}]"#, "serviceConfig"),
            (r#"grpc_config=[{"clientLanguage":"rust","serviceConfig":{}}]"#, "no list"),
            (r#"grpc_config=[{"clientLang":[],"serviceConfig":{}}]"#, "unknown key"),
        ] {
            let error = chosen(&[text], None, 0).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..60), percent in 0_u8..100) {
            let _ = ServiceConfigs::choose([[ATTRIBUTE, &record].concat()], None, percent);
            let _ = ServiceConfigs::choose([record], None, percent);
        }
    }
}
