//! The name of a service and its port.

use std::fmt;

use crate::{Invalid, invalid::Check};

/// `users.prod:http`: a service, its namespace, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) service: String,
    /// That of the credentials, if not said.
    pub(super) namespace: Option<String>,
    pub(super) port: Port,
}

/// Which port of the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Only,
    Named(String),
    Number(u16),
}

impl Name {
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        // Of `users.prod.svc.cluster.local` the rest says nothing more.
        let (name, _) = name
            .split_once(".svc")
            .filter(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
            .unwrap_or((name, ""));
        let (service, namespace) =
            name.split_once('.').map_or((name, None), |(service, namespace)| (service, Some(namespace)));
        let parsed = match port {
            None => Some(Port::Only),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|number| *number > 0).map(Port::Number)
            }
            Some(text) => is_label(text).then(|| Port::Named(text.to_owned())),
        };
        let mut check = Check::default();
        let label = "at most 63 of a-z, 0-9 and -";
        check
            .rule(is_label(service), "service", service, label)
            .rule(namespace.is_none_or(is_label), "namespace", namespace.unwrap_or_default(), label)
            .rule(parsed.is_some(), "port", port.unwrap_or_default(), "the name of a port, or 1 to 65535");
        check.finish()?;
        Ok(Self {
            service: service.to_owned(),
            namespace: namespace.map(str::to_owned),
            port: parsed.unwrap_or(Port::Only),
        })
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("no port is named"),
            Self::Named(name) => write!(f, "no port {name:?} of TCP"),
            Self::Number(number) => write!(f, "no port {number}"),
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_taken_apart() {
        let name = |service: &str, namespace: Option<&str>, port| {
            Ok(Name { service: service.into(), namespace: namespace.map(Into::into), port })
        };
        assert_eq!(Name::parse("users"), name("users", None, Port::Only));
        assert_eq!(Name::parse("users.prod:http"), name("users", Some("prod"), Port::Named("http".into())));
        assert_eq!(Name::parse("users:8080"), name("users", None, Port::Number(8080)));
        assert_eq!(
            Name::parse("users.prod.svc.cluster.local:80"),
            name("users", Some("prod"), Port::Number(80))
        );
        let told = Name::parse("Users.prod.eu:0").unwrap_err();
        assert_eq!(told.problems().len(), 3, "{told}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Name::parse(&text);
        }
    }
}
