//! What a server says of its load, beside its answers.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    str,
};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{
    base64,
    protobuf::{Field, Wire, put_bytes, put_double},
};

/// The header, or trailer, of a report in text or JSON.
pub const LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The one of a report in binary, which is what gRPC uses.
pub const LOAD_METRICS_BIN: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Of names, a report has at most so many in each of its lists.
const NAMES: usize = 100;

/// A server's load: ORCA's `OrcaLoadReport`. What it does not say is 0.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// `cpu_utilization`: 0 for none of the CPU that the server has; it may exceed 1 where it takes more than it was given.
    pub cpu: f64,
    /// `mem_utilization`: 0 to 1.
    pub memory: f64,
    /// `application_utilization`: what the application calls its load; it may exceed 1.
    pub application: f64,
    /// `rps_fractional`: requests per second.
    pub rps: f64,
    /// `eps`: errors per second.
    pub eps: f64,
    /// `request_cost`: what this one request cost, by the application's own names.
    pub request_cost: BTreeMap<String, f64>,
    /// `utilization`: of resources by the application's own names, each 0 to 1.
    pub utilization: BTreeMap<String, f64>,
    /// `named_metrics`: anything else.
    pub named: BTreeMap<String, f64>,
}

impl LoadReport {
    /// Longer reports are not read.
    pub(crate) const LONGEST: usize = 16 * 1024;

