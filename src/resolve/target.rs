//! The text that names what is to be resolved.

use std::{borrow::Cow, fmt};

use crate::{Invalid, invalid::Check};

/// What a name such as `consul:///users?tag=v2` says: `scheme://authority/path?query`.
///
/// | part | of `consul://10.0.0.1:8500/users?tag=v2&tag=blue` | |
/// |---|---|---|
/// | [`scheme`](Self::scheme) | `consul` | which registry; in lower case |
/// | [`authority`](Self::authority) | `10.0.0.1:8500` | where the registry itself is; often empty, for its default |
/// | [`path`](Self::path) | `users` | what to look up there, without the slash before it |
/// | [`values`](Self::values) | `v2`, `blue` | options of the scheme |
///
/// `dns:users:80` reads as `dns:///users:80`. A name without a scheme, such as `users.internal:8080`, is one for
/// `dns`. In path and query `%2F` stands for `/`, and so on.
///
/// Secrets do not belong into a name. One that has a user and a password before its authority, or a token in its
/// query, is shown without them by `Display` and `Debug`; schemes take theirs by their builders, or from files.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    scheme: String,
    is_rooted: bool,
    authority: String,
    path: String,
    query: Vec<(String, String)>,
}

impl Target {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`Invalid`] if there is no name in it, or an escape (`%2F`) is not one.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (scheme, rest) = split_scheme(text);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let rooted = rest.strip_prefix("//");
        let (authority, path) = match rooted {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        let mut check = Check::default();
        let mut unescaped = |part: &str| {
            let plain = unescape(part);
            let rule = "every % begins an escape of two hexadecimal digits, and all of them make UTF-8";
            check.rule(plain.is_some(), "name", shown(text), rule);
            plain.map(Cow::into_owned).unwrap_or_default()
        };
        let path = unescaped(path);
        let query: Vec<(String, String)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (unescaped(key), unescaped(value))
            })
            .collect();
        let rule = "scheme:///name, for example dns:///users.internal:8080";
        check.rule(!path.is_empty() || !authority.is_empty() || !query.is_empty(), "name", shown(text), rule);
        check.finish()?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            is_rooted: rooted.is_some(),
            authority: authority.to_owned(),
            path,
            query,
        })
    }

    /// Which registry, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether it was written with `//`: `file:///users.yaml` and not `file:users.yaml`.
    pub fn is_rooted(&self) -> bool {
        self.is_rooted
    }

    /// Where the registry itself is; empty for the default of the scheme.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What to look up, without the slash before it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The last value of `key` in the query.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.query.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of `key` in the query, in their order.
    pub fn values<'a, 'k>(&'a self, key: &'k str) -> impl Iterator<Item = &'a str> + use<'a, 'k> {
        self.query.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Refuses options in the query that are not among `known`, so that a mistyped one is not silently without effect.
    ///
    /// # Errors
    /// [`Invalid`] with every option that is not known.
    pub fn only(&self, known: &[&str]) -> Result<(), Invalid> {
        Check::of(|check| {
            for (key, _) in &self.query {
                let rule = match known {
                    [] => format!("{} knows no options in its name", self.scheme),
                    _ => format!("{} knows {}", self.scheme, known.join(", ")),
                };
                check.rule(known.contains(&key.as_str()), "name.query", key, rule);
            }
        })
    }

    /// What is wrong with `field` of the name: for schemes of your own.
    pub fn invalid(&self, field: &str, value: &str, rule: impl Into<Cow<'static, str>>) -> Invalid {
        Check::problem(&format!("name.{field}"), value, rule)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.rsplit_once('@').map_or(&*self.authority, |(_, host)| host);
        write!(f, "{}://{authority}/{}", self.scheme, self.path)?;
        for (index, (key, value)) in self.query.iter().enumerate() {
            let value = if is_secret(key) { "***" } else { value };
            write!(f, "{}{key}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// The scheme of `text` and what follows its colon. What has none, or a port where the rest of a name would stand, is
/// one for `dns`.
fn split_scheme(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) && !is_port(rest) => (scheme, rest),
        _ => ("dns", text),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'_'))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => digit(bytes.next()?)? * 16 + digit(bytes.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(plain).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether the value of `key` is not for the eyes of those who read logs.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "password", "secret", "auth", "key"].iter().any(|word| key.contains(word))
}

/// `text`, as much of it as an error may show: a name that could not be read may hide a secret anywhere after its host.
fn shown(text: &str) -> String {
    let (head, query) = text.split_once('?').map_or((text, ""), |(head, _)| (head, "?***"));
    match head.split_once("//").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}//{host}{query}"),
        None => format!("{head}{query}"),
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (target.scheme, target.authority, target.path)
    }

    #[test]
    fn a_name_is_taken_apart_as_its_users_mean_it() {
        for (text, scheme, authority, path) in [
            ("dns:///users.internal:8080", "dns", "", "users.internal:8080"),
            ("dns://10.0.0.53/users.internal:80", "dns", "10.0.0.53", "users.internal:80"),
            ("dns:users:80", "dns", "", "users:80"),
            ("users.internal:8080", "dns", "", "users.internal:8080"),
            ("users:80", "dns", "", "users:80"),
            ("users", "dns", "", "users"),
            ("[::1]:80", "dns", "", "[::1]:80"),
            ("10.0.0.1:80", "dns", "", "10.0.0.1:80"),
            ("SRV:///_users._tcp.internal", "srv", "", "_users._tcp.internal"),
            ("file:///etc/mesh/users.yaml", "file", "", "etc/mesh/users.yaml"),
            ("file:relative/users.yaml", "file", "", "relative/users.yaml"),
            ("consul://10.0.0.1:8500/users?tag=v2", "consul", "10.0.0.1:8500", "users"),
            ("kubernetes:///users.prod:http", "kubernetes", "", "users.prod:http"),
            ("etcd://a:1,b:2/services/users", "etcd", "a:1,b:2", "services/users"),
            ("x:///a%2Fb%20c", "x", "", "a/b c"),
        ] {
            assert_eq!(parts(text), (scheme.into(), authority.into(), path.into()), "{text}");
        }
    }

    #[test]
    fn the_query_is_a_list() {
        let target = Target::parse("consul:///users?tag=v2&tag=a%26b&near").unwrap();
        assert_eq!(target.values("tag").collect::<Vec<_>>(), ["v2", "a&b"]);
        assert_eq!(target.value("tag"), Some("a&b"));
        assert_eq!(target.value("near"), Some(""));
        assert_eq!(target.value("dc"), None);
        let error = target.only(&["tag", "dc"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid options: name.query = \"near\": consul knows tag, dc");
    }

    #[test]
    fn what_is_not_a_name_is_told_with_the_rule() {
        for (text, told) in [
            ("", "name = \"\": scheme:///name"),
            ("dns:///", "name = \"dns:///\": scheme:///name"),
            ("x:///a%2", "name = \"x:///a%2\": every % begins an escape"),
            ("x:///a?b=%ff", "name = \"x:///a?***\": every % begins an escape"),
            ("x://me:hidden@host/%zz", "name = \"x://host/%zz\": every %"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let target = Target::parse("consul://me:hidden@host/users?token=hidden&tag=v2").unwrap();
        assert_eq!(target.to_string(), "consul://host/users?token=***&tag=v2");
        assert!(!format!("{target:?}").contains("hidden"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_shown_reads_the_same_but_for_its_secrets(text in "\\PC{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert!(!target.scheme().is_empty());
                let _ = target.to_string();
            }
        }
    }
}
