//! Where a registry's server is.

use std::{borrow::Cow, fmt, fmt::Write as _};

use ::hyper::Uri;

use super::Secret;
use crate::resolve::target::unescape;

/// `http://user:password@host:port/prefix`.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::resolve) struct Base {
    pub(super) is_tls: bool,
    /// Without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    /// Without a slash at its end.
    prefix: String,
    pub(super) basic: Option<(String, Secret)>,
}

impl Base {
    /// Reads `text`, which is plain HTTP if it has no scheme, and at `port` if it has none.
    pub(in crate::resolve) fn parse(text: &str, port: u16) -> Option<Self> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let basic = authority.as_str().rsplit_once('@').map(|(login, _)| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let plain = |text| unescape(text).unwrap_or(Cow::Borrowed(text));
            (plain(user).into_owned(), Secret::value(&*plain(password)))
        });
        // An authority such as `host:port` with a port that is none is told as no port.
        let has_port = authority.as_str().rsplit('@').next()?.len() > host.len();
        if bare.is_empty() || uri.query().is_some() || (has_port && authority.port_u16().is_none()) {
            return None;
        }
        Some(Self {
            is_tls,
            host: bare.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            basic,
        })
    }

    pub(in crate::resolve) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// What the header `Host` says.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Without what is secret in it.
impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({self})")
    }
}

/// `text` as a part of a path or query.
pub(in crate::resolve) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_base_is_read_as_its_users_mean_it() {
        for (text, shown) in [
            ("10.0.0.1", "http://10.0.0.1:99"),
            ("consul.internal:8500", "http://consul.internal:8500"),
            ("https://consul.internal/base/", "https://consul.internal:99/base"),
            ("http://me:hidden@host:1/eureka", "http://host:1/eureka"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("https://[::1]", "https://[::1]:99"),
        ] {
            assert_eq!(Base::parse(text, 99).map(|base| base.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["", "ftp://a", "http://", "http://a?b", "a:http", "http:// a", "http://a:99999"] {
            assert!(Base::parse(text, 99).is_none(), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_base_is_used_and_not_shown() {
        let base = Base::parse("http://me:hidden@host:1", 99).unwrap();
        assert_eq!(base.basic, Some(("me".to_owned(), Secret::value("hidden"))));
        assert!(!format!("{base:?} {base} {:?}", base.basic).contains("hidden"));
    }

    #[test]
    fn a_login_may_be_escaped_as_addresses_are() {
        let basic = |text: &str| Base::parse(text, 99).and_then(|base| base.basic);
        let login = |user: &str, password: &str| Some((user.to_owned(), Secret::value(password)));
        assert_eq!(basic("http://m%40e:p%3Aa%2Fs%25s@host"), login("m@e", "p:a/s%s"));
        assert_eq!(basic("http://me:100%@host"), login("me", "100%"), "what is no escape is meant as it is");
    }

    #[test]
    fn what_is_escaped_stays_one_part() {
        assert_eq!(escape("a/b c&d=é"), "a%2Fb%20c%26d%3D%C3%A9");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Base::parse(&text, 1);
        }
    }
}