    /// Reads the report among the headers, or trailers, of an answer: the binary one, or else the other. `None` where there is
    /// none, and where one breaks a rule: numbers are finite and not negative, those of memory and of named resources at most 1. What
    /// is not known is passed over.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(LOAD_METRICS_BIN) {
            return Self::from_binary(&base64::decode(bounded(value.as_bytes())?)?);
        }
        Self::parse(str::from_utf8(bounded(headers.get(LOAD_METRICS)?.as_bytes())?).ok()?)
    }

    /// Reads a report in one of three forms: `TEXT cpu_utilization=0.3, named_metrics.queue=7`,
    /// `JSON {"cpu_utilization": 0.3}`, or `BIN` and protobuf in base 64.
    pub fn parse(text: &str) -> Option<Self> {
        bounded(text.as_bytes())?;
        let text = text.trim();
        match text.split_once(' ') {
            Some(("TEXT", pairs)) => Self::from_text(pairs),
            Some(("JSON", object)) => Self::from_json(object),
            Some(("BIN", bytes)) => Self::from_binary(&base64::decode(bytes.trim().as_bytes())?),
            _ => None,
        }
    }

    fn from_text(pairs: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in pairs.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            // What is not known need be no number.
            let value = || value.trim().parse().ok();
            match name.trim().split_once('.') {
                None if is_known(name.trim()) => report.set(name.trim(), value()?)?,
                Some((list, name)) if is_known(list) => report.set_named(list, name, value()?)?,
                _ => {}
            }
        }
        Some(report)
    }

    fn from_json(object: &str) -> Option<Self> {
        let object: Map<String, Value> = serde_json::from_str(object).ok()?;
        let mut report = Self::default();
        for (name, value) in object.iter().filter(|(name, _)| is_known(name)) {
            match value {
                Value::Object(list) => {
                    for (key, value) in list {
                        report.set_named(name, key, number(value)?)?;
                    }
                }
                Value::Null => {}
                value => report.set(name, number(value)?)?,
            }
        }
        Some(report)
    }

    /// Reads a report in protobuf, as it is within `endpoint-load-metrics-bin`.
    pub fn from_binary(bytes: &[u8]) -> Option<Self> {
        let (mut report, mut rest) = (Self::default(), bounded(bytes)?);
        while !rest.is_empty() {
            let field = Field::read(&mut rest)?;
            let name = FIELDS.iter().find(|(number, _)| *number == field.number).map(|(_, name)| *name);
            match (name, field.value) {
                (Some(name @ ("request_cost" | "utilization" | "named_metrics")), Wire::Bytes(entry)) => {
                    let (key, value) = entry_of(entry)?;
                    report.set_named(name, key, value)?;
                }
                (Some("rps"), Wire::Varint(rps)) => report.set("rps", rps as f64)?,
                (Some(name), Wire::Double(value)) => report.set(name, value)?,
                _ => {}
            }
        }
        Some(report)
    }

    /// What `other` says stands in place of what this says.
    #[cfg(feature = "server")]
    pub(crate) fn override_by(&mut self, other: Self) {
        for (name, value) in other.plain().into_iter().filter(|(_, value)| *value != 0.0) {
            self.set(name, value);
        }
        self.request_cost.extend(other.request_cost);
        self.utilization.extend(other.utilization);
        self.named.extend(other.named);
    }

    /// Leaves out what breaks a rule, for which readers would reject the rest, too.
    #[cfg(feature = "server")]
    pub(crate) fn leave_out_unsound(&mut self) {
        let whole = std::mem::take(self);
        for (name, value) in whole.plain() {
            self.set(name, value);
        }
        for (list, entries) in whole.lists() {
            for (name, value) in entries {
                self.set_named(list, name, *value);
            }
        }
    }

    fn set(&mut self, name: &str, value: f64) -> Option<()> {
        let (field, most) = match name {
            "cpu_utilization" => (&mut self.cpu, f64::MAX),
            "mem_utilization" => (&mut self.memory, 1.0),
            "application_utilization" => (&mut self.application, f64::MAX),
            "rps_fractional" | "rps" => (&mut self.rps, f64::MAX),
            "eps" => (&mut self.eps, f64::MAX),
            _ => return Some(()),
        };
        *field = sound(value, most)?;
        Some(())
    }

    fn set_named(&mut self, list: &str, name: &str, value: f64) -> Option<()> {
        let (list, most) = match list {
            "request_cost" => (&mut self.request_cost, f64::MAX),
            "utilization" => (&mut self.utilization, 1.0),
            "named_metrics" => (&mut self.named, f64::MAX),
            _ => return Some(()),
        };
        let value = sound(value, most)?;
        if list.len() >= NAMES && !list.contains_key(name) {
            return None;
        }
        list.insert(name.to_owned(), value);
        Some(())
    }

    /// The report for [`LOAD_METRICS`], in text; names with a comma or an equals sign, or what no header can hold, are left out.
    pub fn to_text(&self) -> HeaderValue {
        let mut text = String::from("TEXT ");
        let mut add = |name: fmt::Arguments<'_>, value: f64| {
            let separator = if text.len() > 5 { "," } else { "" };
            let _ = write!(text, "{separator}{name}={value}");
        };
        // What has a field of its own and is not said is 0; among names an absence is no 0.
        for (name, value) in self.plain().into_iter().filter(|(_, value)| *value != 0.0) {
            add(format_args!("{name}"), value);
        }
        for (list, entries) in self.lists() {
            for (name, value) in entries.iter().filter(|(name, _)| is_plain(name)) {
                add(format_args!("{list}.{name}"), *value);
            }
        }
        HeaderValue::try_from(text).expect("visible characters")
    }

    /// The report for [`LOAD_METRICS_BIN`]: protobuf, in base 64.
    pub fn to_binary(&self) -> HeaderValue {
        let mut bytes = Vec::new();
        for (name, value) in self.plain().into_iter().filter(|(_, value)| *value != 0.0) {
            put_double(&mut bytes, number_of(name), value);
        }
        for (list, entries) in self.lists() {
            for (name, value) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, name.as_bytes());
                put_double(&mut entry, 2, *value);
                put_bytes(&mut bytes, number_of(list), &entry);
            }
        }
        HeaderValue::try_from(base64::encode(&bytes)).expect("letters and digits")
    }

    fn plain(&self) -> [(&'static str, f64); 5] {
        [
            ("cpu_utilization", self.cpu),
            ("mem_utilization", self.memory),
            ("application_utilization", self.application),
            ("rps_fractional", self.rps),
            ("eps", self.eps),
        ]
    }

    fn lists(&self) -> [(&'static str, &BTreeMap<String, f64>); 3] {
        [
            ("request_cost", &self.request_cost),
            ("utilization", &self.utilization),
            ("named_metrics", &self.named),
        ]
    }
}

/// The fields of the message by number.
const FIELDS: [(u64, &str); 9] = [
    (1, "cpu_utilization"),
    (2, "mem_utilization"),
    (3, "rps"),
    (4, "request_cost"),
    (5, "utilization"),
    (6, "rps_fractional"),
    (7, "eps"),
    (8, "named_metrics"),
    (9, "application_utilization"),
];

fn is_known(name: &str) -> bool {
    FIELDS.iter().any(|(_, known)| *known == name)
}

fn number_of(name: &str) -> u64 {
    FIELDS.iter().find(|(_, known)| *known == name).map_or(0, |(number, _)| *number)
}

/// A name and a number of a list.
fn entry_of(mut entry: &[u8]) -> Option<(&str, f64)> {
    let (mut name, mut value) = ("", 0.0);
    while !entry.is_empty() {
        match Field::read(&mut entry)? {
            Field { number: 1, value: Wire::Bytes(bytes) } => name = str::from_utf8(bytes).ok()?,
            Field { number: 2, value: Wire::Double(number) } => value = number,
            _ => {}
        }
    }
    Some((name, value))
}

fn bounded(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.len() <= LoadReport::LONGEST).then_some(bytes)
}

