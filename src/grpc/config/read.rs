//! Reads fields of JSON by the rules of proto3, and notes each that breaks one.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::invalid::{Check, FOREVER};

/// What is wrong is told with so much of its value at the most.
const SHOWN: usize = 80;

/// The fields of one object. A field that is `null` is not there; those that nobody asks for are ignored.
pub(super) struct Fields<'a, 'c> {
    path: String,
    object: Option<&'a Map<String, Value>>,
    check: &'c mut Check,
}

impl<'a, 'c> Fields<'a, 'c> {
    /// The fields of `value`, whose own place in the document is `path`.
    pub(super) fn of(path: String, value: &'a Value, check: &'c mut Check) -> Self {
        let object = value.as_object();
        if object.is_none() {
            note(check, &path, Some(value), "an object");
        }
        Self { path, object, check }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes that the field breaks `rule`, unless `holds`.
    pub(super) fn rule(&mut self, holds: bool, name: &str, rule: &'static str) {
        if !holds && self.object.is_some() {
            let (place, value) = (self.place(name), self.get(name));
            note(self.check, &place, value, rule);
        }
    }

    /// Notes that something under the field is wrong.
    pub(super) fn wrong(&mut self, name: &str, value: &Value, rule: &'static str) {
        let place = self.place(name);
        note(self.check, &place, Some(value), rule);
    }

    pub(super) fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_, '_>) -> T) -> Option<T> {
        let value = self.get(name)?;
        let mut fields = Fields::of(self.place(name), value, self.check);
        fields.object.is_some().then(|| read(&mut fields))
    }

    /// Reads each object of a list.
    pub(super) fn objects(&mut self, name: &str, mut read: impl FnMut(&mut Fields<'_, '_>)) {
        for (index, value) in self.list(name).into_iter().flatten().enumerate() {
            let mut fields = Fields::of(self.place(&format!("{name}[{index}]")), value, self.check);
            if fields.object.is_some() {
                read(&mut fields);
            }
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Option<&'a [Value]> {
        let value = self.get(name);
        let list = value.and_then(Value::as_array).map(Vec::as_slice);
        self.rule(value.is_none() || list.is_some(), name, "a list");
        list.or(value.is_none().then_some(&[]))
    }

    /// The names of the fields, and the rest of the document under them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.object.into_iter().flatten().map(|(name, value)| (&**name, value))
    }

    /// A text; one that is not there is empty, as in proto3.
    pub(super) fn text(&mut self, name: &str) -> &'a str {
        let value = self.get(name);
        let text = value.and_then(Value::as_str);
        self.rule(value.is_none() || text.is_some(), name, "a text");
        text.unwrap_or_default()
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        self.rule(value.is_boolean(), name, "true or false");
        value.as_bool()
    }

    /// A whole number, also as a text, or as a fraction that is none.
    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64().or_else(|| {
                let number = value.as_f64()?;
                (number >= 0.0 && number.fract() == 0.0 && number < 1e15).then_some(number as u64)
            }),
        }
    }

    /// A finite number, also as a text.
    fn number(&self, name: &str) -> Option<f64> {
        let number = match self.get(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        number.filter(|number: &f64| number.is_finite())
    }

    /// A number that is at least 0, if it is there.
    pub(super) fn number_from_0(&mut self, name: &str) -> Option<f64> {
        self.get(name)?;
        let number = self.number(name).filter(|number| *number >= 0.0);
        self.rule(number.is_some(), name, "a number, at least 0");
        number
    }

    /// A number that must be there, and more than 0.
    pub(super) fn needed_number(&mut self, name: &str) -> Option<f64> {
        let number = self.number(name).filter(|number| *number > 0.0);
        self.rule(number.is_some(), name, "a number, more than 0");
        number
    }

    pub(super) fn duration(&mut self, name: &str) -> Option<Duration> {
        let value = self.get(name)?;
        let duration = value.as_str().and_then(duration);
        self.rule(duration.is_some(), name, "a duration, as \"1.5s\"");
        duration
    }

    /// A duration that must be there, and more than 0.
    pub(super) fn positive(&mut self, name: &str) -> Option<Duration> {
        let given = self.get(name).and_then(Value::as_str).and_then(duration);
        let positive = given.filter(|given| !given.is_zero());
        self.rule(positive.is_some(), name, "a duration, as \"1.5s\", more than 0");
        positive
    }
}

fn note(check: &mut Check, place: &str, value: Option<&Value>, rule: &'static str) {
    let shown = value.map_or("nothing".to_owned(), ToString::to_string);
    let shown: String = shown.chars().take(SHOWN).collect();
    check.rule(false, place, format_args!("{shown}"), rule);
}

/// A duration in the JSON of proto3: seconds, with at most nine digits of a fraction, and an `s`. More than ten years are
/// ten years here, since a time that far off can be computed with.
pub(super) fn duration(text: &str) -> Option<Duration> {
    /// The seconds of 10,000 years: what proto3 has at the most.
    const MOST: u64 = 315_576_000_000;
    let text = text.strip_suffix('s')?;
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction) || fraction.len() > 9) {
        return None;
    }
    let seconds = whole.parse().ok().filter(|seconds: &u64| *seconds <= MOST)?;
    let nanos = fraction.map_or(Ok(0), |fraction| format!("{fraction:0<9}").parse()).ok()?;
    Some(Duration::new(seconds, nanos).min(FOREVER))
}