/// A number, also where JSON has it in a text.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    }
}

fn sound(value: f64, most: f64) -> Option<f64> {
    (value.is_finite() && (0.0..=most).contains(&value)).then_some(value)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=')
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report() -> LoadReport {
        let list = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        LoadReport {
            cpu: 0.25,
            memory: 0.5,
            application: 1.5,
            rps: 12.5,
            eps: 0.125,
            request_cost: list("rows", 70.0),
            utilization: list("disk", 0.75),
            named: list("queue", 7.0),
        }
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn one_report_is_read_in_all_its_forms() {
        let text = "TEXT cpu_utilization=0.25,mem_utilization=0.5, application_utilization=1.5,rps_fractional=12.5,\
                    eps=0.125,request_cost.rows=70,utilization.disk=0.75,named_metrics.queue=7,unknown=1,other.x=2";
        let json = r#"JSON {"cpu_utilization": 0.25, "mem_utilization": 0.5, "application_utilization": 1.5,
            "rps_fractional": 12.5, "eps": "0.125", "request_cost": {"rows": 70}, "utilization": {"disk": 0.75},
            "named_metrics": {"queue": 7}, "unknown": 1, "other": {"x": 2}, "nothing": null}"#;
        for words in [text, &json.replace('\n', " ")] {
            assert_eq!(LoadReport::read(&headers(LOAD_METRICS, words)), Some(report()), "{words}");
        }
        let binary = report().to_binary();
        assert_eq!(
            LoadReport::read(&HeaderMap::from_iter([(LOAD_METRICS_BIN, binary.clone())])),
            Some(report())
        );
        let padded = format!("{}{}", binary.to_str().unwrap(), ["", "", "==", "="][binary.len() % 4]);
        assert_eq!(LoadReport::read(&headers(LOAD_METRICS_BIN, &padded)), Some(report()));
        let bin = format!("BIN {padded}");
        assert_eq!(LoadReport::read(&headers(LOAD_METRICS, &bin)), Some(report()));
        assert_eq!(LoadReport::read(&HeaderMap::new()), None);
    }

    #[test]
    fn the_wire_is_that_of_orca() {
        // cpu_utilization, field 1, a double; rps, field 3, a whole number.
        let bytes = [&[0x09][..], &0.5_f64.to_le_bytes(), &[0x18, 0x96, 0x01]].concat();
        let read = LoadReport::from_binary(&bytes).unwrap();
        assert_eq!((read.cpu, read.rps), (0.5, 150.0));
        let only = LoadReport { cpu: 0.5, ..LoadReport::default() };
        assert_eq!(only.to_binary(), "CQAAAAAAAOA/");
        assert_eq!(only.to_text(), "TEXT cpu_utilization=0.5");
        assert_eq!(LoadReport::default().to_binary(), "");
    }

    #[test]
    fn a_number_that_breaks_a_rule_rejects_the_report() {
        for bad in [
            "cpu_utilization=-1",
            "cpu_utilization=NaN",
            "cpu_utilization=inf",
            "cpu_utilization=",
            "cpu_utilization",
            "mem_utilization=1.1",
            "utilization.disk=1.1",
            "named_metrics.x=much",
        ] {
            assert_eq!(LoadReport::parse(&format!("TEXT {bad}")), None, "{bad}");
        }
        for bad in
            ["", "TEXT", "cpu_utilization=0.5", "JSON []", "JSON {", "XML <a/>", r#"JSON {"eps": true}"#]
        {
            assert_eq!(LoadReport::parse(bad), None, "{bad}");
        }
        assert_eq!(LoadReport::read(&headers(LOAD_METRICS_BIN, "C")), None);
        assert_eq!(LoadReport::read(&headers(LOAD_METRICS_BIN, "!!!!")), None);
    }

    #[test]
    fn what_is_not_known_is_passed_over_whatever_it_is() {
        for text in [
            "TEXT cpu_utilization=0.5,host=a,build.version=b,other=,x=-1",
            r#"JSON {"cpu_utilization": 0.5, "host": "a", "tags": ["b"], "build": {"version": "b"}, "new": true}"#,
        ] {
            assert_eq!(
                LoadReport::parse(text),
                Some(LoadReport { cpu: 0.5, ..LoadReport::default() }),
                "{text}"
            );
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let many: Vec<_> = (0..=NAMES).map(|name| format!("named_metrics.{name}=1")).collect();
        assert_eq!(LoadReport::parse(&format!("TEXT {}", many.join(","))), None);
        assert!(LoadReport::parse(&format!("TEXT {}", many[1..].join(","))).is_some());
        assert_eq!(LoadReport::parse(&format!("TEXT {}", " ".repeat(LoadReport::LONGEST))), None);
    }

    fn any_list(most: f64) -> impl Strategy<Value = BTreeMap<String, f64>> {
        prop::collection::btree_map("[a-z.]{1,8}", 0.0..most, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            plain in prop::array::uniform5(0.0_f64..1.0), request_cost in any_list(1e9), utilization in any_list(1.0),
            named in any_list(1e9),
        ) {
            let [cpu, memory, application, rps, eps] = plain;
            let report = LoadReport { cpu, memory, application, rps, eps, request_cost, utilization, named };
            let text = report.to_text();
            let without_nothing = LoadReport::parse(text.to_str().unwrap()).unwrap();
            prop_assert_eq!(without_nothing.cpu, report.cpu);
            let binary = HeaderMap::from_iter([(LOAD_METRICS_BIN, report.to_binary())]);
            prop_assert_eq!(LoadReport::read(&binary), Some(report));
        }

        #[test]
        fn no_bytes_and_no_text_make_reading_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80), text in "(TEXT|JSON|BIN) [ -~]{0,60}",
        ) {
            let _ = LoadReport::from_binary(&bytes);
            let _ = LoadReport::parse(&text);
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = LoadReport::read(&HeaderMap::from_iter([(LOAD_METRICS_BIN, value)]));
            }
            let back = base64::decode(base64::encode(&bytes).as_bytes());
            prop_assert_eq!(back, Some(bytes));
        }
    }
}
